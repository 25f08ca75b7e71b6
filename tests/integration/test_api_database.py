"""The HTTP program when its database is restarted, gone, full or slow."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from dev.cluster import Cluster, find_binaries, throw_away
from tests.contract.wire import request, volley
from tests.postgres import Database
from tests.services import Api, Person, StartProgram, add_session, new_email, session_database, sign_in, until


@pytest.fixture(scope="module")
def own_cluster(cluster: Cluster, template_database: str) -> Iterator[Cluster]:
    """A cluster that may be stopped, with a database `galaxy` like the template."""
    binaries = find_binaries()
    place = ["-h", str(cluster.socket_directory), "-p", str(cluster.port), "-U", "postgres"]
    with session_database(cluster, template_database, "copy") as copied:
        roles = subprocess.run([binaries / "pg_dumpall", *place, "--roles-only"], check=True, capture_output=True).stdout
        schema = subprocess.run([binaries / "pg_dump", *place, copied.name], check=True, capture_output=True).stdout
    with throw_away() as made:
        made.create_database("galaxy")
        there = ["-h", str(made.socket_directory), "-p", str(made.port), "-U", "postgres", "-q"]
        subprocess.run(["psql", *there, "postgres"], input=roles, check=True, capture_output=True)
        subprocess.run(["psql", *there, "-v", "ON_ERROR_STOP=1", "galaxy"], input=schema, check=True, capture_output=True)
        yield made


@pytest.fixture
def own_database(own_cluster: Cluster) -> Iterator[Database]:
    if own_cluster.pid is None:
        own_cluster.start()
    made = Database(own_cluster, "galaxy")
    yield made
    if own_cluster.pid is None:
        own_cluster.start()
    with own_cluster.connect("galaxy") as connection:
        assert connection.execute("SELECT * FROM backend.invariants").fetchall() == []


@pytest.fixture
def own_api(own_database: Database, start_api: Callable[..., Api]) -> Api:
    return start_api(own_database, BACKEND_ADMIN_BOOTSTRAP_USER="", BACKEND_ADMIN_BOOTSTRAP_PASSWORD="")


@contextlib.contextmanager
def locked(database: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection that lets nobody at sessions until it commits."""
    with database.cluster.connect(database.name) as connection:
        connection.execute("BEGIN; LOCK TABLE backend.device_sessions")
        yield connection


def session_path(person: Person) -> str:
    return f"/api/v1/internal/sessions/{person.device_session_id}"


def test_a_restart_between_requests_is_not_noticed(own_api: Api, own_database: Database, own_cluster: Cluster) -> None:
    """Connections that the server has closed are replaced before they are used, for commands too."""
    person = sign_in(own_api, own_database)
    for mode in ("fast", "immediate"):
        own_cluster.restart(mode)
        answers = volley([own_api.address], [request("GET", session_path(person), headers=own_api.internal)] * 8)
        assert [a.status for a in answers] == [200] * 8
        own_cluster.restart(mode)
        answer = own_api.client.post("/api/v1/public/auth/send-email-code", json={"email": new_email()})
        assert answer.status_code == 200
    assert [line for line in own_api.log_lines() if line["level"] == "error"] == []


def test_while_it_is_down_everybody_is_told_so_and_then_all_is_well(
    own_api: Api, own_database: Database, own_cluster: Cluster
) -> None:
    person = sign_in(own_api, own_database)
    client = own_api.client
    own_cluster.stop()
    started = time.monotonic()
    asked = {
        "public": client.post("/api/v1/public/auth/send-email-code", json={"email": new_email()}),
        "user": client.get("/api/v1/user/account", headers=person.header),
        "command": client.post("/api/v1/user/account/sessions/revoke-all", headers=person.header),
        "internal": client.get(session_path(person), headers=own_api.internal),
        "admin": client.get("/api/v1/admin/admin-accounts", headers={"Authorization": "Basic cm9vdDp4"}),
    }
    assert time.monotonic() - started < 20
    for group, answer in asked.items():
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable"), group
        assert answer.headers["Retry-After"] == "1"
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json()) == (
        503,
        {
            "status": "not_ready",
            "checks": {"postgres": "failed", "schema": "failed", "push": "degraded", "worker": "degraded"},
        },
    )
    assert client.get("/healthz").status_code == 200
    # What is malformed is told without asking anybody.
    assert client.get("/api/v1/user/account").status_code == 400
    own_cluster.start()
    assert client.get("/readyz").status_code == 200
    assert client.get(session_path(person), headers=own_api.internal).json()["status"] == "active"
    assert client.post("/api/v1/user/account/sessions/revoke-all", headers=person.header).json() == {"revoked": 1}
    levels = {line["level"] for line in own_api.log_lines()}
    assert "error" not in levels, "an outage of the database is a warning of ours"


