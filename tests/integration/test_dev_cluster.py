"""The private clusters, and the plugin that gives databases to tests."""

import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import dsn
from app.supervisor import SqitchError
from dev.cluster import KILLABLE, THROW_AWAY, Cluster, ClusterError, throw_away
from tests.postgres import Database
from tests.services import until

ROOT = Path(__file__).resolve().parents[2]

HOLD = """
import sys, time
from pathlib import Path
from dev.cluster import Cluster, THROW_AWAY
cluster = Cluster(Path(sys.argv[1]), settings=THROW_AWAY, die_with_parent=sys.argv[2] == "dies")
cluster.start()
print(cluster.pid, flush=True)
time.sleep(60)
"""

HELD_TEST = """
import pathlib, time
def test_held(cluster):
    report = pathlib.Path(__file__).with_name("report")
    report.with_suffix(".new").write_text(f"{cluster.pid} {cluster.directory}")
    report.with_suffix(".new").rename(report)
    time.sleep(60)
"""


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A cluster that these tests may stop and kill."""
    with throw_away(KILLABLE) as cluster:
        yield cluster


@pytest.fixture
def place() -> Iterator[Path]:
    """A place for a cluster that the server's user can reach."""
    place = Path("/tmp") / f"galaxy-test-place-{os.getpid()}"
    place.mkdir(mode=0o711)
    yield place / "postgres"
    Cluster(place / "postgres").destroy()
    place.rmdir()


