"""Connections that come back by themselves: how they end."""

from __future__ import annotations

import asyncio

import pytest
from psycopg.conninfo import make_conninfo

from tests.postgres import Database
from workers.database import Database as Connection
from workers.database import DatabaseError


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_one_that_is_in_use_is_closed_beside_who_uses_it(is_cancelled: bool, database: Database) -> None:
    """They are told at once, and nothing is pulled from under their hands."""
    cluster = database.cluster
    conninfo = make_conninfo(host=str(cluster.socket_directory), port=cluster.port, user="postgres", dbname=database.name)

    async def scenario() -> None:
        connection = Connection(conninfo, timeout=600, lifetime=600)
        for _ in range(20):
            await connection.fetch("SELECT 1")
            using = asyncio.create_task(connection.fetch("SELECT pg_sleep(600)"))
            await asyncio.sleep(0.01)
            if is_cancelled:
                # psycopg cancels the statement then, and waits for its end.
                using.cancel()
                await asyncio.sleep(0)
            await connection.close()
            # Closed sooner, it would read what libpq has freed.
            assert using.done()
            with pytest.raises((DatabaseError, asyncio.CancelledError)):
                await using
        assert (await connection.fetch("SELECT 2")) == [(2,)]
        await connection.close()

    asyncio.run(asyncio.wait_for(scenario(), 60))
