"""A change of the schema goes in, out and in again while requests run, and none of them fails."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from app.schema import planned_changes
from tests.postgres import ROOT, Database
from tests.services import Api, StartProgram, add_session, sign_in, until

_REPLACED = ("api.session_get", "api.session_revoke", "backend.session_revoke", "api.my_settings_update")


class _Traffic:
    """Requests, one after another from each of some threads; `failures` are answers other than 200."""

    def __init__(self, api: Api, ask: Callable[[httpx.Client], httpx.Response]) -> None:
        self.count = 0
        self.failures: list[str] = []
        self._api = api
        self._ask = ask
        self._over = threading.Event()

    def __enter__(self) -> _Traffic:
        self._pool = ThreadPoolExecutor(2)
        self._askers = [self._pool.submit(self._run) for _ in range(2)]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for asker in self._askers:
            asker.result(60)
        self._pool.shutdown()

    def go_on(self) -> None:
        """Wait for some requests that began after now."""
        before = self.count
        until(lambda: self.count > before + 40)

    def _run(self) -> None:
        with self._api.new_client() as client:
            while not self._over.is_set():
                answer = self._ask(client)
                self.count += 1
                if answer.status_code != 200:
                    self.failures.append(f"{answer.status_code} {answer.text}")


@pytest.fixture
def next_release(tmp_path: Path, database: Database) -> Path:
    """This project with two changes more: functions replaced that requests are calling, columns and an index on their tables."""
    project = tmp_path / "next"
    project.mkdir()
    shutil.copytree(ROOT / "db", project / "db")
    for name in ("sqitch.conf", "sqitch.plan"):
        shutil.copy(ROOT / name, project)
    # With no search path of ours, so that every name is written whole.
    with database.cluster.connect(database.name) as connection:
        bodies = [
            str(row[0])
            for name in _REPLACED
            for row in connection.execute("SELECT pg_get_functiondef(%s::regproc)", [name]).fetchall()
        ]
    before = ";\n".join(bodies) + ";\n"
    after = re.sub(r"\nBEGIN\n", "\nBEGIN\n    PERFORM count(*) FROM next_release;\n", before)
    assert after != before
    # Two changes: what calls in flight may still use goes only after the functions have gone back. Tables in the order of locks.
    changes = {
        "next_tables": {
            "deploy": """
                CREATE TABLE backend.next_release (note text);
                ALTER TABLE backend.next_release OWNER TO backend_owner;
                ALTER TABLE backend.accounts ADD COLUMN next_note text;
                ALTER TABLE backend.device_sessions ADD COLUMN next_note text;
                ALTER TABLE backend.device_sessions ALTER COLUMN next_note SET DEFAULT 'none';""",
            "verify": "SELECT next_note FROM backend.device_sessions WHERE false; TABLE backend.next_release;",
            "revert": """
                ALTER TABLE backend.accounts DROP COLUMN next_note;
                ALTER TABLE backend.device_sessions DROP COLUMN next_note;
                DROP TABLE backend.next_release;""",
        },
        "next_functions": {"deploy": after, "verify": "SELECT api.session_get(NULL) WHERE false;", "revert": before},
    }
    for change, scripts in changes.items():
        for kind, script in scripts.items():
            whole = f"BEGIN;\nSET LOCAL lock_timeout = '2s';\n{script}\n{'ROLLBACK' if kind == 'verify' else 'COMMIT'};\n"
            (project / "db" / kind / f"{change}.sql").write_text(whole)
        with (project / "sqitch.plan").open("a") as plan:
            plan.write(f"{change} 2030-01-01T00:00:00Z Galaxy <galaxy@localhost> # The next release.\n")
    return project


@contextmanager
def _traffic(api: Api, database: Database) -> Iterator[_Traffic]:
    person = sign_in(api, database)
    with database.connect() as connection, connection.transaction():
        sessions = [add_session(connection, person.user_id) for _ in range(4000)]
    mine = iter(sessions)
    turn = iter(range(10**9))

    def ask(client: httpx.Client) -> httpx.Response:
        match next(turn) % 4:
            case 0:
                path = f"/api/v1/internal/sessions/{next(mine)}/revoke"
                return client.post(path, json={"reason": "logout"}, headers=api.internal)
            case 1:
                path = "/api/v1/user/account/settings"
                return client.patch(path, json={"preferred_language": "en", "time_zone": "UTC"}, headers=person.header)
            case 2:
                return client.get("/api/v1/user/account", headers=person.header)
            case _:
                return client.get(f"/api/v1/internal/sessions/{person.device_session_id}", headers=api.internal)

    with _Traffic(api, ask) as traffic:
        yield traffic
    assert traffic.failures == []


def test_a_change_is_deployed_verified_reverted_and_deployed_while_requests_run(
    database: Database, api: Api, start_program: StartProgram, next_release: Path
) -> None:
    push, worker = (start_program(name, database) for name in ("push", "worker"))
    until(lambda: push.logged("serving") and worker.logged("working"))
    steps = (("deploy",), ("verify",), ("revert", "--to", planned_changes()[-1].name, "-y"), ("deploy",))
    with _traffic(api, database) as traffic:
        traffic.go_on()
        for step in steps:
            database.cluster.sqitch(database.name, *step, project=next_release)
            traffic.go_on()
        # A program that is started now finds a schema that is newer than itself.
        newer = start_program("api", database)
        assert isinstance(newer, Api)
        newer.wait_ready()
        assert api.client.get("/readyz").status_code == 200
    for program in (api, push, worker):
        assert program.process.poll() is None
    assert not [line for program in (api, push, worker) for line in program.log_lines() if line["level"] == "error"]
