"""Gives committed events their place in the stream. Every streamer has one; one at a time can work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from workers.database import Database
from workers.push.events import Row

# Events per transaction: enough to keep up with any burst, few enough to be quick.
BATCH = 1000

# Seconds between the looks for more before it goes to sleep. While events keep coming it does not sleep, and nobody
# has to wake it; and it finds what was written while it was awake and committed a moment later. As nobody wakes it
# meanwhile, what comes waits for the next look.
PATIENCE = (0.001, *(0.002,) * 7)

# Where more than MANY had come at once it waits, so many seconds for each of them, and no longer than GATHER: together they cost
# less. That grows to GATHER at some 5,000 a second; before it, nobody waits for others for long.
MANY = 4
GATHER_EACH = 0.0002
GATHER = 0.02

# Seconds after which it returns though events keep coming: whoever waits for it learns that it works.
AT_MOST = 1.0


class Sequencer:
    """Moves committed events into the stream; `on_moved` is called with them after each transaction that moved some.

    The connection must reach Postgres itself, not a pooler: it holds a lock of its session while it is awake.
    """

    def __init__(self, database: Database, on_moved: Callable[[list[Row]], None]) -> None:
        self._database = database
        self._on_moved = on_moved

    async def sequence(self) -> None:
        """Sequence until nothing is pending, or for AT_MOST. Returns early while another streamer is at it.

        Raises DatabaseError.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + AT_MOST
        while await self._move() and clock() < until:
            # Writers need not notify while somebody holds the awake lock. Where another streamer holds it,
            # that one goes on, and the one pass was enough.
            if not (await self._database.fetch("SELECT push.sequencer_wake()"))[0][0]:
                return
            count = 1
            while clock() < until and count:
                count = await self._move_more(_gathering(count))
            await self._database.fetch("SELECT push.sequencer_sleep()")
            # Once more: whoever committed just before that has seen us awake and has not notified.

    async def _move_more(self, after: float) -> int:
        for delay in (after, *PATIENCE):
            await asyncio.sleep(delay)
            if count := await self._move():
                return count
        return 0

    async def _move(self) -> int:
        found = await self._database.fetch("SELECT * FROM push.events_sequence(%s) ORDER BY position", BATCH)
        if rows := [Row(*row) for row in found]:
            self._on_moved(rows)
        return len(rows)


def _gathering(count: int) -> float:
    """Return the seconds to wait after so many had come at once."""
    return 0.0 if count >= BATCH else min(max(0, count - MANY) * GATHER_EACH, GATHER)
