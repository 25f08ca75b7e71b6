"""The mixed load of `python -m bench.soak`, for some minutes: nothing fails, nothing grows, and what must hold does."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.postgres import ROOT

# A platform takes its ports when it starts: one at a time.
pytestmark = pytest.mark.xdist_group("platform")


def test_nothing_fails_or_grows_under_mixed_load_and_every_program_is_watched() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", "--minutes", "2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"serve", "api", "worker", "push", "dev.engine"} <= set(re.findall(r"^\S+", done.stdout, re.MULTILINE))
    for what in ("visit", "turn", "event session_invalidation", "event game.turn.ready"):
        assert re.search(rf"[1-9][0-9]* × {re.escape(what)}", done.stdout), done.stdout
