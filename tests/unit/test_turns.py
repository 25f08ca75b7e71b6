"""Turns: so many threads compete for quick work, and one that leaves, or takes too long, makes place for another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import pytest

from app.turns import Turns, leave

PATIENCE = 10


class Thread:
    """A thread that does what it is told, one thing after another."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._orders: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (order := self._orders.get()) is not None:
            order()

    def waits(self) -> threading.Event:
        """Have it wait for a turn and take a request up; what is returned is set then."""
        has_it = threading.Event()

        def order() -> None:
            self._turns.wait()
            self._turns.begin()
            has_it.set()

        self._orders.put(order)
        return has_it

    def leaves(self) -> None:
        """Have it leave, and return when it has."""
        left = threading.Event()

        def order() -> None:
            leave()
            left.set()

        self._orders.put(order)
        assert left.wait(PATIENCE)

    def end(self) -> None:
        self._orders.put(None)


@pytest.fixture
def turns() -> Turns:
    return Turns(2)


@pytest.fixture
def threads(turns: Turns) -> Iterator[list[Thread]]:
    made = [Thread(turns) for _ in range(4)]
    yield made
    for thread in made:
        thread.end()
    # Those that still wait get what the others have left.
    for _ in made:
        turns._free.put(type(turns._all[0])())


def test_as_many_have_a_turn_as_there_are(threads: list[Thread]) -> None:
    assert threads[0].waits().wait(PATIENCE)
    assert threads[1].waits().wait(PATIENCE)
    third = threads[2].waits()
    assert not third.wait(0.2)
    threads[0].leaves()
    assert third.wait(PATIENCE)


def test_who_has_a_turn_keeps_it(threads: list[Thread]) -> None:
    for _ in range(3):
        assert threads[0].waits().wait(PATIENCE)
    assert threads[1].waits().wait(PATIENCE)


def test_a_turn_is_left_once(threads: list[Thread]) -> None:
    assert threads[0].waits().wait(PATIENCE)
    assert threads[1].waits().wait(PATIENCE)
    threads[0].leaves()
    threads[0].leaves()
    assert threads[2].waits().wait(PATIENCE)
    assert not threads[3].waits().wait(0.2)


@pytest.mark.parametrize("leaves", [True, False])
def test_who_takes_too_long_is_replaced_and_waits_like_the_others(turns: Turns, threads: list[Thread], leaves: bool) -> None:
    assert threads[0].waits().wait(PATIENCE)
    assert threads[1].waits().wait(PATIENCE)
    others = [threads[2].waits(), threads[3].waits()]
    turns.replace_overdue(3600)
    assert not others[0].wait(0.2)
    turns.replace_overdue(0)
    assert all(other.wait(PATIENCE) for other in others)
    # There are two, as before: the first gets none until somebody leaves.
    if leaves:
        threads[0].leaves()
    again = threads[0].waits()
    assert not again.wait(0.2)
    threads[3].leaves()
    assert again.wait(PATIENCE)


def test_who_waits_for_requests_is_not_overdue(turns: Turns) -> None:
    turns.wait()
    before = list(turns._all)
    turns.replace_overdue(0)
    assert turns._all == before
    leave()


def test_without_a_turn_there_is_nothing_to_leave() -> None:
    leave()
