"""The platform, started once for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.platform import RunningPlatform


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    directory = tmp_path_factory.mktemp("platform") / "dev"
    running = RunningPlatform(directory, {})
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()
