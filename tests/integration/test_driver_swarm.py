"""The swarm driver's own: what a service is made of, what is no start, and games over nodes that drain, die and come back."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.docker_daemon import own_stack
from tests.services import until
from tests.swarm import Swarm
from workers.runtime.daemon import UNPRIVILEGED
from workers.runtime.driver import ConfigInvalid, DriverUnavailable, Observed, Spec, StartFailed
from workers.runtime.swarm_driver import SwarmDriver

T = TypeVar("T")

pytestmark = pytest.mark.xdist_group("swarm")


class World:
    """A platform of its own on a Swarm."""

    def __init__(self, swarm: Swarm, directory: Path) -> None:
        self.swarm = swarm
        self.root = directory / "games"
        self.stack = own_stack()

    def run(self, use: Callable[[SwarmDriver], Awaitable[T]], **more: str) -> T:
        async def scenario() -> T:
            driver = SwarmDriver(self.swarm.config(self.root, self.stack, **more), start_timeout=10)
            try:
                return await use(driver)
            finally:
                await driver.close()

        return asyncio.run(scenario())

    def start(self, game: str, image_ref: str | None = None, **more: str) -> Observed:
        spec = Spec(game, 1, "1.0.0", image_ref or self.swarm.image_ref)
        return self.run(lambda driver: driver.start(spec), **more)

    def inspect(self, game: str) -> Observed | None:
        return self.run(lambda driver: driver.inspect(game))

    def service(self, game: str) -> dict[str, Any]:
        return dict(self.swarm.client.services.get(f"galaxy-game-{game}").attrs["Spec"])  # type: ignore[no-untyped-call]


@pytest.fixture
def world(swarm: Swarm, tmp_path: Path) -> Iterator[World]:
    made = World(swarm, tmp_path)
    try:
        with swarm.inside():
            yield made
    finally:
        swarm.remove_containers(made.root)


@pytest.fixture
def game() -> str:
    return str(uuid.uuid4())


# -- the service


def test_of_several_engines_one_is_left(world: World, game: str) -> None:
    world.start(game)
    world.swarm.client.services.get(f"galaxy-game-{game}").scale(2)  # type: ignore[no-untyped-call]
    assert world.service(game)["Mode"] == {"Replicated": {"Replicas": 2}}
    (found,) = world.run(lambda driver: driver.list())
    assert found.game_id == game
    assert world.service(game)["Mode"] == {"Replicated": {"Replicas": 1}}
    until(lambda: len(world.swarm.containers(game)) == 1)


@pytest.mark.parametrize("replicas", [0, 3])
def test_a_start_ends_what_was_scaled_by_hand(world: World, game: str, replicas: int) -> None:
    world.start(game)
    world.swarm.client.services.get(f"galaxy-game-{game}").scale(replicas)  # type: ignore[no-untyped-call]
    assert world.start(game).is_running
    assert len(world.swarm.containers(game)) == 1


def test_a_service_is_made_as_hard_as_swarm_can(world: World, game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "3")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    world.start(
        game,
        BACKEND_RUNTIME_CONTAINER_CPU_QUOTA="0.5",
        BACKEND_RUNTIME_CONTAINER_MEMORY="96m",
        BACKEND_RUNTIME_CONTAINER_PIDS_LIMIT="32",
        BACKEND_RUNTIME_CONTAINER_LOG_OPTS="max-size=1m,max-file=2",
        BACKEND_RUNTIME_CONTAINER_STATE_MOUNT="/state",
        BACKEND_RUNTIME_STOP_GRACE_PERIOD="1500ms",
    )
    labels = {
        "galaxy.backend": "1",
        "galaxy.game_id": game,
        "galaxy.engine_version": "1.0.0",
        "galaxy.generation": "1",
        "galaxy.stack": world.stack,
    }
    service = world.service(game)
    assert service["Labels"] == labels
    assert service["Mode"] == {"Replicated": {"Replicas": 1}}
    assert service["UpdateConfig"]["Order"] == "stop-first"
    assert service["EndpointSpec"] == {"Mode": "dnsrr"}
    assert service["TaskTemplate"]["Placement"]["Constraints"] == [f"node.id=={world.swarm.node_ids[0]}"]
    made = world.swarm.container(game).attrs
    host, config = made["HostConfig"], made["Config"]
    assert config["Hostname"] == f"galaxy-game-{game}"
    assert {name: value for name, value in config["Labels"].items() if name.startswith("galaxy.")} == labels
    assert [(m["Source"], m["Destination"], m["RW"]) for m in made["Mounts"] if m["Type"] == "bind"] == [
        (str(world.root / game), "/state", True)
    ]
    assert (host["NanoCpus"], host["Memory"], host["PidsLimit"]) == (5 * 10**8, 96 << 20, 32)
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert host["ReadonlyRootfs"]
    assert not host["PortBindings"]
    assert config["StopSignal"] == "SIGTERM"
    assert service["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 2 * 10**9
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert list(made["NetworkSettings"]["Networks"]) == [world.swarm.network]
    assert {"GALAXY_ENGINE_STATE_DIR=/state", "GALAXY_ENGINE_LAST_TURN=3"} <= set(config["Env"])
    assert not any("secret" in variable for variable in config["Env"])
    process = Path(f"/proc/{made['State']['Pid']}")
    told = {
        name: rest.split() for name, _, rest in (line.partition(":") for line in (process / "status").read_text().splitlines())
    }
    assert set(told["Uid"]) == {str(os.geteuid() or UNPRIVILEGED)}
    assert {told[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    [tmpfs] = [line for line in (process / "mountinfo").read_text().splitlines() if line.split()[4] == "/tmp"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(tmpfs.split()[5].split(","))


@pytest.mark.parametrize(
    "variables",
    [
        {"BACKEND_DOCKER_NETWORK": "there-is-no-such-network"},
        {"BACKEND_DOCKER_NETWORK": "none"},
        {"BACKEND_RUNTIME_CONTAINER_LOG_OPTS": "no-such-option=1"},
        {"BACKEND_GAME_STATE_ROOT": "/dev/null/games"},
    ],
)
def test_what_cannot_work_is_a_wrong_configuration(world: World, game: str, variables: dict[str, str]) -> None:
    with pytest.raises((ConfigInvalid, StartFailed)):
        world.start(game, **variables)
    observed = world.inspect(game)
    assert observed is None or not observed.is_running


def test_a_daemon_that_is_in_no_swarm_is_to_be_asked_again(world: World, game: str, own_daemon: Any) -> None:
    with pytest.raises(DriverUnavailable, match="swarm manager"):
        world.run(lambda driver: driver.inspect(game), BACKEND_DOCKER_HOST=own_daemon.host)


@pytest.mark.parametrize("code", [0, 3])
def test_an_engine_that_ends_at_once_is_no_start_and_is_left_stopped(world: World, game: str, code: int) -> None:
    image_ref = world.swarm.image(f"exit-{code}", "-c", f"print('so it ends'); raise SystemExit({code})")
    with pytest.raises(StartFailed, match="so it ends"):
        world.start(game, image_ref)
    observed = world.inspect(game)
    assert observed is not None
    assert (observed.is_running, observed.exit_code) == (False, code)


def test_a_name_that_somebody_else_has_is_left_to_them(world: World, game: str) -> None:
    other: Any = world.swarm.client.services.create(world.swarm.image_ref, name=f"galaxy-game-{game}", mode="global")  # type: ignore[no-untyped-call]
    try:
        with pytest.raises(StartFailed, match="is taken"):
            world.start(game)
        assert world.inspect(game) is None
        world.run(lambda driver: driver.remove(game))
        other.reload()
    finally:
        other.remove()
