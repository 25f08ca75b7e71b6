"""Engines of games under workers that die, that race, and in trouble of their own; for every driver.

A worker dies after each thing that it does outside of itself: a call of the database, of the driver, of Docker, of the
engine. Which there are, a worker that lives tells: a step that is added to the code is tried without a word here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.contract.games import call
from tests.integration.test_driver import DockerHarness, ProcessHarness
from tests.postgres import Database
from tests.runtimes import DRIVERS, Platform, on, on_swarm_too, platform_on
from tests.services import ADMIN, travel, until
from workers.runtime.driver import Driver, DriverUnavailable, Observed
from workers.runtime.engine_client import EngineClient
from workers.tasks.runtime import RuntimeTasks


@pytest.fixture(params=DRIVERS)
def platform(
    request: pytest.FixtureRequest, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "9999")
    yield from platform_on(request.param, request, database, tmp_path)


def each_step(platform: Platform, what: str, prepare: Callable[[], str], check: Callable[[str], None]) -> list[str]:
    """Have a worker die at each step of something, one after the other; return the steps."""
    die_at = 0
    steps = None
    while steps is None:
        die_at += 1
        game_id = prepare()
        platform.forget_jobs()
        steps = platform.worker(what, game_id, die_at)
        platform.recover()
        check(game_id)
    assert len(steps) == die_at - 1
    return steps


# -- workers that die


@on_swarm_too
def test_a_worker_that_dies_at_any_step_of_a_start_and_of_a_stop(platform: Platform) -> None:
    started: list[str] = []

    def well(game_id: str) -> None:
        platform.is_well(game_id, current_turn=0, generation=1)
        started.append(game_id)

    steps = each_step(platform, "start", platform.game, well)
    assert steps[0] == "worker.runtime_start_claim"
    assert steps[-1] == "worker.runtime_started"
    assert {"driver.pull", "driver.start", "GET /healthz", "POST /api/v1/admin/init"} < set(steps)

    def stop() -> str:
        game_id = started.pop() if started else platform.running()
        with platform.db.transaction():
            platform.db.execute("SELECT game_transition(g, 'force-stop', 'admin', 'root') FROM game_lock(%s) AS g", [game_id])
        return game_id

    def gone(game_id: str) -> None:
        runtime = platform.runtime(game_id)
        assert (runtime["wanted"], runtime["status"], runtime["game"]) == ("removed", "removed", "cancelled")
        assert platform.harness.running(game_id) == 0
        assert platform.use(lambda tasks, driver, client: driver.inspect(game_id)) is None

    steps = each_step(platform, "remove", stop, gone)
    assert (steps[0], steps[-1]) == ("worker.runtime_remove_claim", "worker.runtime_removed")
    assert {"driver.stop", "driver.remove"} < set(steps)


def test_a_worker_that_dies_at_any_step_of_a_turn(platform: Platform) -> None:
    game_id = platform.running()
    turns = 0

    def ask() -> str:
        nonlocal turns
        turns += 1
        call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
        return game_id

    steps = each_step(platform, "turn", ask, lambda game_id: platform.is_well(game_id, current_turn=turns))
    assert steps == ["worker.turn_claim", "GET /api/v1/admin/status", "PUT /api/v1/admin/turn", "worker.turn_report"]
    stored = platform.db.execute("SELECT array_agg(turn ORDER BY turn) FROM game_turns WHERE game_id = %s", [game_id]).fetchone()
    assert stored == (list(range(turns + 1)),)


@pytest.mark.parametrize(
    ("platform", "operation"),
    # To a Swarm both are the same update.
    [*(on(driver, operation) for driver in ("process", "docker") for operation in ("restart", "patch")), on("swarm", "patch")],
    indirect=["platform"],
)
def test_a_worker_that_dies_at_any_step_of_a_replacement(platform: Platform, operation: str) -> None:
    game_id = platform.running()
    generation = 1
    versions = [platform.runtime(game_id)["engine_version"]]
    series = versions[0].rsplit(".", 1)[0]

    def ask() -> str:
        nonlocal generation
        generation += 1
        if operation == "restart":
            call(platform.db, "api.runtime_restart", ADMIN, game_id)
            return game_id
        versions.append(f"{series}.{10**9 - 1 - generation}")
        platform.db.execute(
            "INSERT INTO engine_versions (version, image_ref) VALUES (%s, %s)", [versions[-1], platform.harness.image_ref]
        )
        call(platform.db, "api.runtime_patch", ADMIN, game_id, json.dumps({"version": versions[-1]}))
        return game_id

    def well(game_id: str) -> None:
        platform.is_well(game_id, current_turn=0, generation=generation, engine_version=versions[-1])

    steps = each_step(platform, "start", ask, well)
    assert (steps[0], steps[-1]) == ("worker.runtime_start_claim", "worker.runtime_started")
    logged = platform.db.execute(
        "SELECT DISTINCT operation FROM runtime_operation_log WHERE game_id = %s AND operation IN ('restart', 'patch')", [game_id]
    ).fetchall()
    assert logged == [(operation,)]


# -- engines in trouble


@on_swarm_too
def test_an_engine_that_is_killed_is_started_again_and_the_game_goes_on(platform: Platform) -> None:
    game_id = platform.running()
    observed = platform.use(lambda tasks, driver, client: driver.inspect(game_id))
    assert observed is not None
    platform.harness.crash(observed)
    platform.recover(1)
    platform.is_well(game_id, current_turn=0)


def test_an_engine_that_hangs_is_replaced(platform: Platform) -> None:
    game_id = platform.running()
    observed = platform.use(lambda tasks, driver, client: driver.inspect(game_id))
    assert observed is not None
    platform.harness.freeze(observed)
    platform.recover(1)
    assert platform.runtime(game_id)["unwell_since"] is not None
    platform.recover(1)
    platform.is_well(game_id, generation=2, current_turn=0)
    health = platform.db.execute(
        "SELECT array_agg(is_healthy ORDER BY snapshot_id) FROM runtime_health_snapshots WHERE game_id = %s", [game_id]
    ).fetchone()
    assert health == ([True, False, True],)


@on_swarm_too
def test_an_engine_that_ends_by_itself_with_0_is_started_again(platform: Platform) -> None:
    game_id = platform.running()
    [pid] = engine_pids(platform, game_id)
    os.kill(pid, signal.SIGTERM)
    until(lambda: pid not in engine_pids(platform, game_id))
    # Docker has started it again by then, perhaps just now.
    platform.recover(2)
    platform.is_well(game_id, current_turn=0)


class Garbage(BaseHTTPRequestHandler):
    """An engine that is well and talks nonsense."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"]")

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_an_engine_that_answers_garbage_is_replaced_and_then_pauses_its_game(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    game_id = platform.running()
    with ThreadingHTTPServer(("127.0.0.1", 0), Garbage) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        garbage = f"http://127.0.0.1:{server.server_address[1]}"

        async def passes(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
            inspect = driver.inspect

            async def misled(game: str) -> Observed | None:
                observed = await inspect(game)
                return None if observed is None else dataclasses.replace(observed, endpoint=garbage)

            monkeypatch.setattr(driver, "inspect", misled)
            for _ in range(4):
                travel(platform.db, "5 minutes")
                await tasks.reconcile()
                await platform.jobs(tasks)

        platform.use(passes)
        server.shutdown()
        thread.join()
    # Noted, replaced, noted, and that was no help: it was never seen well in between.
    runtime = platform.runtime(game_id)
    assert (runtime["generation"], runtime["game"], runtime["reason"]) == (2, "paused", "engine_unreachable")
    platform.recover(1)
    platform.is_well(game_id, game="paused", generation=2, current_turn=0)


def test_what_runs_the_engines_goes_away_and_no_game_is_paused(platform: Platform) -> None:
    game_id = platform.running()
    before = platform.runtime(game_id)

    async def passes(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
        async def gone(*arguments: Any) -> Any:
            raise DriverUnavailable("nobody is there")

        for name in ("pull", "start", "stop", "remove", "inspect", "list"):
            setattr(driver, name, gone)
        for _ in range(3):
            travel(platform.db, "10 minutes")
            await tasks.sweep()
            await platform.jobs(tasks)
            await tasks.reconcile()

    platform.use(passes)
    assert platform.runtime(game_id) == before
    # Asked for meanwhile: the engine itself is there.
    call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
    platform.use(passes)
    assert platform.runtime(game_id)["current_turn"] == 1
    platform.recover(1)
    platform.is_well(game_id, current_turn=1)


def engine_pids(platform: Platform, game_id: str) -> list[int]:
    """The engine's processes on this machine."""
    if isinstance(platform.harness, DockerHarness):
        return platform.harness.pids(game_id)
    assert isinstance(platform.harness, ProcessHarness)
    return platform.harness.pids(game_id)


@on_swarm_too
def test_a_container_that_vanishes_pauses_its_game_which_can_go_on(platform: Platform) -> None:
    game_id = platform.running()
    platform.use(lambda tasks, driver, client: driver.remove(game_id))
    platform.recover(1)
    platform.is_well(game_id, game="paused", reason="container_gone")
    owner = platform.db.execute("SELECT owner_user_id::text FROM games WHERE game_id = %s", [game_id]).fetchone()
    assert owner is not None
    call(platform.db, "api.game_resume", owner[0], game_id)
    platform.recover(1)
    platform.is_well(game_id, current_turn=0)


@on_swarm_too
def test_two_workers_that_race_for_a_turn_compute_it_once(platform: Platform) -> None:
    game_id = platform.running()
    for turn in range(1, 4):
        call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
        platform.forget_jobs()

        async def race(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
            await asyncio.gather(*(tasks.turn(game_id) for _ in range(4)))

        platform.use(race)
        platform.is_well(game_id, current_turn=turn)


@on_swarm_too
def test_a_log_is_fetched(platform: Platform) -> None:
    game_id = platform.running()
    call(platform.db, "api.runtime_logs_take", ADMIN, game_id)
    platform.recover(1)
    told = json.loads(call(platform.db, "api.runtime_logs_get", ADMIN, game_id))
    assert "listens on" in told["content"]
    assert (told["generation"], told["problem"]) == (1, None)


def test_a_log_that_is_not_there_leaves_the_one_before(platform: Platform) -> None:
    game_id = platform.running()
    call(platform.db, "api.runtime_logs_take", ADMIN, game_id)
    platform.recover(1)
    before = json.loads(call(platform.db, "api.runtime_logs_get", ADMIN, game_id))["content"]

    async def take_away(_tasks: RuntimeTasks, driver: Driver, _client: EngineClient) -> None:
        await driver.stop(game_id, 1)
        await driver.remove(game_id)

    platform.use(take_away)
    call(platform.db, "api.runtime_logs_take", ADMIN, game_id)

    async def fetch(tasks: RuntimeTasks, _driver: Driver, _client: EngineClient) -> None:
        await tasks.logs(game_id)

    platform.use(fetch)
    told = json.loads(call(platform.db, "api.runtime_logs_get", ADMIN, game_id))
    assert told["content"] == before
    assert "no engine" in told["problem"]


# -- many at once

MANY = 100


def test_a_hundred_games_that_are_due_at_one_tick(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By two workers that race for each of them; each turn once, and in what time is printed."""
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "9999")
    where = {"BACKEND_RUNTIME_DRIVER": "process", "BACKEND_GAME_STATE_ROOT": str(tmp_path / "games")}
    platform = Platform(database, ProcessHarness(tmp_path), where)
    try:
        platform.db.execute("UPDATE settings SET default_value = 1000 WHERE setting_name = 'runtime_job_queue_size'")
        games = [platform.game() for _ in range(MANY)]

        async def at_once(work: Callable[[str], Awaitable[None]], places: int) -> None:
            free = asyncio.Semaphore(places)

            async def alone(game_id: str) -> None:
                async with free:
                    await work(game_id)

            await asyncio.gather(*(alone(game_id) for game_id in games))

        platform.use(lambda tasks, driver, client: at_once(tasks.start, 8))
        due = platform.db.execute("UPDATE runtime_records SET next_turn_at = backend.now() RETURNING game_id").fetchall()
        assert len(due) == MANY
        # Both sweep; which of them puts a game's turn into the queue does not matter.
        swept = platform.db.execute("SELECT worker.turns_defer(1000), worker.turns_defer(1000)").fetchone()
        assert swept == (MANY, 0)
        begin = time.monotonic()

        async def race(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
            # As many at once as two workers do by default, and each turn by both.
            await asyncio.gather(at_once(tasks.turn, 4), at_once(tasks.turn, 4))

        platform.use(race)
        seconds = time.monotonic() - begin
        print(f"{MANY} turns that were due at one tick: {seconds:.1f} s")
        turns = platform.db.execute("SELECT turn, count(*) FROM game_turns GROUP BY turn ORDER BY turn").fetchall()
        assert turns == [(0, MANY), (1, MANY)]
        asked = platform.db.execute(
            "SELECT count(*) FROM runtime_operation_log WHERE operation = 'turn' AND outcome = 'done'"
        ).fetchone()
        assert asked == (MANY,)
        for game_id in games[:: MANY // 10]:
            platform.is_well(game_id, current_turn=1)
    finally:
        platform.close()