def test_reads_through_a_crash_are_tried_again(own_api: Api, own_database: Database, own_cluster: Cluster) -> None:
    """A read whose connection goes away while it waits is run again; it has done nothing."""
    person = sign_in(own_api, own_database)
    with locked(own_database) as connection, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(own_api.client.get, session_path(person), headers=own_api.internal)
        with own_cluster.connect("galaxy") as watching:
            waiting = "SELECT pid FROM pg_stat_activity WHERE usename = 'galaxy_api' AND wait_event_type = 'Lock'"
            pid = until(lambda: watching.execute(waiting).fetchall())[0][0]
            watching.execute("SELECT pg_terminate_backend(%s)", [pid])
            until(lambda: watching.execute(waiting + " AND pid <> %s", [pid]).fetchall())
            connection.execute("COMMIT")
        assert reading.result().status_code == 200


def test_a_command_whose_connection_goes_away_is_not_run_again(
    own_api: Api, own_database: Database, own_cluster: Cluster
) -> None:
    person = sign_in(own_api, own_database)
    with locked(own_database) as connection, ThreadPoolExecutor(1) as pool:
        running = pool.submit(own_api.client.post, f"{session_path(person)}/revoke", headers=own_api.internal)
        with own_cluster.connect("galaxy") as watching:
            waiting = "SELECT pid FROM pg_stat_activity WHERE usename = 'galaxy_api' AND wait_event_type = 'Lock'"
            pid = until(lambda: watching.execute(waiting).fetchall())[0][0]
            watching.execute("SELECT pg_terminate_backend(%s)", [pid])
        answer = running.result()
        connection.execute("COMMIT")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert own_api.client.get(session_path(person), headers=own_api.internal).json()["status"] == "active"
    assert own_api.client.post(f"{session_path(person)}/revoke", headers=own_api.internal).status_code == 200


def test_under_load_a_restart_loses_nothing_that_was_answered(own_api: Api, own_database: Database, own_cluster: Cluster) -> None:
    person = sign_in(own_api, own_database)
    with own_cluster.connect("galaxy") as connection:
        sessions = [add_session(connection, person.user_id) for _ in range(300)]

    def revoke(part: list[str]) -> dict[str, int]:
        with own_api.new_client() as client:
            return {s: client.post(f"/api/v1/internal/sessions/{s}/revoke", headers=own_api.internal).status_code for s in part}

    with ThreadPoolExecutor(4) as pool:
        parts = [pool.submit(revoke, sessions[n::4]) for n in range(4)]
        time.sleep(0.15)
        own_cluster.restart()
        told = {s: status for part in parts for s, status in part.result().items()}
    assert set(told.values()) <= {200, 503}
    with own_cluster.connect("galaxy") as connection:
        found = connection.execute(
            "SELECT device_session_id::text, status FROM backend.device_sessions WHERE user_id = %s", [person.user_id]
        )
        states = dict(found.fetchall())
        events = connection.execute(
            "SELECT device_session_id::text, count(*) FROM backend.push_pending WHERE user_id = %s GROUP BY 1", [person.user_id]
        )
        counts = dict(events.fetchall())
    for session_id, status in told.items():
        if status == 200:
            assert states[session_id] == "revoked"
        assert counts.get(session_id, 0) == (states[session_id] == "revoked"), "an event with its cause, and once"


