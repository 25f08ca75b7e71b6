"""Wakes the others on a notification. Without it all goes on, by polling."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

import psycopg
from psycopg import sql

from workers.database import Backoff, Database, DatabaseError, describe, severed_after

log = logging.getLogger("galaxy.database")

# Seconds: how often the connection is asked whether it is alive, how long it may take to say so, and how long
# the notification may take that proves that they arrive.
HEARTBEAT_INTERVAL = 3.0
HEARTBEAT_TIMEOUT = 3.0
PROOF_TIMEOUT = 2.0


class Listener:
    """LISTENs on a connection of its own, and calls what belongs to the channel of each notification.

    `other` is another connection, from which a notification is sent to prove that they arrive; `variable` is the one that
    says where `conninfo` leads, for whoever has to mend it. What `ourselves` notifies is known here already.
    """

    def __init__(
        self,
        conninfo: str,
        variable: str,
        other: Database,
        channels: Mapping[str, Callable[[], None]],
        ourselves: Database | None = None,
    ) -> None:
        self._conninfo = conninfo
        self._variable = variable
        self._other = other
        self._channels = channels
        self._ourselves = ourselves

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                connecting = psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
                async with await connecting as connection:
                    await self._begin(connection)
                    backoff.reset()
                    await self._listen(connection)
            except (psycopg.Error, DatabaseError) as error:
                log.warning("the listener begins anew", extra={"error": describe(error)})
            await backoff.wait()

    async def _begin(self, connection: psycopg.AsyncConnection) -> None:
        with severed_after(connection, HEARTBEAT_TIMEOUT):
            for channel in self._channels:
                await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        # For what has been missed without a connection.
        for wake in self._channels.values():
            wake()
        if not await self._hears(connection):
            log.error(
                "notifications do not arrive, so what is new is found by polling, later and at a cost:"
                f" {self._variable} must be a direct way to Postgres, not through a pooler"
            )

    async def _hears(self, connection: psycopg.AsyncConnection) -> bool:
        await self._other.fetch("SELECT pg_notify(%s, '')", next(iter(self._channels)))
        heard = False
        async for notification in connection.notifies(timeout=PROOF_TIMEOUT, stop_after=1):
            self._channels[notification.channel]()
            heard = True
        return heard

    async def _listen(self, connection: psycopg.AsyncConnection) -> None:
        while True:
            async for notification in connection.notifies(timeout=HEARTBEAT_INTERVAL):
                if self._ourselves is None or notification.pid != self._ourselves.backend_pid:
                    self._channels[notification.channel]()
            with severed_after(connection, HEARTBEAT_TIMEOUT):
                await connection.execute("SELECT 1")
