"""Calls of the functions of schema `worker`, from a pool, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from app import config as configuration
from app import dsn
from app.config import Config

_POOL_MAX_IDLE = 300


def conninfo(config: Config, application_name: str, **settings: str) -> str:
    """Return libpq's connection string of the job program."""
    milliseconds = str(round(config.postgres_operation_timeout * 1000))
    return dsn.conninfo(
        config.postgres_dsn_worker,
        application_name=application_name,
        settings={
            **configuration.database_settings(config),
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds,
            **settings,
        },
        connect_timeout=str(max(1, round(config.postgres_operation_timeout))),
        keepalives_idle="10",
        keepalives_interval="5",
        keepalives_count="3",
    )


class Door:
    """The job program's way to its functions."""

    def __init__(self, config: Config) -> None:
        self._pool = AsyncConnectionPool(
            conninfo(config, "galaxy-worker"),
            connection_class=psycopg.AsyncConnection[DictRow],
            min_size=1,
            # The other half is the job queue's.
            max_size=max(1, config.postgres_max_conns // 2),
            max_lifetime=config.postgres_conn_max_lifetime,
            max_idle=_POOL_MAX_IDLE,
            timeout=config.postgres_operation_timeout,
            check=AsyncConnectionPool.check_connection,
            kwargs={"row_factory": dict_row},
            open=False,
        )

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def call(self, function: str, context: Mapping[str, str] | None = None, /, **arguments: object) -> list[DictRow]:
        """Call `worker.<function>(p_<name> => value, …)` and return its rows as dictionaries.

        `context` (request_id, traceparent) is what the call's effects are said to come from. Raises psycopg.Error, PoolTimeout.
        """
        query = sql.SQL("SELECT * FROM worker.{}({})").format(
            sql.Identifier(function),
            sql.SQL(", ").join(
                sql.SQL("{} => {}").format(sql.Identifier(f"p_{name}"), sql.Placeholder(name)) for name in arguments
            ),
        )
        async with self._pool.connection() as connection, connection.transaction():
            for name, value in (context or {}).items():
                await connection.execute("SELECT set_config(%s, %s, true)", (f"backend.{name}", value))
            cursor: psycopg.AsyncCursor[Any] = await connection.execute(query, arguments)
            return await cursor.fetchall()
