"""What is noted in memory: how much, and when it is written."""

from __future__ import annotations

import threading

import psycopg

from app.background import Flusher


def test_what_is_left_is_written_at_the_end() -> None:
    flushed: list[int] = []
    flusher = Flusher([lambda: flushed.append(1)], interval=3600)
    flusher.start()
    flusher.stop()
    assert flushed == [1]


def test_an_error_ends_neither_the_thread_nor_the_next_turn() -> None:
    turns = 0
    enough = threading.Event()

    def flush() -> None:
        nonlocal turns
        turns += 1
        if turns == 1:
            raise psycopg.OperationalError("away")
        if turns == 2:
            raise ValueError("a fault of ours")
        enough.set()

    flusher = Flusher([flush], interval=0.001)
    flusher.start()
    assert enough.wait(10)
    flusher.stop()
