"""Wakes the workers of the job queue: who defers a job notifies only where nobody is awake to look for it."""

from __future__ import annotations

import asyncio
from typing import Any

from psycopg.types.json import Jsonb

from workers.database import Database

CHANNEL = "galaxy_queue_pending"

# Seconds between two looks while awake; and how many looks in a row find nothing new before it sleeps.
LOOK_INTERVAL = 0.05
QUIET_LOOKS = 20

# Without a notification it looks this often, in seconds: for a job that was committed just after it fell asleep.
BACKSTOP = 0.5


class Waker:
    """Tells Procrastinate's workers of new jobs; every job program has one, and one at a time is awake.

    The connection must reach Postgres itself, not a pooler: it holds a lock of its session while it is awake.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._seen: dict[str, Any] = {}

    async def look(self) -> None:
        """Tell the workers of the jobs that are new, and go on until there are none for a while.

        Returns early while another program is at it. Raises DatabaseError.
        """
        if not await self._is_news() or not (await self._database.fetch("SELECT worker.queue_wake()"))[0][0]:
            return
        # Cut short, it leaves the lock to the end of the connection.
        quiet = 0
        while quiet < QUIET_LOOKS:
            await asyncio.sleep(LOOK_INTERVAL)
            quiet = 0 if await self._is_news() else quiet + 1
        await self._database.fetch("SELECT worker.queue_sleep()")
        # Once more: whoever committed just before that has seen us awake and has not notified.
        await self._is_news()

    async def _is_news(self) -> bool:
        before = self._seen
        self._seen = (await self._database.fetch("SELECT worker.queue_announce(%s)", Jsonb(before)))[0][0]
        return self._seen != before
