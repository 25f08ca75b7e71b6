"""A program that crashes tells on standard error where it was."""

from __future__ import annotations

import os
import signal

import pytest

from tests.postgres import Database
from tests.services import StartProgram, until


@pytest.mark.parametrize(("name", "begun"), [("api", "starting"), ("push", "serving"), ("worker", "working")])
def test_a_crash_leaves_its_trace(database: Database, start_program: StartProgram, name: str, begun: str) -> None:
    program = start_program(name, database)
    until(lambda: program.logged(begun))
    os.kill(program.process.pid, signal.SIGSEGV)
    assert program.wait() == -signal.SIGSEGV
    assert "Segmentation fault" in program.errors()
    assert f"{os.sep}app{os.sep}__main__.py" in program.errors()
