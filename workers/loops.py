"""Sweeps: loops that call a claiming function now and then, because a wake-up can be lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from psycopg_pool import PoolTimeout

log = logging.getLogger("galaxy.worker")


async def every(interval: float, name: str, sweep: Callable[[], Awaitable[object]]) -> None:
    """Call `sweep` now and every `interval` seconds, for ever; trouble with the database is logged and passes."""
    while True:
        try:
            await sweep()
        except (psycopg.Error, PoolTimeout) as error:
            log.warning(
                "sweep failed",
                extra={"sweep": name, "error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)},
            )
        await asyncio.sleep(interval)
