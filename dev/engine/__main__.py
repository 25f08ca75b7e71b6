"""Run the development engine until SIGTERM or SIGINT. The environment alone tells it what to do:

GALAXY_ENGINE_STATE_DIR   where its files are (/var/lib/galaxy-game, a container's mount)
GALAXY_ENGINE_HOST        the address to listen on (127.0.0.1; in a container 0.0.0.0)
GALAXY_ENGINE_PORT        the port (8080); 0 takes a free one. `endpoint.json` in the state directory tells it
GALAXY_ENGINE_VERSION     what it says its version is (0.0.0)
GALAXY_ENGINE_LAST_TURN   the turn that ends a game that is made (12)
GALAXY_ENGINE_SEED        what decides chance in a game that is made (the game's id)
GALAXY_ENGINE_LOCK_FD     a descriptor of the state directory's engine.lock, locked by whoever starts the engine

Exit status: 0 when told to stop, 1 when it cannot work, 75 when another engine holds the state directory, 78 when
what it is told is wrong.
"""

from __future__ import annotations

import ipaddress
import os
import re
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.engine import store
from dev.engine.engine import Engine
from dev.engine.server import Server, say

EX_TEMPFAIL = 75
EX_CONFIG = 78
STOP_TIMEOUT = 5.0


@dataclass(frozen=True)
class Settings:
    state_dir: Path
    host: str
    port: int
    version: str
    last_turn: int
    seed: str | None
    lock_descriptor: int | None


class SettingsError(Exception):
    """What the engine is told is wrong; the message says what of it."""


def load(environ: Mapping[str, str]) -> Settings:
    """Read the settings; an empty value counts as none. Raises SettingsError with every problem."""
    given = {name: value for name, value in environ.items() if name.startswith("GALAXY_ENGINE_") and value}
    problems = []

    def number(name: str, default: int, low: int, high: int) -> int:
        text = given.get(name, str(default))
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            problems.append(f"{name} must be a whole number from {low} to {high}, not {text[:80]!r}")
            return default
        return int(text)

    state_dir = Path(given.get("GALAXY_ENGINE_STATE_DIR", "/var/lib/galaxy-game"))
    if not state_dir.is_absolute():
        problems.append(f"GALAXY_ENGINE_STATE_DIR must be an absolute path, not {str(state_dir)[:80]!r}")
    host = given.get("GALAXY_ENGINE_HOST", "127.0.0.1")
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        problems.append(f"GALAXY_ENGINE_HOST must be an IPv4 address, not {host[:80]!r}")
    port = number("GALAXY_ENGINE_PORT", 8080, 0, 65535)
    last_turn = number("GALAXY_ENGINE_LAST_TURN", 12, 1, 9999)
    lock_descriptor = number("GALAXY_ENGINE_LOCK_FD", 0, 0, 1 << 20) or None
    if problems:
        raise SettingsError("\n".join(problems))
    version, seed = given.get("GALAXY_ENGINE_VERSION", "0.0.0"), given.get("GALAXY_ENGINE_SEED")
    return Settings(state_dir, host, port, version, last_turn, seed, lock_descriptor)


def started() -> int | None:
    """Return when this process was started, as /proc tells it: with the process id, it means one process for good."""
    try:
        # The second field, the program's name, is in parentheses and may hold anything.
        return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def run(settings: Settings) -> int:
    directory = settings.state_dir
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        store.hold_lock(directory, settings.lock_descriptor)
        # What a former engine has left behind is nobody's now.
        store.remove(directory / store.ENDPOINT)
        for unfinished in directory.glob(".*.json.new"):
            store.remove(unfinished)
        engine = Engine(directory, seed=settings.seed, last_turn=settings.last_turn)
        server = Server(settings.host, settings.port, engine, settings.version)
        about = {
            "host": settings.host,
            "port": server.port,
            "version": settings.version,
            "pid": os.getpid(),
            "started": started(),
        }
        store.write_json(directory / store.ENDPOINT, about)
    except store.LockedError as error:
        say(f"not started: {error}")
        return EX_TEMPFAIL
    except (OSError, ValueError) as error:
        say(f"not started: {error}")
        return 1
    serving = threading.Thread(target=server.serve_forever, args=(0.05,), name="accept")
    serving.start()
    say(f"version {settings.version} listens on http://{settings.host}:{server.port}: {engine.about}")
    signal.sigwait(_STOP)
    say("stopping")
    store.remove(directory / store.ENDPOINT)
    server.stop(STOP_TIMEOUT)
    serving.join()
    say(f"stopped: {engine.about}")
    return 0


_STOP = frozenset({signal.SIGTERM, signal.SIGINT})


def main() -> int:
    # Blocked in every thread, so that only the wait for them takes them, whatever mask we were started with.
    signal.pthread_sigmask(signal.SIG_SETMASK, _STOP)
    try:
        return run(load(os.environ))
    except SettingsError as error:
        say(f"not started: {error}")
        return EX_CONFIG


if __name__ == "__main__":
    sys.exit(main())
