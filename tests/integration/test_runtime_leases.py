"""Leases of engines: kept by whoever is slow, lost by whoever is too slow, and turns that outlast them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from tests.contract.games import call
from tests.postgres import Database
from tests.runtimes import DRIVERS, Platform, platform_on
from tests.services import ADMIN, travel
from workers.runtime.driver import Driver, ImagePullFailed, Spec
from workers.runtime.engine_client import EngineClient, EngineTimeout, State
from workers.tasks.runtime import RuntimeTasks


@pytest.fixture(params=DRIVERS)
def platform(
    request: pytest.FixtureRequest, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "9999")
    yield from platform_on(request.param, request, database, tmp_path)


on_processes = pytest.mark.parametrize("platform", ["process"], indirect=True)


async def changed(look: Callable[[], Any]) -> None:
    before = look()
    deadline = time.monotonic() + 30
    while look() == before:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


@on_processes
def test_a_lease_lasts_as_long_as_the_work(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    game_id = platform.game()

    async def slow(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
        pull = driver.pull

        async def slow_pull(image_ref: str) -> None:
            for _ in range(4):
                # It is renewed three times before it could have run out once.
                await changed(lambda: platform.runtime(game_id)["lease_until"])
            await pull(image_ref)

        monkeypatch.setattr(driver, "pull", slow_pull)
        await tasks.start(game_id)

    platform.use(slow, lease_seconds=3)
    platform.is_well(game_id, lease_number=1, generation=1)


@on_processes
@pytest.mark.parametrize("then", ["hangs", "fails", "goes on"])
@pytest.mark.parametrize("is_wanted_anew", [False, True])
def test_who_has_lost_a_lease_leaves_the_engine_alone(
    platform: Platform, monkeypatch: pytest.MonkeyPatch, then: str, is_wanted_anew: bool
) -> None:
    game_id = platform.running()
    call(platform.db, "api.runtime_restart", ADMIN, game_id)
    platform.forget_jobs()

    async def slow(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
        pull = driver.pull

        async def slow_pull(image_ref: str) -> None:
            monkeypatch.setattr(driver, "pull", pull)
            # Somebody else takes over, to the end; perhaps another engine is wanted by then.
            travel(platform.db, "10 minutes")
            assert await asyncio.to_thread(platform.worker, "start", game_id, 0)
            if is_wanted_anew:
                call(platform.db, "api.runtime_restart", ADMIN, game_id)
                platform.forget_jobs()
                assert await asyncio.to_thread(platform.worker, "start", game_id, 0)
            if then == "hangs":
                await asyncio.sleep(3600)
            if then == "fails":
                raise ImagePullFailed("it took too long")

        monkeypatch.setattr(driver, "pull", slow_pull)
        await asyncio.wait_for(tasks.start(game_id), 60)

    # As long as the others take, and not much longer.
    platform.use(slow, lease_seconds=15)
    platform.is_well(game_id, generation=3 if is_wanted_anew else 2, current_turn=0)


def test_an_engine_of_a_history_that_the_database_has_lost_is_replaced(platform: Platform) -> None:
    game_id = platform.running()
    runtime = platform.runtime(game_id)
    later = Spec(game_id, 7, runtime["engine_version"], runtime["image_ref"])
    platform.use(lambda tasks, driver, client: driver.start(later))
    platform.recover(1)
    platform.is_well(game_id, generation=1, current_turn=0)


class SlowTurn:
    """A turn that an engine is asked for, and is at for longer than anybody waits: all but the request's last byte is there."""

    def __init__(self, endpoint: str) -> None:
        parts = urlsplit(endpoint)
        self._connection = socket.create_connection((parts.hostname, parts.port), timeout=30)
        self._connection.sendall(b"PUT /api/v1/admin/turn HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r")

    def end(self) -> None:
        """Let the engine, if that is still there, compute it."""
        with contextlib.suppress(ConnectionError):
            self._connection.sendall(b"\n")
            while self._connection.recv(65536):
                pass
        self._connection.close()


@pytest.mark.parametrize("ends", ["in time", "late", "late, and answers nothing meanwhile"])
def test_a_turn_that_outlasts_its_lease_is_computed_once(platform: Platform, monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    game_id = platform.running()
    owner = platform.db.execute("SELECT owner_user_id::text FROM games WHERE game_id = %s", [game_id]).fetchone()
    assert owner is not None
    begun: list[SlowTurn] = []

    async def slow(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
        async def turn(endpoint: str, game: str) -> State:
            begun.append(SlowTurn(endpoint))
            raise EngineTimeout("no answer within 5 s")

        monkeypatch.setattr(client, "turn", turn)
        await tasks.turn(game_id)

    call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
    platform.forget_jobs()
    platform.use(slow)
    paused = platform.runtime(game_id)
    assert (paused["game"], paused["reason"], paused["status"]) == ("paused", "engine_unreachable", "engine_unreachable")
    # It is left its time: nobody looks at it, and nobody goes on.
    platform.use(lambda tasks, driver, client: tasks.reconcile())
    assert platform.runtime(game_id) == paused
    with pytest.raises(psycopg.Error, match="engine_not_healthy"):
        call(platform.db, "api.game_resume", owner[0], game_id)
    if ends == "in time":
        begun[0].end()
    platform.recover(1)
    call(platform.db, "api.game_resume", owner[0], game_id)
    call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
    if "nothing" in ends:

        async def deaf(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
            async def status(endpoint: str, game: str) -> State:
                raise EngineTimeout("no answer within 2 s")

            monkeypatch.setattr(client, "status", status)
            await tasks.turn(game_id)

        platform.forget_jobs()
        platform.use(deaf)
        assert platform.runtime(game_id)["game"] == "paused"
        platform.recover(1)
        call(platform.db, "api.game_resume", owner[0], game_id)
        call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
    platform.recover(1)
    if ends != "in time":
        begun[0].end()
    platform.is_well(game_id, current_turn=1)
    stored = platform.db.execute("SELECT array_agg(turn ORDER BY turn) FROM game_turns WHERE game_id = %s", [game_id]).fetchone()
    assert stored == ([0, 1],)


@on_processes
def test_a_resumed_game_whose_engine_was_well_long_ago_is_looked_at(platform: Platform) -> None:
    game_id = platform.running()
    owner = platform.db.execute("SELECT owner_user_id::text FROM games WHERE game_id = %s", [game_id]).fetchone()
    assert owner is not None
    call(platform.db, "api.game_pause", owner[0], game_id)
    platform.forget_jobs()
    platform.use(lambda tasks, driver, client: driver.remove(game_id))
    assert json.loads(call(platform.db, "api.game_resume", owner[0], game_id))["status"] == "running"
    platform.use(lambda tasks, driver, client: platform.jobs(tasks))
    platform.is_well(game_id, game="paused", reason="container_gone")
