"""Connections that come back by themselves, and loops that live through the time without one."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString

import psycopg

log = logging.getLogger("galaxy.database")


class DatabaseError(Exception):
    """A statement has failed, and its connection is gone; the same call makes a new one."""


@contextmanager
def severed_after(connection: psycopg.AsyncConnection[Any], seconds: float) -> Iterator[None]:
    """Cut the connection if the block takes longer: what waits for it then raises psycopg.OperationalError.

    Cancelling it would not do: psycopg asks the server to give up and waits until it says so, which it never does
    where the network has gone silent.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _sever, connection)
    try:
        yield
    finally:
        timer.cancel()


def _sever(connection: psycopg.AsyncConnection[Any]) -> None:
    with suppress(OSError, psycopg.OperationalError), socket.socket(fileno=os.dup(connection.fileno())) as same:
        same.shutdown(socket.SHUT_RDWR)


class Backoff:
    """How long to wait after each failure in a row: twice as long each time, up to `most` seconds."""

    def __init__(self, first: float = 0.05, most: float = 2.0) -> None:
        self._first = first
        self._most = most
        self._next = first

    async def wait(self) -> None:
        # Not all streamers at the same moment.
        delay = self._next * random.uniform(0.5, 1.0)  # noqa: S311
        self._next = min(self._next * 2, self._most)
        await asyncio.sleep(delay)

    def reset(self) -> None:
        self._next = self._first


class Database:
    """One connection in autocommit, made when it is first needed, and made anew after any trouble.

    Concurrent callers take turns. `timeout` (of a statement) and `lifetime` (of a connection) are seconds.
    """

    def __init__(self, conninfo: str, *, timeout: float, lifetime: float) -> None:
        self._conninfo = conninfo
        self._timeout = timeout
        self._lifetime = lifetime
        self._lock = asyncio.Lock()
        self._connection: psycopg.AsyncConnection[tuple[Any, ...]] | None = None
        self._expires_at = 0.0

    async def fetch(self, query: LiteralString, *parameters: object) -> list[tuple[Any, ...]]:
        """Run one statement and return its rows. Raises DatabaseError, whatever the reason."""
        async with self._lock:
            try:
                connection = await self._connected()
                # The server's statement_timeout ends a slow statement; this ends a connection that is dead.
                with severed_after(connection, self._timeout + 1):
                    # Not prepared, so that it works through any pooler.
                    cursor = await connection.execute(query, parameters, prepare=False)
                    return await cursor.fetchall()
            except psycopg.Error as error:
                await self._close()
                raise DatabaseError(describe(error)) from error
            except BaseException:  # cancelled: the answer may still be on its way
                await self._close()
                raise

    @property
    def backend_pid(self) -> int | None:
        """Return the process at the server's that serves the connection; None without one."""
        return None if self._connection is None else self._connection.info.backend_pid

    async def close(self) -> None:
        """Close the connection, and with it give back its session's locks. Who is using it meets DatabaseError."""
        # Not under their hands: libpq does not bear that.
        if self._connection is not None and self._lock.locked():
            _sever(self._connection)
        async with self._lock:
            await self._close()

    async def _close(self) -> None:
        if self._connection is not None:
            connection, self._connection = self._connection, None
            await connection.close()

    async def _connected(self) -> psycopg.AsyncConnection[tuple[Any, ...]]:
        now = asyncio.get_running_loop().time()
        if self._connection is not None and now >= self._expires_at:
            await self._close()
        if self._connection is None:
            self._connection = await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True)
            self._expires_at = now + self._lifetime
        return self._connection


class Watch:
    """Runs `step` when it is woken, and by itself every `interval` seconds, for ever.

    A step that meets DatabaseError is tried again; `is_well` tells whether the last one succeeded, and
    `on_change` is called whenever that changes. `step` must bear being called from elsewhere as well.
    """

    def __init__(self, name: str, step: Callable[[], Awaitable[None]], interval: float, on_change: Callable[[], None]) -> None:
        self._name = name
        self._step = step
        self._interval = interval
        self._on_change = on_change
        self._state: bool | None = None  # none before the first step
        self._woken = asyncio.Event()

    @property
    def is_well(self) -> bool:
        return self._state is True

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        backoff = Backoff()
        while True:
            # Cleared before the step looks, so that what comes while it looks is looked at again.
            self._woken.clear()
            try:
                await self._step()
            except DatabaseError as trouble:
                self._now_well(False, str(trouble))
                await backoff.wait()
                continue
            backoff.reset()
            self._now_well(True)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._woken.wait()

    def _now_well(self, is_well: bool, why: str = "") -> None:
        if is_well is self._state:
            return
        if not is_well:
            log.warning("trouble with the database", extra={"part": self._name, "error": why})
        elif self._state is False:
            log.info("the database is back", extra={"part": self._name})
        self._state = is_well
        self._on_change()


def describe(error: BaseException) -> str:
    """Return what may be logged of a database error: its kind and its first line, which holds no values."""
    if isinstance(error, psycopg.Error) and error.diag.message_primary:
        return f"{error.sqlstate} {error.diag.message_primary}"
    return f"{type(error).__name__}: {error}".splitlines()[0]
