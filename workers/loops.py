"""Sweeps: loops that call a claiming function now and then, because a wake-up can be lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from psycopg_pool import PoolTimeout

log = logging.getLogger("galaxy.worker")


async def every(interval: float, name: str, sweep: Callable[[], Awaitable[object]], *, is_due: bool = False) -> None:
    """Call `sweep` every `interval` seconds for ever, at once if it is due; trouble with the database is logged and passes."""
    if not is_due:
        await asyncio.sleep(interval)
    while True:
        try:
            await sweep()
        except (psycopg.Error, PoolTimeout) as error:
            log.warning(
                "sweep failed",
                extra={"sweep": name, "error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)},
            )
        await asyncio.sleep(interval)