def value(cluster: Cluster, query: str, database: str = "postgres") -> Any:
    with cluster.connect(database) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def test_the_cluster_is_utf8_without_a_language_and_has_checksums(own: Cluster) -> None:
    assert value(own, "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'postgres'") == "UTF8"
    assert value(own, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C.UTF-8"
    assert value(own, "SHOW data_checksums") == "on"
    assert value(own, "SHOW timezone") == "UTC"
    assert value(own, "SHOW max_connections") == "300"
    assert value(own, "SHOW max_prepared_transactions") == "0"


def test_the_server_runs_as_nobody_dangerous(own: Cluster) -> None:
    assert own.pid is not None
    expected = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else os.geteuid()
    assert Path(f"/proc/{own.pid}").stat().st_uid == expected
    for directory in (own.socket_directory, own.directory):
        assert directory.stat().st_mode & 0o777 == 0o700


def test_it_listens_on_a_socket_and_on_this_machine_only(own: Cluster) -> None:
    assert value(own, "SHOW listen_addresses") == "127.0.0.1"
    with psycopg.connect(host="127.0.0.1", port=own.port, user="postgres", dbname="postgres") as connection:
        assert connection.info.dbname == "postgres"
    path = own.socket_directory / f".s.PGSQL.{own.port}"
    assert path.is_socket()
    assert len(os.fsencode(path)) <= 107


def test_the_deploying_login_may_make_roles_and_is_no_superuser(own: Cluster) -> None:
    rights = "concat_ws(' ', rolcanlogin, rolcreaterole, rolsuper, rolcreatedb, rolbypassrls)"
    assert value(own, f"SELECT {rights} FROM pg_roles WHERE rolname = 'galaxy_deploy'") == "t t f f f"


def test_databases_belong_to_the_deploying_login_and_can_be_copied(own: Cluster) -> None:
    own.create_database('odd "name"')
    with own.connect('odd "name"', "galaxy_deploy") as connection:
        connection.execute("CREATE SCHEMA backend CREATE TABLE fact (number integer)")
        connection.execute("INSERT INTO backend.fact VALUES (42)")
    own.create_database("copy", template='odd "name"')
    with psycopg.connect(dsn.conninfo(own.dsn("galaxy_deploy", "copy"), application_name="test")) as connection:
        assert connection.execute("SELECT number FROM fact").fetchone() == (42,)
        own.drop_database("copy")
        with pytest.raises(psycopg.errors.AdminShutdown):
            connection.execute("SELECT 1")
    own.drop_database('odd "name"')
    assert not own.has_database("copy")
    own.drop_database("copy")


def test_neither_statements_nor_what_they_carry_reach_the_log(own: Cluster) -> None:
    with own.connect() as connection:
        connection.execute("CREATE TEMPORARY TABLE code (code text UNIQUE)")
        connection.execute("INSERT INTO code VALUES (%s)", ["hush-123456"])
        with pytest.raises(psycopg.errors.UniqueViolation, match="hush-123456"):
            connection.execute("INSERT INTO code VALUES (%s)", ["hush-123456"])
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute("SELECT 'seen'::text, %s::text::integer", ["hush-123456"])
        with pytest.raises(psycopg.errors.SyntaxError):
            connection.execute("SELEKT 'hush-123456'")
    log = own.log.read_text()
    assert "ready to accept connections" in log
    assert "hush" not in log


def test_a_killed_server_comes_back_where_it_was_with_all_that_was_committed(own: Cluster) -> None:
    port, pid = own.port, own.pid
    with own.connect() as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS number")
        own.crash()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
    assert own.pid is None
    with pytest.raises(ClusterError, match="no server runs"):
        own.crash()
    own.start()
    assert (own.port, value(own, "SELECT number FROM kept")) == (port, 1)
    assert own.pid != pid
    own.restart("immediate")
    assert (own.port, value(own, "SELECT number FROM kept")) == (port, 1)


def test_a_server_is_not_started_twice(own: Cluster) -> None:
    with pytest.raises(ClusterError, match="has been started already"):
        own.start()


def test_a_cluster_of_another_process_is_reached_by_its_directory(own: Cluster) -> None:
    other = Cluster(own.directory)
    assert (other.pid, other.port) == (own.pid, own.port)
    assert other.dsn("galaxy_api", "x") == own.dsn("galaxy_api", "x")
    assert value(other, "SELECT 1") == 1


def test_a_port_that_is_taken_is_told(own: Cluster, place: Path) -> None:
    with pytest.raises(ClusterError, match=r"does not start(.|\n)*could not bind"):
        Cluster(place, port=own.port, settings=THROW_AWAY).start()


def test_a_directory_of_somebody_else_is_refused(place: Path) -> None:
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(ClusterError, match="is in the way"):
        Cluster(place).start()


def test_an_interrupted_beginning_is_begun_again(place: Path) -> None:
    place.mkdir(mode=0o700)
    (place / "data.new").mkdir()
    (place / "data.new" / "PG_VERSION").touch()
    with Cluster(place, settings=THROW_AWAY, die_with_parent=True) as cluster:
        assert value(cluster, "SELECT 1") == 1
    assert cluster.pid is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has Postgres run as somebody else")
def test_where_the_server_cannot_go_its_files_are_elsewhere(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    cluster = Cluster(tmp_path / "postgres", settings=THROW_AWAY, die_with_parent=True)
    try:
        cluster.start()
        elsewhere = cluster.directory.readlink()
        assert elsewhere.parent == Path("/var/tmp")
        assert elsewhere.stat().st_mode & 0o777 == 0o700
        cluster.stop()
        cluster.start()
        assert Cluster(tmp_path / "postgres").pid == cluster.pid
    finally:
        cluster.destroy()
    assert not elsewhere.exists()
    assert not cluster.directory.is_symlink()


def test_a_mortal_server_ends_with_its_killed_parent(place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, place, "dies"], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not is_alive(pid))


def test_a_server_whose_owner_was_killed_makes_way_for_the_next(place: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD, place, "stays"], cwd=ROOT, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert Cluster(place).pid == pid
    with Cluster(place, settings=THROW_AWAY) as cluster:
        assert not is_alive(pid)
        assert value(cluster, "SELECT 1") == 1


def test_sqitch_tells_what_went_wrong(own: Cluster) -> None:
    with pytest.raises(SqitchError, match=r'sqitch deploy ended with(.|\n)*database "nowhere" does not exist'):
        own.sqitch("nowhere", "deploy")


@pytest.mark.parametrize("options, signo", [([], signal.SIGINT), ([], signal.SIGKILL), (["-n", "2"], signal.SIGKILL)])
def test_nothing_outlives_a_run_of_pytest(tmp_path: Path, options: list[str], signo: signal.Signals) -> None:
    (tmp_path / "test_held.py").write_text(HELD_TEST)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    arguments = ["-p", "tests.postgres", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", *options]
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST", "COV"))}
    with subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments, tmp_path],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
    ) as run:
        until((tmp_path / "report").exists)
        pid, directory = (tmp_path / "report").read_text().split()
        assert is_alive(int(pid))
        run.send_signal(signo)
    if signo == signal.SIGKILL:
        until(lambda: not is_alive(int(pid)) and not Path(directory).parent.exists())
    assert not is_alive(int(pid))
    assert not Path(directory).parent.exists()
    assert not Cluster(Path(directory)).socket_directory.exists()


def test_every_test_has_databases_of_its_own(database: Database, make_database: Callable[[], Database]) -> None:
    other = make_database()
    assert other.name != database.name
    with database.connect("galaxy_deploy") as connection:
        assert connection.execute("SHOW search_path").fetchone() == ("backend",)
        connection.execute("CREATE SCHEMA only_here")
    row = other.connect().execute("SELECT to_regnamespace('only_here') IS NULL").fetchone()
    assert row == (True,)
    with psycopg.connect(dsn.conninfo(other.dsn("galaxy_api"), application_name="test")) as connection:
        assert connection.execute("SELECT current_user, current_database()").fetchone() == (
            "galaxy_api",
            other.name,
        )
