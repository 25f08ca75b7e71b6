"""The bar of the push stream in its short form, and that its measurement works."""

from __future__ import annotations

import subprocess
import sys

import pytest

from app.supervisor import ROOT


@pytest.mark.parametrize("command", ["bench.push_bar --short", "bench.push_bar --backlog 20000", "bench.push --smoke"])
def test_it_passes(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    print(done.stdout)  # the seed, for whoever wants to see it again
    assert done.returncode == 0, done.stderr
