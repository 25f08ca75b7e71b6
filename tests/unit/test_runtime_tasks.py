"""What is told of engines' failures."""

from __future__ import annotations

from workers.runtime.driver import StartFailed
from workers.runtime.engine_client import EngineFailed
from workers.tasks.runtime import _text


def test_why_an_engine_does_not_start_is_told_by_its_last_lines() -> None:
    """However much it has written before."""
    told = _text(StartFailed("the engine has ended:\n" + "it went well\n" * 200 + "not started: no such file"))
    assert told.startswith("StartFailed: the engine has ended:\n")
    assert told.endswith("not started: no such file")
    assert len(told) <= 500


def test_what_is_told_in_one_line_is_told_from_its_beginning() -> None:
    told = _text(EngineFailed("it is in turn 3, " + "x" * 1000))
    assert told.startswith("EngineFailed: it is in turn 3, x")
    assert len(told) == 500
