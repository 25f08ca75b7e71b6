"""Turns: how many threads of a process compete for the interpreter while they serve requests that are quick.

Only the thread that has a turn waits for requests, and it keeps its turn while it serves one: with every thread running at once,
each read and write would pass the interpreter's lock to another thread and wait to get it back (bench/report.md). Before a thread
does anything that may take long it calls `leave`, and another takes its turn; so a slow request costs the others nothing.
"""

from __future__ import annotations

import math
import queue
import threading
import time


class _Turn:
    since = math.inf
    """When the thread that has it took a request up, in seconds of time.monotonic()."""
    is_void = False
    """Another was given out in its place."""


class _Mine(threading.local):
    turns: Turns | None = None
    turn: _Turn | None = None


_mine = _Mine()


class Turns:
    """The turns of a process. `wait` and `begin` are for its serving threads, `replace_overdue` for the one that watches."""

    def __init__(self, count: int) -> None:
        self._free: queue.SimpleQueue[_Turn] = queue.SimpleQueue()
        self._all = [_Turn() for _ in range(count)]
        for turn in self._all:
            self._free.put(turn)

    def wait(self) -> None:
        """Return when this thread has a turn, at once if it has one."""
        turn = _mine.turn
        while turn is None or turn.is_void:
            turn = self._free.get()
        turn.since = math.inf
        _mine.turns = self
        _mine.turn = turn

    def begin(self) -> None:
        """Tell that a request was taken up."""
        assert _mine.turn is not None
        _mine.turn.since = time.monotonic()

    def replace_overdue(self, seconds: float) -> None:
        """Give out another turn for each whose thread has served one request for longer, and has not left."""
        due = time.monotonic() - seconds
        for index, turn in enumerate(self._all):
            if turn.since < due:
                # In this order: whoever gives it back, or gets it, must see that there is another.
                turn.is_void = True
                self._all[index] = _Turn()
                self._free.put(self._all[index])

    def _give_back(self, turn: _Turn) -> None:
        turn.since = math.inf
        self._free.put(turn)


def leave() -> None:
    """Let another thread have the turn of this one, if it has any: what comes may take long."""
    turn, turns = _mine.turn, _mine.turns
    if turn is not None and turns is not None:
        _mine.turn = None
        turns._give_back(turn)
