"""Each process killed with -9 in the middle of a game: the game goes on, each turn once, no engine twice."""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.demo import Person, Platform
from tests.e2e.platform import RunningPlatform, children_of

# A platform takes its ports when it starts: one at a time.
pytestmark = pytest.mark.xdist_group("platform")

PATIENCE = 90.0


class Game:
    """A running game of two, driven as an administrator and its owner would."""

    def __init__(self, running: RunningPlatform) -> None:
        self.running = running
        self.platform = Platform(running.places)
        self.owner, guest = Person("Owner"), Person("Guest")
        for person in (self.owner, guest):
            person.sign_in(self.platform)
        mark = secrets.token_hex(3)
        body = {
            "game_name": f"Faults {mark}",
            "min_players": 2,
            "max_players": 2,
            "enrollment_ends_at": "2100-01-01T00:00:00Z",
            "turn_schedule": "0 0 1 1 *",
            "race_name": f"Alphas {mark}",
        }
        made = self.owner.ask(self.platform, "POST", "/lobby/games", 201, json=body)
        self.game_id: str = made["game_id"]
        self.path = f"/lobby/games/{self.game_id}"
        self.owner.ask(self.platform, "POST", f"{self.path}/open-enrollment", 200)
        invite = self.owner.ask(self.platform, "POST", f"{self.path}/invites", 201, json={})
        seat = {"code": invite["code"], "race_name": f"Betas {mark}"}
        guest.ask(self.platform, "POST", "/lobby/invites/redeem", 200, json=seat)
        self.owner.ask(self.platform, "POST", f"{self.path}/ready-to-start", 200)

    def start(self) -> None:
        self.owner.ask(self.platform, "POST", f"{self.path}/start", 202)

    def state(self) -> dict[str, Any]:
        """The game as its owner sees it; waits out the time in which nobody answers."""
        state: dict[str, Any] = self.retried(lambda: self.owner.ask(self.platform, "GET", self.path, 200))
        return state

    def retried(self, ask: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def force(self) -> None:
        def ask() -> None:
            with httpx.Client(trust_env=False, timeout=10) as client:
                answer = client.post(
                    f"{self.platform.places['http_url']}/api/v1/admin/runtimes/{self.game_id}/force-next-turn",
                    auth=(self.platform.places["admin_user"], self.platform.places["admin_password"]),
                )
            assert answer.status_code == 202, answer.text

        self.retried(ask)

    def wait_for(self, what: str, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            state = self.state()
            if is_so(state):
                return state
            if state["status"] == "paused":
                # What a person would do, as soon as the engine is well again.
                try:
                    self.owner.ask(self.platform, "POST", f"{self.path}/resume", 200)
                except Exception:
                    time.sleep(0.5)
            time.sleep(0.1)
        raise AssertionError(f"waited in vain: {what}: {self.state()}")

    def engine_pid(self) -> int:
        record = json.loads((Path(self.platform.places["state_root"]) / self.game_id / "process.json").read_text())
        return int(record["pid"])

    def engines(self) -> list[int]:
        """Every process of this machine that runs an engine over this game's state."""
        found = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                environment = (process / "environ").read_bytes()
                command = (process / "cmdline").read_bytes()
            except OSError:
                continue
            if self.game_id.encode() in environment and b"dev.engine" in command:
                found.append(int(process.name))
        return found


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def _kill_worker(game: Game) -> None:
    _kill(children_of(game.running.places["serve_pid"])["worker"])


def _kill_api(game: Game) -> None:
    _kill(children_of(game.running.places["serve_pid"])["api"])


def _kill_push(game: Game) -> None:
    _kill(children_of(game.running.places["serve_pid"])["push"])


def _kill_engine(game: Game) -> None:
    _kill(game.engine_pid())


def _kill_serve(game: Game) -> None:
    pid = game.running.places["serve_pid"]
    _kill(pid)
    game.running.wait_until_ready(unlike=pid)


def _kill_postgres(game: Game) -> None:
    with game.running.connect() as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    _kill(int((Path(row[0]) / "postmaster.pid").read_text().splitlines()[0]))


VICTIMS = [_kill_worker, _kill_api, _kill_push, _kill_engine, _kill_serve, _kill_postgres]


@pytest.fixture(scope="module")
def game(platform: RunningPlatform) -> Game:
    game = Game(platform)
    game.start()
    return game


@pytest.mark.parametrize("kill", VICTIMS, ids=lambda kill: kill.__name__.removeprefix("_kill_"))
def test_a_process_killed_in_the_middle_of_a_turn(game: Game, kill: Callable[[Game], None]) -> None:
    before = game.wait_for("the game to run", lambda s: s["status"] == "running")["current_turn"]
    engine = game.engine_pid()
    game.force()
    kill(game)
    after = game.wait_for("the turn", lambda s: s["status"] == "running" and s["current_turn"] > before)
    assert after["current_turn"] == before + 1
    # One engine, and the same one, unless it was the one that was killed.
    assert len(game.engines()) == 1
    if kill is not _kill_engine:
        assert game.engine_pid() == engine
    with game.running.connect() as connection:
        turns = [
            turn
            for (turn,) in connection.execute(
                "SELECT turn FROM backend.game_turns WHERE game_id = %s ORDER BY turn", (game.game_id,)
            )
        ]
        told = connection.execute(
            "SELECT count(*), count(DISTINCT (payload ->> 'turn', user_id)) FROM backend.notifications"
            " WHERE kind = 'game.turn.ready' AND payload ->> 'game_id' = %s",
            (game.game_id,),
        ).fetchone()
    assert turns == list(range(after["current_turn"] + 1))
    assert told == (2 * after["current_turn"], 2 * after["current_turn"])
    assert game.running.violations() == []


def test_a_worker_killed_while_it_starts_a_game(platform: RunningPlatform) -> None:
    game = Game(platform)
    game.start()
    _kill(children_of(platform.places["serve_pid"])["worker"])
    started = game.wait_for("the game to run", lambda s: s["status"] == "running")
    assert started["current_turn"] == 0
    assert len(game.engines()) == 1
    assert platform.violations() == []
