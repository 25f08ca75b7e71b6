"""Calls of the functions of schema `worker`, from a pool, each in a transaction of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from app import config as configuration
from app import dsn, logs, metrics, telemetry
from app.config import Config

_POOL_MAX_IDLE = 300

# Seconds for which the pool tries to connect by itself, less often each time; after that it does when a connection is wanted.
RECONNECT = 2.0

_CONTEXT = "SELECT set_config('backend.request_id', %s, true), set_config('backend.traceparent', %s, true)"


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
            # A worker that is frozen, or whose host is lost, keeps no lock for longer: another takes over.
            "idle_in_transaction_session_timeout": milliseconds,
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
            reconnect_timeout=RECONNECT,
            timeout=config.postgres_operation_timeout,
            check=AsyncConnectionPool.check_connection,
            kwargs={"row_factory": dict_row},
            open=False,
        )
        metrics.watch_pool(self._in_use)

    def _in_use(self) -> int:
        figures = self._pool.get_stats()
        return figures.get("pool_size", 0) - figures.get("pool_available", 0)

    async def open(self) -> None:
        await self._pool.open()

    async def close(self) -> None:
        await self._pool.close()

    async def call(self, function: str, **arguments: object) -> list[DictRow]:
        """Call `worker.<function>(p_<name> => value, …)` and return its rows as dictionaries.

        What it causes is said to come from the request and the trace under which the caller runs. Raises psycopg.Error,
        PoolTimeout.
        """
        query = sql.SQL("SELECT * FROM worker.{}({})").format(
            sql.Identifier(function),
            sql.SQL(", ").join(
                sql.SQL("{} => {}").format(sql.Identifier(f"p_{name}"), sql.Placeholder(name)) for name in arguments
            ),
        )
        metrics.db_pool_acquires_total.add(1)
        if not self._pool.get_stats().get("pool_available"):
            metrics.db_pool_waits_total.add(1)
        with telemetry.child(f"SQL {function}"):
            return await self._call(query, arguments)

    async def _call(self, query: sql.Composed, arguments: Mapping[str, object]) -> list[DictRow]:
        context = (str(logs.bound().get("request_id") or ""), telemetry.current() or "")
        async with self._pool.connection() as connection, connection.transaction():
            if any(context):
                await connection.execute(_CONTEXT, context)
            cursor: psycopg.AsyncCursor[Any] = await connection.execute(query, arguments)
            return await cursor.fetchall()