def test_a_process_that_ends_while_the_database_is_away_comes_back_with_it(own_api: Api, own_cluster: Cluster) -> None:
    pid = own_api.process.pid
    (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own_cluster.stop()
    os.kill(int(worker), signal.SIGKILL)
    time.sleep(2.5)
    own_cluster.start()

    def well() -> bool:
        assert own_api.process.poll() is None, "the whole program has ended"
        try:
            return httpx.get(f"{own_api.url}/readyz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    until(well, timeout=15)


def test_no_room_at_the_server_is_unavailable(own_api: Api, own_database: Database, own_cluster: Cluster) -> None:
    person = sign_in(own_api, own_database)
    with own_cluster.connect() as connection:
        connection.execute("ALTER ROLE galaxy_api CONNECTION LIMIT 0")
        try:
            connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'galaxy_api'")
            answer = own_api.client.get(session_path(person), headers=own_api.internal)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        finally:
            connection.execute("ALTER ROLE galaxy_api CONNECTION LIMIT -1")
    assert own_api.client.get(session_path(person), headers=own_api.internal).status_code == 200


def test_a_server_that_only_reads_still_answers_reads(own_api: Api, own_database: Database, own_cluster: Cluster) -> None:
    """As a standby does in a fail-over, until it is promoted."""
    person = sign_in(own_api, own_database)
    with own_cluster.connect() as connection:
        connection.execute("ALTER DATABASE galaxy SET default_transaction_read_only = on")
        try:
            connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'galaxy_api'")
            assert own_api.client.get(session_path(person), headers=own_api.internal).status_code == 200
            answer = own_api.client.post(f"{session_path(person)}/revoke", headers=own_api.internal)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
        finally:
            connection.execute("ALTER DATABASE galaxy RESET default_transaction_read_only")
            connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'galaxy_api'")
    assert own_api.client.post(f"{session_path(person)}/revoke", headers=own_api.internal).status_code == 200


# -- connections


def test_a_process_has_a_connection_for_each_thread_and_none_in_a_transaction(
    database: Database, start_api: Callable[..., Api]
) -> None:
    api = start_api(database, BACKEND_HTTP_WORKERS="2", BACKEND_HTTP_THREADS="3")
    person = sign_in(api, database)
    query = "SELECT state, application_name FROM pg_stat_activity WHERE datname = %s AND usename = 'galaxy_api'"
    for _ in range(3):
        volley([api.address], [request("GET", session_path(person), headers=api.internal)] * 30)
        found = database.connect().execute(query, [database.name]).fetchall()
        assert found == [("idle", "galaxy-api")] * 6


def test_connections_do_not_grow_old(database: Database, start_api: Callable[..., Api]) -> None:
    api = start_api(database, BACKEND_POSTGRES_CONN_MAX_LIFETIME="1s")
    person = sign_in(api, database)
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usename = 'galaxy_api' AND pid = ANY (%s)"
    with database.connect() as connection:
        first = [
            row[0]
            for row in connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE datname = %s AND usename = 'galaxy_api'", [database.name]
            ).fetchall()
        ]
        assert first

        def replaced() -> bool:
            volley([api.address], [request("GET", session_path(person), headers=api.internal)] * 12)
            row = connection.execute(query, [database.name, first]).fetchone()
            return row == (0,)

        until(replaced, timeout=10, pause=0.2)


def test_settings_of_rules_reach_the_database(database: Database, start_program: StartProgram) -> None:
    api = start_program("api", database, BACKEND_AUTH_CHALLENGE_TTL="45s", BACKEND_POSTGRES_OPERATION_TIMEOUT="1500ms")
    assert isinstance(api, Api)
    api.wait_ready()
    api.client.post("/api/v1/public/auth/send-email-code", json={"email": new_email()})
    with database.connect() as connection:
        row = connection.execute("SELECT extract(epoch FROM expires_at - created_at)::int FROM auth_challenges").fetchone()
    assert row == (45,)
