"""Sweeps: what ends one, and what does not."""

from __future__ import annotations

import asyncio
import logging

import psycopg
import pytest
from psycopg_pool import PoolTimeout

from workers.loops import every


class EnoughError(Exception):
    """Nothing that a sweep foresees."""


def sweep_until_enough(*troubles: Exception) -> int:
    """Run a sweep that meets these one after the other, then a quiet round, then the end; return how often it was called."""
    calls = 0

    async def sweep() -> None:
        nonlocal calls
        calls += 1
        if calls <= len(troubles):
            raise troubles[calls - 1]
        if calls > len(troubles) + 1:
            raise EnoughError

    with pytest.raises(EnoughError):
        asyncio.run(every(0.001, "test", sweep))
    return calls


def test_a_sweep_is_called_again_and_again() -> None:
    assert sweep_until_enough() == 2


@pytest.mark.parametrize(
    "trouble, sqlstate",
    [
        (psycopg.OperationalError("connection lost"), None),
        (psycopg.errors.AdminShutdown("going down"), "57P01"),
        (psycopg.errors.DeadlockDetected("ada@example.org"), "40P01"),
        (psycopg.errors.InsufficientPrivilege("no"), "42501"),
        (PoolTimeout("nothing free"), None),
    ],
)
def test_trouble_with_the_database_is_told_and_passes(
    trouble: Exception, sqlstate: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    assert sweep_until_enough(trouble) == 3
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == "sweep failed"
    told = vars(record)
    assert (told["sweep"], told["error"], told["sqlstate"]) == ("test", type(trouble).__name__, sqlstate)
    # What Postgres says may quote what somebody has entered.
    assert "ada@example.org" not in str(told)


def test_one_that_is_due_begins_at_once() -> None:
    async def sweep() -> None:
        raise EnoughError

    with pytest.raises(EnoughError):
        asyncio.run(every(3600, "test", sweep, is_due=True))


@pytest.mark.parametrize(("is_due", "least"), [(False, 0.06), (True, 0.04)])
def test_it_waits_before_each_round_but_one_that_is_due(is_due: bool, least: float) -> None:
    """So that a sweep that fails at once does not keep the machine busy."""

    async def timed() -> float:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        rounds = 0

        async def sweep() -> None:
            nonlocal rounds
            rounds += 1
            if rounds == 3:
                raise EnoughError
            raise psycopg.OperationalError

        with pytest.raises(EnoughError):
            await every(0.02, "test", sweep, is_due=is_due)
        return loop.time() - begun

    took = asyncio.run(timed())
    assert took >= least


def test_it_ends_when_it_is_told_to_even_in_the_middle_of_a_round() -> None:
    async def cancelled() -> bool:
        begun = asyncio.Event()

        async def sweep() -> None:
            begun.set()
            await asyncio.Event().wait()

        task = asyncio.create_task(every(0.001, "test", sweep))
        await begun.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return task.cancelled()

    assert asyncio.run(cancelled())
