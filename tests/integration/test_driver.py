"""What every driver must do, written once and run for each.

A driver is brought to the tests by a `Harness`: a world of its own to run engines in, and the few things that are
done to engines behind the driver's back. Add one to HARNESSES.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol, TypeVar

import pytest

from tests.docker_daemon import DockerDaemon, own_stack
from tests.services import until
from tests.swarm import Swarm
from workers.runtime.docker_driver import DockerDriver
from workers.runtime.driver import (
    ConfigInvalid,
    Driver,
    DriverError,
    ImagePullFailed,
    Observed,
    Spec,
    Superseded,
)
from workers.runtime.engine_client import EngineClient, EngineError, EngineNotInitialised
from workers.runtime.process_driver import ProcessDriver
from workers.runtime.swarm_driver import SwarmDriver

T = TypeVar("T")


class Harness(Protocol):
    """Where a driver's engines live in a test."""

    image_ref: str
    """An engine's image that is there."""
    missing_image_ref: str
    """One that is not, and cannot be got."""

    def driver(self, stack: str | None = None) -> Driver:
        """Return a new driver that knows nothing but what it finds: another worker, or this one after a restart.

        Without `stack` it is that of a platform that has nothing but what the test started.
        """

    def crash(self, observed: Observed) -> None:
        """Kill the engine, without the driver."""

    def freeze(self, observed: Observed) -> None:
        """Have the engine do nothing more, not even at SIGTERM."""

    def running(self, game_id: str) -> int:
        """Return how many engines of the game there are, whatever the driver thinks."""

    def state_files(self, game_id: str) -> set[str]:
        """Return the names in the game's state directory."""

    def close(self) -> None:
        """Do away with every engine and whatever else there is."""


