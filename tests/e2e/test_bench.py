"""Every benchmark can be run, and its report be written; what it finds is nobody's business here."""

from __future__ import annotations

import subprocess
import sys

from app.supervisor import ROOT


def test_they_measure() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--smoke"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    assert "## Reach" in done.stdout
