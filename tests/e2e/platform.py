"""The whole platform as `make run` starts it, in a directory of its own, for tests that treat it as a black box."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).resolve().parents[2]

PATIENCE = 120.0


class RunningPlatform:
    """`python -m dev.run` over `directory`."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        self.directory = directory
        # Nothing of the environment's own settings: the platform's defaults, and what the test says.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKEND_")}
        self.environment = {**clean, "GALAXY_DEV_DIR": str(directory), **environment}
        self._output = (directory.parent / f"{directory.name}.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dev.run"], cwd=ROOT, env=self.environment, stdout=self._output, stderr=self._output
        )

    @property
    def places(self) -> dict[str, Any]:
        """endpoints.json as it is now."""
        places: dict[str, Any] = json.loads((self.directory / "endpoints.json").read_text())
        return places

    def wait_until_ready(self, unlike: int | None = None) -> dict[str, Any]:
        """Wait for endpoints.json of a `serve` that is not the process `unlike`."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.output()
            try:
                places = self.places
            except (FileNotFoundError, json.JSONDecodeError):
                places = {}
            if places and places["serve_pid"] != unlike:
                return places
            time.sleep(0.1)
        raise AssertionError(f"not ready: {self.output()}")

    def output(self) -> str:
        return Path(self._output.name).read_text(errors="replace")

    def connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(self.places["postgres_dsn"], autocommit=True)

    def violations(self) -> list[tuple[Any, ...]]:
        with self.connect() as connection:
            return connection.execute("SELECT * FROM backend.invariants").fetchall()

    def stop(self) -> int:
        """Ctrl-C, as a person would; return the exit status."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(PATIENCE)
        finally:
            self._process.kill()
            self._output.close()


def children_of(pid: int) -> dict[str, int]:
    """The programs that a `serve` runs, by name."""
    found: dict[str, int] = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        command = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if b"app" in command:
            found[command[command.index(b"app") + 1].decode()] = int(child)
    return found
