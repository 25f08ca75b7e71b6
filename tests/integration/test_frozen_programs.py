"""Programs that freeze, or whose host is lost, in the middle of a transaction: nobody waits for them for long."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from app import http
from app.config import Config, load
from tests.postgres import Database
from tests.services import StartProgram, until
from workers import door

PROGRAMS: dict[str, Callable[[Config], str]] = {
    "api": http.conninfo,
    "worker": lambda config: door.conninfo(config, "test"),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_it_has_locked_is_free_again(program: str, database: Database, start_program: StartProgram) -> None:
    config = load(start_program.environment(database) | {"BACKEND_POSTGRES_OPERATION_TIMEOUT": "1s"})
    watcher = database.connect()
    with psycopg.connect(PROGRAMS[program](config)) as frozen:
        frozen.execute("SELECT pg_advisory_xact_lock(4711)")
        assert not is_free(watcher)
        until(lambda: is_free(watcher))
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
            frozen.execute("SELECT 1")


def is_free(connection: psycopg.Connection[tuple[bool]]) -> bool:
    rows = connection.execute("SELECT pg_try_advisory_xact_lock(4711)").fetchall()
    return rows[0][0]
