"""`make demo` against `make run`, as a stranger would play them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.platform import ROOT, RunningPlatform

# A platform takes its ports when it starts: one at a time.
pytestmark = pytest.mark.xdist_group("platform")


def test_the_demo_ends_in_success_and_leaves_every_invariant_whole(platform: RunningPlatform) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "dev.demo", "--hurry"],
        cwd=ROOT,
        env=platform.environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert told.returncode == 0, told.stdout + told.stderr + platform.output()
    assert "All of it held." in told.stdout
    assert platform.violations() == []
