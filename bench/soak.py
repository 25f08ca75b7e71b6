"""Mixed load for as long as one likes: `python -m bench.soak [--minutes 60]`, from the repository's root.

Starts the platform as `make run` does, in a directory of its own. People sign in by mailed codes, look around, make
games and cancel them, and lose their sessions; a game is played turn after turn; a gateway follows the stream. Every
request must be answered as it should be, every session that was revoked must be told, and at the end
`backend.invariants` must be empty. The memory of every process is sampled: the table says what the largest of each program
held in each quarter of the time, and how many there were at the end. A program whose largest process has grown by more than
a quarter and 32 MiB from the first quarter to the last is a failure. There are more and more engines, since a game that is
finished keeps its own for a month.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import math
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg

from app.supervisor import ROOT
from dev.demo import Person, Platform
from dev.push_client import PushClient

_START = 120.0
_BETWEEN_TURNS = 2.0
_LEAST = 0.2  # minutes
_PROGRAMS = ("serve", "api", "worker", "push", "dev.engine")
_GAME = {"min_players": 2, "max_players": 2, "enrollment_ends_at": "2100-01-01T00:00:00Z", "turn_schedule": "0 0 1 1 *"}

_MORE_CODES = "UPDATE backend.settings SET default_value = max_value WHERE setting_name = 'code_mails_per_service'"


@contextlib.contextmanager
def _running(directory: Path) -> Iterator[tuple[Platform, int]]:
    """The platform, and the process id of what runs it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKEND_")}
    with (directory / "run.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.run"],
            cwd=ROOT,
            env=clean | {"GALAXY_DEV_DIR": str(directory / "dev")},
            stdout=log,
            stderr=log,
        )
    try:
        until = time.monotonic() + _START
        while not (directory / "dev" / "endpoints.json").exists():
            if process.poll() is not None or time.monotonic() > until:
                raise RuntimeError((directory / "run.log").read_text())
            time.sleep(0.1)
        yield Platform(json.loads((directory / "dev" / "endpoints.json").read_text())), process.pid
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(120)


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):
        # Each thread has children of its own.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                yield from _family(int(child))


