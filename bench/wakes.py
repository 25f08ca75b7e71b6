"""What a commit does about waking those who wait for it, in a database to be thrown away.

`conditional` is what we do: notify only where nobody is awake. `none` notifies nobody. `every` is what one would do without
thinking about it: each transaction notifies the sequencer, and Procrastinate's own trigger the workers.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from app import dsn
from bench.servers import spawn_module, stop
from dev.cluster import Cluster
from workers.database import Database, Watch
from workers.listener import Listener
from workers.waker import BACKSTOP, CHANNEL, Waker

WAYS = ("conditional", "none", "every")

_IS_ASLEEP = "CREATE OR REPLACE FUNCTION backend.is_asleep(p_awake_key bigint) RETURNS boolean LANGUAGE sql RETURN "
_OTHERS = {"none": f"{_IS_ASLEEP} false", "every": f"{_IS_ASLEEP} true"}

_TRIGGERS = """
    ALTER TABLE procrastinate.procrastinate_jobs {} TRIGGER wake;
    ALTER TABLE procrastinate.procrastinate_jobs {} TRIGGER procrastinate_jobs_notify_queue_job_inserted_v1;
"""


class Wakes:
    """Switches between the ways; `connection` is a superuser's."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        row = connection.execute("SELECT pg_get_functiondef('backend.is_asleep(bigint)'::regprocedure)").fetchone()
        assert row is not None
        self._connection = connection
        self._own: str = row[0]

    def use(self, way: str) -> None:
        """From now on, wake in that way."""
        triggers = ("DISABLE", "ENABLE") if way == "every" else ("ENABLE", "DISABLE")
        self._connection.execute(_OTHERS.get(way, self._own).encode())
        self._connection.execute(_TRIGGERS.format(*triggers).encode())


@contextlib.contextmanager
def waker(cluster: Cluster, database: str, directory: Path) -> Iterator[None]:
    """The part of the job program that writers wake, without the workers, who would take the processor from the writers."""
    log = directory / "waker.log"
    conninfo = dsn.conninfo(cluster.dsn("galaxy_worker", database), application_name="bench-waker")
    process = spawn_module(["bench.wakes", conninfo], {}, log)
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"the waker has ended:\n{log.read_text()[-3000:]}")
    finally:
        stop([process])


async def _wake(conninfo: str) -> None:
    connection = Database(conninfo, timeout=10, lifetime=3600)
    watch = Watch("waker", Waker(connection).look, BACKSTOP, lambda: None)
    listener = Listener(conninfo, "the writers", connection, {CHANNEL: watch.wake})
    await asyncio.gather(watch.run(), listener.run())


if __name__ == "__main__":
    asyncio.run(_wake(sys.argv[1]))
