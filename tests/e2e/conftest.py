"""The platform, started once for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.platform import RunningPlatform

# Leases and sweeps as short as the engines of these tests are quick.
ENVIRONMENT = {
    "BACKEND_ENGINE_CALL_TIMEOUT": "2s",
    "BACKEND_ENGINE_PROBE_TIMEOUT": "1s",
    "BACKEND_RUNTIME_RECONCILE_INTERVAL": "2s",
}


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    directory = tmp_path_factory.mktemp("platform") / "dev"
    running = RunningPlatform(directory, ENVIRONMENT)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()
