"""The stream as one streamer sees it: the newest events in memory, the others in the table.

Positions are contiguous, so what a reader finds behind its position is either the next one or tells how many
retention has deleted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from workers.database import Backoff, Database, DatabaseError
from workers.push.events import Event, Row, encode

log = logging.getLogger("galaxy.push")

# The tail's bounds; a subscriber that is further behind reads from the table.
TAIL_EVENTS = 10_000
TAIL_BYTES = 16 * 1024 * 1024

# Events per reading.
CHUNK = 500

# How often, in seconds, the database is asked whether it still has the history that we know.
CHECK_INTERVAL = 5.0


class Chunk(NamedTuple):
    """What follows a position: events up to position `through`, after `lost` ones that are deleted already."""

    events: list[Event]
    through: int
    lost: int


class Resumption(NamedTuple):
    position: int
    cursor: str  # of that position
    is_exact: bool
    is_ahead: bool


class HistoryError(Exception):
    """The table's events are of another epoch than those read before."""


class Stream:
    """Reads each new event once into a bounded tail, from which subscribers read at their own pace.

    `tail_database` follows the head; `backlog_database` serves whoever is further behind, so that the slow do
    not hold up the others. `on_restart` is called when the database has another history than before (restored
    from a backup, or a new epoch): positions taken before that mean nothing any more.
    """

    def __init__(self, tail_database: Database, backlog_database: Database, on_restart: Callable[[], None]) -> None:
        self._tail_database = tail_database
        self._backlog_database = backlog_database
        self._on_restart = on_restart
        self._tail: dict[int, Event] = {}  # contiguous, in order
        self._tail_bytes = 0
        self._head: int | None = None  # all up to here has been read, or was there before we began
        self._last_cursor = ""
        self._next_check_at = 0.0
        self._advanced = asyncio.Event()

    @property
    def head(self) -> int:
        return self._head or 0

    async def resume(self, cursor: str) -> Resumption:
        """Return where a gateway's stream goes on after its cursor. Raises DatabaseError."""
        return await _resume(self._backlog_database, cursor)

    def append(self, rows: list[Row]) -> bool:
        """Take events that have just got their places, if they are what comes next here. Returns whether they are."""
        if rows[0].position != self.head + 1 or _epoch(rows[0].cursor) != _epoch(self._last_cursor):
            return False
        self._append(rows)
        return True

    async def follow(self) -> None:
        """Read what is new into the tail. Raises DatabaseError."""
        try:
            now = asyncio.get_running_loop().time()
            if now >= self._next_check_at:
                await self._check_history()
                self._next_check_at = now + CHECK_INTERVAL
            while True:
                rows = await self._read_table(self._tail_database, self.head)
                # What was appended meanwhile is here already.
                if new := [row for row in rows if row.position > self.head]:
                    self._append(new)
                if len(rows) < CHUNK:
                    return
        except HistoryError:
            self._restart(await _resume(self._tail_database, ""))
        except DatabaseError:
            self._next_check_at = 0.0  # who knows what comes back
            raise

    async def after(self, position: int) -> Chunk:
        """Wait until there is something after `position`, and return it. Trouble is waited out."""
        backoff = Backoff()
        while True:
            # Taken before looking: whoever appends after that sets this very event.
            advanced = self._advanced
            try:
                chunk = await self.read(position)
            except DatabaseError:
                await backoff.wait()
                continue
            if chunk.through > position:
                return chunk
            await advanced.wait()

    async def read(self, position: int) -> Chunk:
        """Return what is known to follow `position`, perhaps nothing. Raises DatabaseError."""
        head = self.head
        if position >= head:
            return Chunk([], position, 0)
        if position + 1 in self._tail:
            last = min(position + CHUNK, head)
            return Chunk([self._tail[p] for p in range(position + 1, last + 1)], last, 0)
        try:
            rows = await self._read_table(self._backlog_database, position)
        except HistoryError:
            # Nothing more for this subscriber: the tail finds the same next, and ends all streams.
            self._next_check_at = 0.0
            return Chunk([], position, 0)
        through = rows[-1].position if rows else head
        return Chunk([encode(row) for row in rows], through, through - position - len(rows))

    async def _read_table(self, database: Database, position: int) -> list[Row]:
        rows = [
            Row(*row) for row in await database.fetch("SELECT * FROM push.events_read(%s, %s) ORDER BY position", position, CHUNK)
        ]
        if rows and _epoch(rows[-1].cursor) != _epoch(self._last_cursor):
            raise HistoryError
        return rows

    async def _check_history(self) -> None:
        found = await _resume(self._tail_database, self._last_cursor)
        if self._head is None:
            self._head, self._last_cursor = found.position, found.cursor
        # At our own head, a cursor of ours is exact in its epoch, whatever retention has deleted. Otherwise
        # `found.position` is the table's head.
        elif not found.is_exact and found.position <= self._head:
            raise HistoryError

    def _restart(self, now: Resumption) -> None:
        log.error(
            "the database has another history of the stream than before: every gateway starts afresh",
            extra={"head_before": self._head, "head": now.position},
        )
        self._clear_tail()
        self._head, self._last_cursor = now.position, now.cursor
        self._on_restart()

    def _append(self, rows: list[Row]) -> None:
        for row in rows:
            if row.position != self.head + 1:  # we were away for longer than retention keeps events
                self._clear_tail()
            event = encode(row)
            self._tail[row.position] = event
            self._tail_bytes += len(event.batch)
            self._head = row.position
        self._last_cursor = rows[-1].cursor
        while len(self._tail) > TAIL_EVENTS or self._tail_bytes > TAIL_BYTES:
            oldest = self._tail.pop(self.head + 1 - len(self._tail))
            self._tail_bytes -= len(oldest.batch)
        self._advanced.set()
        self._advanced = asyncio.Event()

    def _clear_tail(self) -> None:
        self._tail.clear()
        self._tail_bytes = 0


async def _resume(database: Database, cursor: str) -> Resumption:
    # A zero byte cannot be sent to Postgres; it makes any cursor as malformed as an empty one is.
    return Resumption(
        *(
            await database.fetch(
                "SELECT r.resume_position, r.resume_cursor, r.is_exact, r.is_ahead FROM push.cursor_resume(%s) AS r",
                "" if "\0" in cursor else cursor,
            )
        )[0]
    )


def _epoch(cursor: str) -> str:
    return cursor.partition("-")[0]