class ProcessHarness:
    image_ref = "dev-engine:1.0.0"
    missing_image_ref = "galaxy/engine:1.0.0"

    def __init__(self, directory: Path) -> None:
        self._root = directory / "games"

    def driver(self, stack: str | None = None) -> Driver:
        return ProcessDriver(self._root, stack)

    def crash(self, observed: Observed) -> None:
        os.kill(self.pids(observed.game_id)[0], signal.SIGKILL)

    def freeze(self, observed: Observed) -> None:
        os.kill(self.pids(observed.game_id)[0], signal.SIGSTOP)

    def running(self, game_id: str) -> int:
        return len(self.pids(game_id))

    def state_files(self, game_id: str) -> set[str]:
        return {path.name for path in (self._root / game_id).iterdir()}

    def close(self) -> None:
        for game in self._root.glob("*-*"):
            for pid in self.pids(game.name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def pids(self, game_id: str) -> list[int]:
        wanted = f"GALAXY_ENGINE_STATE_DIR={self._root / game_id}".encode()
        found = []
        for process in Path("/proc").iterdir():
            # The environment of a process that has ended is empty.
            with contextlib.suppress(OSError):
                if process.name.isdecimal() and wanted in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found


class DockerHarness:
    missing_image_ref = "127.0.0.1:1/galaxy/engine:1.0.0"

    def __init__(self, daemon: DockerDaemon, directory: Path) -> None:
        self._daemon = daemon
        self._root = directory / "games"
        self._stack = own_stack()
        self.image_ref = daemon.image_ref

    def driver(self, stack: str | None = None) -> Driver:
        return DockerDriver(self._daemon.config(self._root, f"{self._stack}-{stack}"))

    def crash(self, observed: Observed) -> None:
        # Killed by hand it stays so; one that dies by itself the daemon starts again.
        self._daemon.client.containers.get(observed.container_id).kill()

    def freeze(self, observed: Observed) -> None:
        os.kill(self._daemon.pid(observed.container_id), signal.SIGSTOP)

    def running(self, game_id: str) -> int:
        return len(self._daemon.client.containers.list(filters={"label": f"galaxy.game_id={game_id}"}))

    def pids(self, game_id: str) -> list[int]:
        """The process of the engine, on the daemon's machine: ours."""
        pid = self._daemon.pid(f"galaxy-game-{game_id}")
        return [pid] if pid else []

    def state_files(self, game_id: str) -> set[str]:
        return {path.name for path in (self._root / game_id).iterdir()}

    def close(self) -> None:
        self._daemon.remove_containers(self._root)


class SwarmHarness(DockerHarness):
    """As with Docker; a service's grace is the one that it was started with."""

    def __init__(self, swarm: Swarm, directory: Path) -> None:
        super().__init__(swarm, directory)
        self._swarm = swarm
        self._network = contextlib.ExitStack()
        self._network.enter_context(swarm.inside())

    def driver(self, stack: str | None = None) -> Driver:
        more = {"BACKEND_RUNTIME_STOP_GRACE_PERIOD": "1s"}
        return SwarmDriver(self._swarm.config(self._root, f"{self._stack}-{stack}", **more))

    def crash(self, observed: Observed) -> None:
        super().crash(observed)
        # The manager learns of it a little later.
        until(lambda: self._swarm.task_state(observed.container_id) != "running")

    def running(self, game_id: str) -> int:
        return len(self._swarm.containers(game_id))

    def pids(self, game_id: str) -> list[int]:
        return [self._swarm.pid(container.id or "") for container in self._swarm.containers(game_id)]

    def close(self) -> None:
        self._network.close()
        super().close()


def _docker(request: pytest.FixtureRequest, directory: Path) -> Harness:
    return DockerHarness(request.getfixturevalue("docker_daemon"), directory)


HARNESSES: dict[str, Callable[[pytest.FixtureRequest, Path], Harness]] = {
    "process": lambda request, directory: ProcessHarness(directory),
    "docker": _docker,
    "swarm": lambda request, directory: SwarmHarness(request.getfixturevalue("swarm"), directory),
}


@pytest.fixture(params=["process", *(pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("docker", "swarm"))])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    made = HARNESSES[request.param](request, tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def game() -> str:
    return str(uuid.uuid4())


def spec(harness: Harness, game: str, generation: int = 1) -> Spec:
    return Spec(game, generation, "1.0.0", harness.image_ref)


def run(harness: Harness, use: Callable[[Driver], Awaitable[T]], stack: str | None = None) -> T:
    """Use a new driver."""

    async def scenario() -> T:
        driver = harness.driver(stack)
        try:
            return await use(driver)
        finally:
            await driver.close()

    return asyncio.run(scenario())


def start(harness: Harness, game: str, generation: int = 1, stack: str | None = None) -> Observed:
    """Start an engine and wait until it answers."""
    observed = run(harness, lambda driver: driver.start(spec(harness, game, generation)), stack)

    def healthy() -> bool:
        with contextlib.suppress(EngineError):
            ask(lambda client: client.healthz(url(observed)))
            return True
        return False

    until(healthy)
    return observed


def stop(harness: Harness, game: str, grace: float = 10) -> None:
    run(harness, lambda driver: driver.stop(game, grace))


def inspect(harness: Harness, game: str) -> Observed | None:
    return run(harness, lambda driver: driver.inspect(game))


def ask(use: Callable[[EngineClient], Awaitable[T]]) -> T:
    async def scenario() -> T:
        client = EngineClient(30, 10)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(scenario())


def url(observed: Observed | None) -> str:
    assert observed is not None
    assert observed.endpoint is not None
    return observed.endpoint


def exit_code(harness: Harness, game: str) -> int:
    """Return the exit code as soon as it is known."""

    def known() -> list[int]:
        observed = inspect(harness, game)
        return [] if observed is None or observed.exit_code is None else [observed.exit_code]

    return until(known)[0]


# -- images


def test_an_image_is_there_or_it_is_not(harness: Harness) -> None:
    run(harness, lambda driver: driver.pull(harness.image_ref))
    with pytest.raises(ImagePullFailed):
        run(harness, lambda driver: driver.pull(harness.missing_image_ref))


def test_a_start_without_the_image_leaves_nothing(harness: Harness, game: str) -> None:
    with pytest.raises((ConfigInvalid, ImagePullFailed)):
        run(harness, lambda driver: driver.start(Spec(game, 1, "1.0.0", harness.missing_image_ref)))
    assert inspect(harness, game) is None
    assert harness.running(game) == 0


@pytest.mark.parametrize("game_id", ["", "..", "../../etc", "game", "ABCDEF01-2345-4789-8ABC-DEF012345678", "x" * 5000, "a\0b"])
def test_what_is_no_game_s_id_is_refused(harness: Harness, game_id: str) -> None:
    for use in (
        lambda driver: driver.start(spec(harness, game_id)),
        lambda driver: driver.stop(game_id, 1),
        lambda driver: driver.remove(game_id),
        lambda driver: driver.inspect(game_id),
        lambda driver: driver.logs(game_id, 10),
    ):
        with pytest.raises(ConfigInvalid):
            run(harness, use)


# -- start


def test_a_started_engine_answers(harness: Harness, game: str) -> None:
    observed = start(harness, game)
    assert (observed.game_id, observed.generation, observed.engine_version) == (game, 1, "1.0.0")
    assert observed.is_running
    assert observed.exit_code is None
    assert observed.container_id
    with pytest.raises(EngineNotInitialised):
        ask(lambda client: client.status(url(observed), game))
    assert inspect(harness, game) == observed
    assert harness.running(game) == 1


def test_starting_again_changes_nothing(harness: Harness, game: str) -> None:
    async def scenario(driver: Driver) -> list[Observed]:
        return [await driver.start(spec(harness, game)) for _ in range(3)]

    assert len(set(run(harness, scenario))) == 1
    assert harness.running(game) == 1


def test_another_driver_adopts_what_runs(harness: Harness, game: str) -> None:
    observed = start(harness, game)
    ask(lambda client: client.init(url(observed), game, ["Ada", "Bob"]))
    assert inspect(harness, game) == observed
    assert start(harness, game) == observed
    assert ask(lambda client: client.status(url(observed), game)).turn == 0
    stop(harness, game)
    assert harness.running(game) == 0


def test_many_starts_at_once_make_one_engine(harness: Harness, game: str) -> None:
    async def scenario() -> list[Observed]:
        drivers = [harness.driver() for _ in range(4)]
        try:
            return await asyncio.gather(*(driver.start(spec(harness, game)) for driver in drivers for _ in range(2)))
        finally:
            for driver in drivers:
                await driver.close()

    assert len(set(asyncio.run(scenario()))) == 1
    assert harness.running(game) == 1


def test_games_do_not_mind_each_other(harness: Harness) -> None:
    games = [str(uuid.uuid4()) for _ in range(4)]

    async def scenario(driver: Driver) -> None:
        started = await asyncio.gather(*(driver.start(spec(harness, game)) for game in games))
        assert len({observed.endpoint for observed in started}) == len(games)
        await driver.stop(games[0], 10)
        await driver.remove(games[1])
        assert sorted(o.game_id for o in await driver.list()) == sorted([games[0], *games[2:]])
        assert sorted(o.game_id for o in await driver.list() if o.is_running) == sorted(games[2:])

    run(harness, scenario)


def test_a_newer_generation_replaces_an_older_one_and_keeps_its_state(harness: Harness, game: str) -> None:
    first = start(harness, game)
    before = ask(lambda client: client.init(url(first), game, ["Ada", "Bob"]))
    second = start(harness, game, 2)
    assert second.generation == 2
    assert second.container_id != first.container_id
    assert harness.running(game) == 1
    assert ask(lambda client: client.status(url(second), game)) == before
    assert inspect(harness, game) == second


@pytest.mark.parametrize("is_running", [True, False])
def test_an_older_generation_does_not_come_back(harness: Harness, game: str, is_running: bool) -> None:
    start(harness, game, 5)
    if not is_running:
        stop(harness, game)
    before = inspect(harness, game)
    with pytest.raises(Superseded):
        start(harness, game, 4)
    after = inspect(harness, game)
    assert before is not None
    assert after is not None
    assert (after.generation, after.container_id, after.is_running) == (5, before.container_id, is_running)


# -- stop


def test_a_stopped_engine_is_there_and_can_be_started_again(harness: Harness, game: str) -> None:
    first = start(harness, game)
    before = ask(lambda client: client.init(url(first), game, ["Ada", "Bob"]))
    stop(harness, game)
    assert harness.running(game) == 0
    observed = inspect(harness, game)
    assert observed is not None
    assert (observed.is_running, observed.endpoint, observed.generation) == (False, None, 1)
    assert exit_code(harness, game) == 0
    with pytest.raises(EngineError):
        ask(lambda client: client.healthz(url(first)))
    stop(harness, game)
    second = start(harness, game)
    assert second.is_running
    assert second.exit_code is None
    assert ask(lambda client: client.status(url(second), game)) == before


def test_an_engine_that_does_not_stop_is_killed(harness: Harness, game: str) -> None:
    harness.freeze(start(harness, game))
    begin = time.monotonic()
    stop(harness, game, grace=0.5)
    assert 0.4 < time.monotonic() - begin < 10
    assert harness.running(game) == 0
    assert exit_code(harness, game) == 128 + signal.SIGKILL


def test_what_was_never_there_can_be_stopped_and_removed(harness: Harness, game: str) -> None:
    async def scenario(driver: Driver) -> None:
        await driver.stop(game, 1)
        await driver.remove(game)
        assert await driver.inspect(game) is None
        assert await driver.logs(game, 10) == ""
        assert await driver.list() == []

    run(harness, scenario)


# -- remove


def test_removing_takes_the_engine_and_leaves_its_state(harness: Harness, game: str) -> None:
    first = start(harness, game)
    before = ask(lambda client: client.init(url(first), game, ["Ada", "Bob"]))
    run(harness, lambda driver: driver.remove(game))
    assert harness.running(game) == 0
    assert inspect(harness, game) is None
    assert run(harness, lambda driver: driver.list()) == []
    assert run(harness, lambda driver: driver.logs(game, 10)) == ""
    assert "state.json" in harness.state_files(game)
    run(harness, lambda driver: driver.remove(game))
    again = start(harness, game)
    assert ask(lambda client: client.status(url(again), game)) == before


def test_what_has_ended_or_is_frozen_can_be_removed(harness: Harness) -> None:
    crashed, frozen = str(uuid.uuid4()), str(uuid.uuid4())
    harness.crash(start(harness, crashed))
    harness.freeze(start(harness, frozen))
    for game in (crashed, frozen):
        run(harness, lambda driver, game=game: driver.remove(game))  # type: ignore[misc]
        assert inspect(harness, game) is None
        assert harness.running(game) == 0


# -- looking


def test_a_crash_is_noticed_and_mended(harness: Harness, game: str) -> None:
    first = start(harness, game)
    before = ask(lambda client: client.init(url(first), game, ["Ada", "Bob"]))
    harness.crash(first)

    def gone() -> bool:
        observed = inspect(harness, game)
        assert observed is not None
        return not observed.is_running

    until(gone)
    assert exit_code(harness, game) == 128 + signal.SIGKILL
    [listed] = run(harness, lambda driver: driver.list())
    assert listed == inspect(harness, game)
    second = start(harness, game)
    assert second.is_running
    assert ask(lambda client: client.status(url(second), game)) == before


def test_a_frozen_engine_is_seen_as_running(harness: Harness, game: str) -> None:
    # Whether it answers is for whoever probes it.
    harness.freeze(start(harness, game))
    observed = inspect(harness, game)
    assert observed is not None
    assert observed.is_running


def test_each_platform_sees_its_own(harness: Harness) -> None:
    games = {stack: str(uuid.uuid4()) for stack in (None, "red", "blue")}
    for stack, game in games.items():
        start(harness, game, stack=stack)
    for stack, game in games.items():
        assert [observed.game_id for observed in run(harness, lambda driver: driver.list(), stack)] == [game]
    red = games["red"]
    assert run(harness, lambda driver: driver.inspect(red), "blue") is None
    assert run(harness, lambda driver: driver.logs(red, 10), "blue") == ""
    run(harness, lambda driver: driver.stop(red, 1), "blue")
    run(harness, lambda driver: driver.remove(red), "blue")
    with pytest.raises(DriverError):
        start(harness, red, 2, stack="blue")
    assert harness.running(red) == 1


def test_the_last_lines_of_the_log(harness: Harness, game: str) -> None:
    observed = start(harness, game)
    ask(lambda client: client.init(url(observed), game, ["Ada"]))

    async def scenario(driver: Driver) -> None:
        text = await driver.logs(game, 100)
        assert "listens on" in text
        assert "/api/v1/admin/init" in text
        assert (await driver.logs(game, 1)).splitlines() == text.splitlines()[-1:]
        assert await driver.logs(game, 0) == ""

    run(harness, scenario)
    stop(harness, game)
    assert "stopped" in run(harness, lambda driver: driver.logs(game, 5))
