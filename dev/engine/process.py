"""A development engine as a process of its own, for tests and for trying things out:

with EngineProcess(directory, last_turn=3) as engine:
    httpx.get(f"{engine.url}/healthz")
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

from dev.engine.store import ENDPOINT

ROOT = Path(__file__).resolve().parents[2]
LOG = "engine.log"


class EngineProcess:
    """An engine over a state directory. `url` is right once it has started; the log is `engine.log` beside its files."""

    def __init__(self, state_dir: Path, *, version: str = "1.0.0", last_turn: int = 12, seed: str = "", port: int = 0) -> None:
        self.state_dir = state_dir
        self.url = ""
        self._settings = {
            "GALAXY_ENGINE_STATE_DIR": str(state_dir),
            "GALAXY_ENGINE_PORT": str(port),
            "GALAXY_ENGINE_VERSION": version,
            "GALAXY_ENGINE_LAST_TURN": str(last_turn),
            "GALAXY_ENGINE_SEED": seed,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> EngineProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def log(self) -> str:
        return (self.state_dir / LOG).read_text(errors="replace")

    def start(self, patience: float = 30) -> None:
        """Start it and wait until it listens; raises RuntimeError if it ends instead, or takes too long."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GALAXY_ENGINE_")}
        with (self.state_dir / LOG).open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dev.engine"],
                cwd=ROOT,
                env={**environment, **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + patience
        while (port := self._port()) is None:
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"the engine does not listen:\n{self.log}")
            time.sleep(0.01)
        self.url = f"http://127.0.0.1:{port}"

    def stop(self, patience: float = 30) -> int:
        """Stop it as a driver does and return its exit status; 0 if there is nothing to stop."""
        return self._end(signal.SIGTERM, patience)

    def kill(self) -> int:
        """Kill it."""
        return self._end(signal.SIGKILL, 30)

    def _end(self, signo: signal.Signals, patience: float) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signo)
        try:
            return process.wait(patience)
        finally:
            process.kill()
            process.wait()

    def _port(self) -> int | None:
        assert self._process is not None
        try:
            content = json.loads((self.state_dir / ENDPOINT).read_bytes())
        except FileNotFoundError:
            return None
        # One that a killed engine has left is not ours.
        return int(content["port"]) if content["pid"] == self._process.pid else None