def memory(pid: int) -> dict[str, list[int]]:
    """Return the bytes that each process of ours below a process holds, by the name of its program."""
    found: dict[str, list[int]] = collections.defaultdict(list)
    for member in _family(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{member}/cmdline").read_text().split("\0")
            if name := next((word for word in words[1:] if word in _PROGRAMS), None):
                found[name].append(int(Path(f"/proc/{member}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"))
    return dict(found)


class Load:
    """Writers in threads; `done` counts what was done, `failures` say what went wrong, `revoked` are sessions that have ended."""

    def __init__(self, platform: Platform) -> None:
        self.done: collections.Counter[str] = collections.Counter()
        self.failures: list[str] = []
        self.revoked: set[str] = set()
        self.told: set[str] = set()
        self._platform = platform
        self._over = threading.Event()
        places = platform.places
        self._gateway = PushClient(places["grpc_target"], "soak", places["internal_token"])
        self._gateway.connect()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        work: tuple[Callable[[], None], ...] = (self._visits, self._visits, self._play)
        self._threads = [threading.Thread(target=self._guarded, args=(one,), daemon=True) for one in work]

    def start(self) -> None:
        for thread in (self._listener, *self._threads):
            thread.start()

    def end(self) -> None:
        """Let what has begun come to its end, and wait for what the gateway must still be told."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        until = time.monotonic() + 30
        while not self.told >= self.revoked and time.monotonic() < until:
            time.sleep(0.1)
        if self._gateway.gaps:
            self.failures.append("the stream began afresh")
        self.close()
        if lost := self.revoked - self.told:
            self.failures.append(f"{len(lost)} ended sessions were never told")

    def close(self) -> None:
        """Leave the stream, which a program that ends would wait for, and let nothing more begin."""
        self._over.set()
        self._gateway.close()
        if self._listener.is_alive():
            self._listener.join()

    def _listen(self) -> None:
        for event in self._gateway:
            self.done[f"event {event.client_event.kind or 'session_invalidation'}"] += 1
            if event.HasField("session_invalidation"):
                self.told.add(event.session_invalidation.device_session_id)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self.failures.append(f"{work.__name__}: {type(error).__name__}: {error}")

    def _visits(self) -> None:
        while not self._over.is_set():
            person = Person("Visitor")
            person.sign_in(self._platform)
            ask = person.ask
            ask(self._platform, "PATCH", "/account/settings", 200, json={"time_zone": "Europe/Paris"})
            ask(self._platform, "GET", "/lobby/games", 200)
            made = ask(self._platform, "POST", "/lobby/games", 201, json={**_GAME, "game_name": "Soak"})
            path = f"/lobby/games/{made['game_id']}"
            ask(self._platform, "POST", f"{path}/open-enrollment", 200)
            ask(self._platform, "POST", f"{path}/invites", 201, json={})
            ask(self._platform, "POST", f"{path}/cancel", 200)
            revoke = f"/internal/sessions/{person.session_id}/revoke"
            self._platform.request("POST", revoke, 200, json={"reason": "logout"}, headers=self._platform.internal)
            self.revoked.add(person.session_id)
            self.done["visit"] += 1

    def _play(self) -> None:
        while not self._over.is_set():
            self._play_game()

    def _play_game(self) -> None:
        owner, guest = Person("Owner"), Person("Guest")
        for person in (owner, guest):
            person.sign_in(self._platform)
        mark = secrets.token_hex(3)
        body = {**_GAME, "game_name": "Long", "race_name": f"Alphas {mark}"}
        game_id = owner.ask(self._platform, "POST", "/lobby/games", 201, json=body)["game_id"]
        path = f"/lobby/games/{game_id}"
        owner.ask(self._platform, "POST", f"{path}/open-enrollment", 200)
        code = owner.ask(self._platform, "POST", f"{path}/invites", 201, json={})["code"]
        seat = {"code": code, "race_name": f"Betas {mark}"}
        guest.ask(self._platform, "POST", "/lobby/invites/redeem", 200, json=seat)
        owner.ask(self._platform, "POST", f"{path}/ready-to-start", 200)
        owner.ask(self._platform, "POST", f"{path}/start", 202)
        turn = self._turn(owner, path, 0)
        while turn is not None and not self._over.is_set():
            self._platform.admin("POST", f"/runtimes/{game_id}/force-next-turn", 202)
            turn = self._turn(owner, path, turn + 1)
            self.done["turn"] += 1
            self._over.wait(_BETWEEN_TURNS)

    def _turn(self, owner: Person, path: str, least: int) -> int | None:
        """Wait until a turn is there; return which it is, or None when the game is over."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            game = owner.ask(self._platform, "GET", path, 200)
            if game["status"] == "running" and game["current_turn"] >= least:
                return int(game["current_turn"])
            if game["status"] == "finished":
                return None
            time.sleep(0.2)
        raise RuntimeError(f"there was no turn {least}: {game['status']}")


def table(samples: list[dict[str, list[int]]]) -> tuple[list[str], list[str]]:
    """Return lines that tell what the largest process of each program held, and what of that is wrong."""
    lines, problems = [f"{'program':12} {'MiB in each quarter':>35} {'processes':>10}"], []
    length = max(1, len(samples) // 4)
    quarters = [samples[:length], samples[length : 2 * length], samples[2 * length : -length], samples[-length:]]
    for name in sorted({name for sample in samples for name in sample}):
        held = [statistics.median([max(sample.get(name, [0])) for sample in part]) / 2**20 for part in quarters if part]
        lines.append(f"{name:12} {' '.join(f'{one:8.1f}' for one in held):>35} {len(samples[-1].get(name, [])):10}")
        if held[0] and held[-1] > held[0] * 1.25 and held[-1] - held[0] > 32:
            problems.append(f"{name} has grown")
        if name not in samples[-1]:
            problems.append(f"{name} is gone")
    return lines, problems


def soak(minutes: float, directory: Path) -> int:
    samples: list[dict[str, list[int]]] = []
    with _running(directory) as (platform, pid):
        with psycopg.connect(platform.places["postgres_dsn"]) as connection:
            # Within the hour more people come than are sent codes on a day.
            connection.execute(_MORE_CODES)
        with contextlib.redirect_stdout(io.TextIOWrapper(Path(os.devnull).open("wb"))):
            load = Load(platform)
            with contextlib.closing(load):
                load.start()
                until = time.monotonic() + minutes * 60
                while time.monotonic() < until and not load.failures:
                    time.sleep(min(5.0, minutes * 60 / 20))
                    samples.append(memory(pid))
                load.end()
        with psycopg.connect(platform.places["postgres_dsn"]) as connection:
            violations: list[Any] = connection.execute("SELECT * FROM backend.invariants").fetchall()
    lines, problems = table(samples)
    print("\n".join(lines))
    print(", ".join(f"{count} × {what}" for what, count in sorted(load.done.items())))
    problems += [*load.failures, *(f"does not hold: {row}" for row in violations)]
    print("\n".join(problems) or "Nothing failed, and everything holds.")
    return 1 if problems else 0


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Mixed load, with the memory of every process and the invariants at the end.")
    parser.add_argument("--minutes", type=float, default=60)
    minutes: float = parser.parse_args(arguments).minutes
    if not _LEAST <= minutes < math.inf:
        parser.error(f"--minutes: at least {_LEAST:g}, and not for ever")
    # As Ctrl-C does: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with tempfile.TemporaryDirectory(prefix="galaxy-soak-") as directory:
        Path(directory).chmod(0o711)  # the server's user must get through
        return soak(minutes, Path(directory))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
