"""A backup is restored into another cluster, as docs/operations.md says: everything is there, and gateways start fresh."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from dev.cluster import Cluster, throw_away
from tests.integration.test_push_resume import begin_epoch
from tests.postgres import Database
from tests.push import Start, Subscribe, emit, settled
from tests.services import Api, StartProgram, add_session, sign_in, until


def _run(cluster: Cluster, program: str, *arguments: str | Path) -> None:
    """Run a program of Postgres as the superuser of a cluster."""
    place = {"PGHOST": str(cluster.socket_directory), "PGPORT": str(cluster.port), "PGUSER": "postgres"}
    done = subprocess.run([program, *arguments], env=os.environ | place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _contents(database: Database) -> dict[str, int]:
    """How many rows each table has."""
    with database.connect() as connection:
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()[0]  # type: ignore[index]
            for (name,) in connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('backend', 'procrastinate')"
            ).fetchall()
        }


def test_a_backup_is_restored_elsewhere_and_gateways_start_fresh(
    database: Database, api: Api, start: Start, gateway: Subscribe, start_program: StartProgram, tmp_path: Path
) -> None:
    first = start().ready()
    one = gateway(first.target)
    person = sign_in(api, database)
    with database.connect() as connection:
        session_id = add_session(connection, person.user_id)
        emit(connection, 1, 5)
        one.wait_for([1, 2, 3, 4, 5])
        settled(connection)
        _run(database.cluster, "pg_dumpall", "--globals-only", "--file", tmp_path / "logins.sql")
        _run(database.cluster, "pg_dump", "--format=custom", "--file", tmp_path / "backup", database.name)
        kept = _contents(database)
        # What the backup does not have, and a gateway knows of.
        emit(connection, 6, 9)
        one.wait_for([1, 2, 3, 4, 5, 6, 7, 8, 9])
    seen = one.client.cursor
    first.terminate()
    one.close()

    with throw_away() as other:
        restored = Database(other, database.name)
        # The logins that every cluster has are there already, which the script tells of and goes on.
        _run(other, "psql", "--quiet", "--file", tmp_path / "logins.sql", "postgres")
        _run(other, "createdb", "--owner=galaxy_deploy", restored.name)
        _run(other, "pg_restore", "--exit-on-error", "--dbname", restored.name, tmp_path / "backup")
        other.sqitch(restored.name, "verify")
        assert _contents(restored) == kept

        done = begin_epoch(
            BACKEND_POSTGRES_DSN=restored.dsn("galaxy_push"), BACKEND_POSTGRES_DSN_DEPLOY=restored.dsn("galaxy_deploy")
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() > seen

        back = start_program("api", restored, BACKEND_ADMIN_BOOTSTRAP_USER="", BACKEND_ADMIN_BOOTSTRAP_PASSWORD="")
        assert isinstance(back, Api)
        back.wait_ready()
        worker = start_program("worker", restored)
        until(lambda: worker.logged("working"))
        second = start(restored.dsn("galaxy_push")).ready()
        # A gateway that knows what was lost is told that it may have missed something; then the stream goes on, never backwards.
        two = gateway(second.target, "gateway", seen)
        assert (two.client.resume, two.client.gaps) == ("fresh", 1)
        answer = back.client.post(
            f"/api/v1/internal/sessions/{session_id}/revoke", json={"reason": "logout"}, headers=back.internal
        )
        assert answer.status_code == 200
        until(lambda: two.events)
        assert two.events[0].session_invalidation.device_session_id == session_id
        assert two.events[0].cursor > done.stdout.strip() > seen
        sign_in(back, restored)
        with restored.connect() as connection:
            assert connection.execute("SELECT * FROM backend.invariants").fetchall() == []
        two.close()
        second.terminate()
        for program in (back, worker):
            program.stop()
        restored.drop()
