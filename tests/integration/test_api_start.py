"""How the HTTP program begins and ends: what it refuses, how it says so, and what it finishes first."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from app.schema import planned_changes
from dev.cluster import Cluster, free_port
from tests.contract.wire import Wire, request
from tests.postgres import Database
from tests.services import Api, Program, StartProgram, note_secret, until

EX_USAGE, EX_CONFIG = 64, 78


def refused(program: Program, status: int = EX_CONFIG) -> str:
    """Wait for a program that does not start; return what it says on standard error, which is sentences and no traceback."""
    assert program.wait() == status, program.raw_lines()
    said = program.errors()
    assert "Traceback" not in said + "".join(program.raw_lines()), said
    return said


# -- logins


@pytest.fixture
def login(cluster: Cluster, database: Database) -> Iterator[Callable[[str], str]]:
    """Make logins from what follows CREATE ROLE; return the DSN of each."""
    made: list[str] = []
    with cluster.connect() as connection:

        def make(statements: str) -> str:
            name = f"test_{secrets.token_hex(6)}"
            made.append(name)
            connection.execute(statements.format(name))
            return database.dsn(name)

        yield make
        for name in made:
            connection.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        ("CREATE ROLE {} LOGIN SUPERUSER", "is a superuser"),
        ("CREATE ROLE {} LOGIN SUPERUSER IN ROLE backend_api", "is a superuser"),
        ("CREATE ROLE {} LOGIN IN ROLE backend_api, backend_worker", "backend_worker"),
        ("CREATE ROLE {} LOGIN IN ROLE backend_api, pg_read_all_data", "pg_read_all_data"),
        ("CREATE ROLE {} LOGIN IN ROLE galaxy_api, galaxy_push", "galaxy_push"),
        ("CREATE ROLE {} LOGIN NOINHERIT IN ROLE backend_api, backend_owner", "backend_owner"),
        ("CREATE ROLE {} LOGIN IN ROLE backend_worker", "backend_api"),
        ("CREATE ROLE {} LOGIN", None),
    ],
    ids=[
        "superuser",
        "superuser in the door",
        "two doors",
        "reads all",
        "two doors through others",
        "owner",
        "another door",
        "no door",
    ],
)
def test_a_login_that_may_do_more_or_less_is_refused_by_name(
    statements: str, says: str | None, login: Callable[[str], str], start_program: StartProgram, database: Database
) -> None:
    dsn = login(statements)
    program = start_program("api", database, BACKEND_POSTGRES_DSN_API=dsn)
    said = refused(program)
    assert dsn.split("//")[1].split("@")[0] in said
    assert says is None or says in said


def test_a_superuser_that_calls_itself_another_is_refused(
    login: Callable[[str], str], start_program: StartProgram, database: Database
) -> None:
    """SET ROLE is no boundary: it can be undone."""
    dsn = login("CREATE ROLE {} LOGIN SUPERUSER") + "&options=-crole%3Dgalaxy_api"
    program = start_program("api", database, BACKEND_POSTGRES_DSN_API=dsn)
    until(lambda: program.process.poll() is not None or program.logged("Listening"), timeout=30)
    program.stop()
    assert "superuser" in refused(program)


def test_development_allows_any_login(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(database, BACKEND_POSTGRES_DSN_API=database.dsn("postgres"), BACKEND_DEVELOPMENT="true")
    assert any("BACKEND_DEVELOPMENT" in line["msg"] for line in api.log_lines() if line["level"] == "warn")


# -- schema


def test_an_older_schema_is_refused_with_the_command(
    make_database: Callable[[], Database], cluster: Cluster, start_program: StartProgram
) -> None:
    database = make_database()
    cluster.sqitch(database.name, "revert", "-y", "--to", "@HEAD^")
    said = refused(start_program("api", database))
    assert "sqitch deploy" in said
    assert planned_changes()[-1].name in said


def test_a_schema_that_was_never_deployed_is_refused_with_the_command(
    cluster: Cluster, start_program: StartProgram, template_database: str
) -> None:
    """The oldest schema of all."""
    database = Database(cluster, f"empty_{secrets.token_hex(6)}")
    cluster.create_database(database.name)
    try:
        assert template_database
        assert "sqitch deploy" in refused(start_program("api", database))
    finally:
        database.drop()


def test_a_change_of_the_same_name_is_another_change(database: Database, start_program: StartProgram) -> None:
    """What was reworked, or edited in the plan, is told by its id."""
    with database.connect() as connection:
        connection.execute("UPDATE sqitch.changes SET change_id = repeat('0', 40) WHERE change = 'api/sessions'")
    said = refused(start_program("api", database))
    assert "api/sessions" in said


def test_a_newer_schema_is_taken(database: Database, start_api: Callable[..., Api]) -> None:
    with database.connect() as connection:
        connection.execute(
            """
            INSERT INTO sqitch.changes (change_id, change, project, note, committer_name, committer_email, planned_at,
                                        planner_name, planner_email)
            SELECT repeat('f', 40), 'api/tomorrow', project, note, committer_name, committer_email, planned_at,
                   planner_name, planner_email
              FROM sqitch.changes LIMIT 1
            """
        )
    assert start_api(database).client.get("/readyz").status_code == 200


def test_a_schema_that_is_reverted_beneath_the_program_makes_it_unready(database: Database, api: Api) -> None:
    with database.connect() as connection:
        connection.execute("UPDATE sqitch.changes SET change_id = repeat('0', 40) WHERE change = 'api/sessions'")
        answer = api.client.get("/readyz")
        assert (answer.status_code, answer.json()["checks"]["schema"]) == (503, "failed")
        assert api.client.get("/healthz").status_code == 200


# -- configuration


def test_every_problem_of_the_environment_is_told_at_once_and_no_secret(database: Database, start_program: StartProgram) -> None:
    note_secret("hunter2-hunter2")
    program = start_program(
        "api",
        database,
        BACKEND_POSTGRES_DSN_API="postgresql://galaxy_api:hunter2-hunter2@localhost/galaxy",
        BACKEND_HTTP_WORKERS="none",
        BACKEND_SMTP_HOST="",
        BACKEND_ADMIN_BOOTSTRAP_PASSWORD="",
        BACKEND_SURPLUS="1",
    )
    said = refused(program)
    for name in ("POSTGRES_DSN_API", "HTTP_WORKERS", "SMTP_HOST", "ADMIN_BOOTSTRAP_PASSWORD", "SURPLUS"):
        assert f"BACKEND_{name}" in said
    assert len(said.splitlines()) == 5


@pytest.mark.parametrize("name", ["bad name!", "-admin", "a:b", "\u00e4dmin", "x" * 65])
def test_a_first_administrator_with_an_impossible_name_is_refused(
    name: str, database: Database, start_program: StartProgram
) -> None:
    said = refused(start_program("api", database, BACKEND_ADMIN_BOOTSTRAP_USER=name))
    assert "BACKEND_ADMIN_BOOTSTRAP_USER" in said


def test_geo_data_that_cannot_be_read_is_refused_by_the_variables_name(
    database: Database, start_program: StartProgram, tmp_path: Path
) -> None:
    garbage = tmp_path / "garbage.mmdb"
    garbage.write_bytes(b"no database" * 1000)
    programs = [
        start_program("api", database, BACKEND_GEOIP_DB_PATH=str(path)) for path in (tmp_path / "none.mmdb", garbage, tmp_path)
    ]
    for program in programs:
        assert "BACKEND_GEOIP_DB_PATH" in refused(program)


def test_an_unreachable_database_is_no_matter_of_configuration(database: Database, start_program: StartProgram) -> None:
    """Exit status 1: whoever started it may try again. What libpq says of it is told; it holds no password."""
    note_secret("hunter3-hunter3")
    programs = [
        start_program("api", database, BACKEND_POSTGRES_DSN_API=dsn)
        for dsn in (
            f"postgresql://galaxy_api:hunter3-hunter3@127.0.0.1:{free_port()}/galaxy?search_path=backend",
            "postgresql://galaxy_api:hunter3-hunter3@/galaxy?host=/nonexistent&search_path=backend",
            database.dsn("galaxy_api").replace(database.name, "no_such_database"),
        )
    ]
    reasons = ("Connection refused", "No such file", '"no_such_database" does not exist')
    for program, reason in zip(programs, reasons, strict=True):
        assert program.wait() == 1
        (line,) = program.logged("Postgres")
        assert line["level"] == "error"
        assert reason in line["reason"]
        assert reason in program.errors()
        assert "Traceback" not in program.errors()


def test_an_address_that_is_taken_ends_the_start(database: Database, start_program: StartProgram) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        program = start_program("api", database, BACKEND_HTTP_LISTEN_ADDR=f"127.0.0.1:{taken.getsockname()[1]}")
        assert program.wait() == 1
        assert any("in use" in line["msg"] for line in program.log_lines())


def test_a_wrong_command_line_is_told(database: Database, start_program: StartProgram) -> None:
    program = start_program("nonsense", database)
    assert program.wait() == EX_USAGE
    assert "usage:" in program.errors()


# -- the end


BLOCKED = f"/api/v1/internal/sessions/{'0' * 8}-0000-7000-8000-{'0' * 12}"


def children(pid: int) -> list[int]:
    return [int(found) for found in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_in_flight_is_finished(number: signal.Signals, database: Database, api: Api) -> None:
    idle = Wire(api.address)
    wire = Wire(api.address)
    try:
        idle.send(request("GET", "/healthz"))
        assert idle.answer().status == 200
        with database.connect() as connection:
            connection.execute("BEGIN; LOCK TABLE device_sessions")
            wire.send(request("GET", BLOCKED, headers=api.internal))
            with database.connect() as watching:
                until(lambda: watching.execute("SELECT pid FROM pg_locks WHERE NOT granted").fetchone())
            os.kill(api.process.pid, number)
            time.sleep(0.5)
            assert api.process.poll() is None
            refused_at = socket.socket()
            try:
                # Not taken by a queue that nobody reads any more.
                assert refused_at.connect_ex(api.address) == errno.ECONNREFUSED
            finally:
                refused_at.close()
            # Nor does a probe on a connection that is kept hear that we are ready.
            assert idle.read() == b""
            connection.execute("COMMIT")
            assert wire.answer().status == 404
    finally:
        wire.close()
        idle.close()
    assert api.wait() == 0
    assert api.errors() == ""


def test_a_second_signal_ends_it_at_once(database: Database, api: Api) -> None:
    with database.connect() as connection, httpx.Client() as client:
        connection.execute("BEGIN; LOCK TABLE device_sessions")
        assert client.get(f"{api.url}/healthz").status_code == 200
        with contextlib.closing(Wire(api.address)) as wire:
            wire.send(request("GET", BLOCKED, headers=api.internal))
            time.sleep(0.3)
            started = time.monotonic()
            api.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            api.process.send_signal(signal.SIGTERM)
            api.wait()
            assert time.monotonic() - started < 6


def test_a_budget_ends_what_does_not_end_by_itself(database: Database, start_api: Callable[..., Api]) -> None:
    api = start_api(database, BACKEND_HTTP_SHUTDOWN_TIMEOUT="1s", BACKEND_POSTGRES_OPERATION_TIMEOUT="30s")
    with database.connect() as connection:
        connection.execute("BEGIN; LOCK TABLE device_sessions")
        with contextlib.closing(Wire(api.address)) as wire:
            wire.send(request("GET", BLOCKED, headers=api.internal))
            time.sleep(0.3)
            started = time.monotonic()
            api.process.send_signal(signal.SIGTERM)
            api.wait()
            assert time.monotonic() - started < 12


def test_a_process_that_is_killed_is_replaced(database: Database, start_api: Callable[..., Api]) -> None:
    api = start_api(database, BACKEND_HTTP_WORKERS="2")
    before = children(api.process.pid)
    assert len(before) == 2
    os.kill(before[0], signal.SIGKILL)
    until(lambda: len(set(children(api.process.pid)) - set(before)) == 1)
    for _ in range(10):
        with api.new_client() as client:
            until(lambda client=client: client.get("/readyz").status_code == 200)  # type: ignore[misc]


def test_nothing_is_left_when_the_program_is_killed(database: Database, start_api: Callable[..., Api]) -> None:
    api = start_api(database, BACKEND_HTTP_WORKERS="2")
    workers = children(api.process.pid)
    os.kill(api.process.pid, signal.SIGKILL)
    api.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), timeout=10)


def test_a_process_that_ends_leaves_the_others_their_metrics(database: Database, start_api: Callable[..., Api]) -> None:
    """With Prometheus the processes share a directory; it outlives each of them."""
    port = free_port()
    api = start_api(
        database,
        BACKEND_HTTP_WORKERS="2",
        BACKEND_OTEL_METRICS_EXPORTER="prometheus",
        BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR=f"127.0.0.1:{port}",
    )

    def scraped() -> str:
        with httpx.Client() as client:
            return client.get(f"http://127.0.0.1:{port}/metrics").text

    assert 'path="/readyz"' in scraped()
    before = children(api.process.pid)
    workers = [pid for pid in before if b"app.scrape" not in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGTERM)
    until(lambda: set(children(api.process.pid)) - set(before) or api.process.poll() is not None)
    time.sleep(1)
    assert api.process.poll() is None, "one process has ended, and took all others with it"
    api.wait_ready()
    assert 'path="/readyz"' in scraped()
    (scraper,) = set(before) - set(workers)
    os.kill(scraper, signal.SIGKILL)
    until(lambda: any(pid != scraper and _is_scraper(pid) for pid in children(api.process.pid)))
    until(lambda: _answers(port))
    assert 'path="/readyz"' in scraped()


def _is_scraper(pid: int) -> bool:
    try:
        return b"app.scrape" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics").status_code == 200
    except httpx.HTTPError:
        return False
