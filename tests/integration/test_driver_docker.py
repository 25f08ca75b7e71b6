"""The docker driver's own: what a container is made of, what the daemon does by itself, one that goes away, workers that die."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

import httpx
import pytest

from app.config import Config
from tests.docker_daemon import HOST, DockerDaemon, own_stack
from tests.services import until
from workers.runtime.daemon import UNPRIVILEGED
from workers.runtime.docker_driver import DockerDriver
from workers.runtime.driver import ConfigInvalid, DriverUnavailable, ImagePullFailed, Observed, Spec, StartFailed

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.xdist_group("docker")


class World:
    """A platform of its own on the daemon."""

    def __init__(self, daemon: DockerDaemon, directory: Path) -> None:
        self.daemon = daemon
        self.root = directory / "games"
        self.stack = own_stack()
        self.start_timeout = 30.0

    def config(self, **more: str) -> Config:
        return self.daemon.config(self.root, self.stack, **more)

    def run(self, use: Callable[[DockerDriver], Awaitable[T]], **more: str) -> T:
        async def scenario() -> T:
            driver = DockerDriver(self.config(**more), start_timeout=self.start_timeout)
            try:
                return await use(driver)
            finally:
                await driver.close()

        return asyncio.run(scenario())

    def start(self, game: str, generation: str = "1", image_ref: str | None = None, **more: str) -> Observed:
        spec = Spec(game, int(generation), "1.0.0", image_ref or self.daemon.image_ref)
        return self.run(lambda driver: driver.start(spec), **more)

    def inspect(self, game: str) -> Observed | None:
        return self.run(lambda driver: driver.inspect(game))


@pytest.fixture
def world(docker_daemon: DockerDaemon, tmp_path: Path) -> Iterator[World]:
    made = World(docker_daemon, tmp_path)
    try:
        yield made
    finally:
        docker_daemon.remove_containers(made.root)


@pytest.fixture
def game() -> str:
    return str(uuid.uuid4())


def healthy(observed: Observed | None) -> bool:
    if observed is None or observed.endpoint is None:
        return False
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{observed.endpoint}/healthz", trust_env=False, timeout=5).status_code == 200
    return False


# -- the container


def test_a_container_is_made_as_hard_as_it_can_be(world: World, game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "3")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    world.start(
        game,
        BACKEND_RUNTIME_CONTAINER_CPU_QUOTA="0.5",
        BACKEND_RUNTIME_CONTAINER_MEMORY="96m",
        BACKEND_RUNTIME_CONTAINER_PIDS_LIMIT="32",
        BACKEND_RUNTIME_CONTAINER_LOG_OPTS="max-size=1m,max-file=2",
        BACKEND_RUNTIME_CONTAINER_STATE_MOUNT="/state",
    )
    made = world.daemon.container(game).attrs
    host, config = made["HostConfig"], made["Config"]
    assert (made["Name"], config["Hostname"]) == (f"/galaxy-game-{game}", f"galaxy-game-{game}")
    assert {name: value for name, value in config["Labels"].items() if name.startswith("galaxy.")} == {
        "galaxy.backend": "1",
        "galaxy.game_id": game,
        "galaxy.engine_version": "1.0.0",
        "galaxy.generation": "1",
        "galaxy.stack": world.stack,
    }
    assert [(m["Source"], m["Destination"], m["RW"]) for m in made["Mounts"]] == [(str(world.root / game), "/state", True)]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (5 * 10**8, 96 << 20, 96 << 20, 32)
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert (host["CapDrop"], host["CapAdd"], host["Privileged"]) == (["ALL"], None, False)
    assert (host["ReadonlyRootfs"], list(host["Tmpfs"])) == (True, ["/tmp"])
    assert not host["PortBindings"]
    assert not host["PublishAllPorts"]
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}
    assert list(made["NetworkSettings"]["Networks"]) == [world.daemon.network]
    assert {"GALAXY_ENGINE_STATE_DIR=/state", "GALAXY_ENGINE_LAST_TURN=3"} <= set(config["Env"])
    assert not any("secret" in variable for variable in config["Env"])


def test_an_engine_has_no_rights_and_only_its_own_files(world: World, game: str) -> None:
    observed = world.start(game)
    status = Path(f"/proc/{world.daemon.pid(observed.container_id)}/status").read_text()
    told = {name: rest.split() for name, _, rest in (line.partition(":") for line in status.splitlines())}
    uid = os.geteuid() or UNPRIVILEGED
    assert set(told["Uid"]) == {str(uid)}
    assert {told[name][0] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert told["NoNewPrivs"] == ["1"]
    found = (world.root / game).stat()
    assert (found.st_uid, oct(found.st_mode)[-3:]) == (uid, "700")


@pytest.mark.parametrize(
    "variables",
    [
        {"BACKEND_DOCKER_NETWORK": "there-is-no-such-network"},
        {"BACKEND_RUNTIME_CONTAINER_LOG_OPTS": "no-such-option=1"},
        {"BACKEND_GAME_STATE_ROOT": "/dev/null/games"},
    ],
)
def test_what_cannot_work_is_a_wrong_configuration(world: World, game: str, variables: dict[str, str]) -> None:
    with pytest.raises((ConfigInvalid, StartFailed)):
        world.start(game, **variables)
    observed = world.inspect(game)
    assert observed is None or not observed.is_running


# -- images


def test_pull_policies(world: World, game: str) -> None:
    def pull(image_ref: str, policy: str) -> None:
        world.run(lambda driver: driver.pull(image_ref), BACKEND_RUNTIME_IMAGE_PULL_POLICY=policy)

    missing = "127.0.0.1:1/galaxy/engine:1.0.0"
    for policy in ("if_missing", "never"):
        pull(world.daemon.image_ref, policy)
    for policy in ("if_missing", "never", "always"):
        with pytest.raises(ImagePullFailed):
            pull(missing, policy)
    world.daemon.client.images.get(world.daemon.image_ref).tag("127.0.0.1:1/galaxy/engine", "2.0.0")
    try:
        pull("127.0.0.1:1/galaxy/engine:2.0.0", "if_missing")
        with pytest.raises(ImagePullFailed):
            pull("127.0.0.1:1/galaxy/engine:2.0.0", "always")
    finally:
        world.daemon.client.images.remove("127.0.0.1:1/galaxy/engine:2.0.0")


# -- what the daemon does by itself


def test_an_engine_that_dies_by_itself_is_started_again_by_the_daemon(world: World, game: str) -> None:
    first = world.start(game)
    os.kill(world.daemon.pid(first.container_id), signal.SIGKILL)
    until(lambda: world.daemon.container(game).attrs["RestartCount"] == 1 and healthy(world.inspect(game)))
    second = world.inspect(game)
    assert second is not None
    assert second.container_id == first.container_id


@pytest.mark.parametrize("code", [0, 1, 137])
def test_an_engine_that_ends_at_once_is_no_start_and_is_left_stopped(world: World, game: str, code: int) -> None:
    image_ref = world.daemon.image(f"exit-{code}", "-c", f"print('so it ends'); raise SystemExit({code})")
    with pytest.raises(StartFailed, match="so it ends"):
        world.start(game, image_ref=image_ref)
    observed = world.inspect(game)
    assert observed is not None
    assert not observed.is_running
    # Where the daemon had started it again by then, it was killed.
    assert observed.exit_code in (code, 128 + signal.SIGKILL)


def test_an_engine_that_takes_too_much_memory_is_no_start(world: World, game: str) -> None:
    image_ref = world.daemon.image("greedy", "-c", "x = []\nwhile True: x.append(bytes(1 << 20) + b'x')")
    with pytest.raises(StartFailed, match="has ended"):
        world.start(game, image_ref=image_ref, BACKEND_RUNTIME_CONTAINER_MEMORY="32m")
    observed = world.inspect(game)
    assert observed is not None
    assert (observed.is_running, observed.exit_code) == (False, 128 + signal.SIGKILL)


def test_an_engine_that_never_listens_is_stopped(world: World, game: str) -> None:
    image_ref = world.daemon.image("deaf", "-c", "import time; time.sleep(600)")
    world.start_timeout = 1
    with pytest.raises(StartFailed, match=r"did not listen within 1 s"):
        world.start(game, image_ref=image_ref)
    observed = world.inspect(game)
    assert observed is not None
    assert not observed.is_running


def test_a_name_that_somebody_else_has_is_left_to_them(world: World, game: str) -> None:
    other = world.daemon.client.containers.create(world.daemon.image_ref, name=f"galaxy-game-{game}")
    try:
        with pytest.raises(StartFailed, match="is taken"):
            world.start(game)
        assert world.inspect(game) is None
        world.run(lambda driver: driver.remove(game))
        other.reload()
    finally:
        other.remove(force=True)


# -- a daemon that goes away


class Gate:
    """A way to the daemon that can be shut."""

    def __init__(self, path: Path) -> None:
        self.host = f"unix://{path}"
        self._path = path
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None

    def open(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Have the daemon gone: its socket, and every connection."""
        assert self._listener is not None
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._path.unlink()
        while self._open:
            end = self._open.pop()
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(urlsplit(HOST).path)
            self._open += [near, far]
            for source, target in ((near, far), (far, near)):
                threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@pytest.mark.skipif(not HOST.startswith("unix://"), reason="the daemon has no socket of this machine")
def test_a_daemon_that_goes_away_and_comes_back(world: World, game: str, tmp_path: Path) -> None:
    gate = Gate(Path(os.path.relpath(tmp_path)) / "gate" if len(str(tmp_path)) > 90 else tmp_path / "gate")
    spec = Spec(game, 1, "1.0.0", world.daemon.image_ref)

    async def scenario() -> None:
        driver = DockerDriver(world.config(BACKEND_DOCKER_HOST=gate.host))
        uses: list[Callable[[], Awaitable[object]]] = [
            lambda: driver.pull(spec.image_ref),
            lambda: driver.start(spec),
            lambda: driver.inspect(game),
            lambda: driver.list(),
            lambda: driver.logs(game, 10),
            lambda: driver.stop(game, 1),
            lambda: driver.remove(game),
        ]
        try:
            for _ in range(2):
                # Not there from the beginning; and gone again.
                for use in uses:
                    with pytest.raises(DriverUnavailable):
                        await use()
                gate.open()
                observed = await driver.start(spec)
                assert healthy(observed)
                assert await driver.list() == [observed]
                gate.shut()
                assert healthy(observed)
        finally:
            await driver.close()

    asyncio.run(scenario())


# -- workers that die

# It imports once, and for each line forks workers: each does one thing, and dies after so many requests to the daemon.
_WORKERS = """
import asyncio, json, os, signal, sys
import requests
from app import config
from workers.runtime.docker_driver import DockerDriver
from workers.runtime.driver import Spec

async def work(game, what, generation, image_ref):
    driver = DockerDriver(config.load(os.environ))
    if what == "start":
        await driver.start(Spec(game, generation, "1.0.0", image_ref))
    elif what == "stop":
        await driver.stop(game, 5)
    else:
        await driver.remove(game)
    await driver.close()

# It dies after each request that changes something, and after the first of each kind of look.
left = 0
seen = set()
send = requests.Session.send
def counted(self, request, **more):
    global left
    answer = send(self, request, **more)
    step = request.method, request.url.split("?")[0]
    if request.method != "GET" or step not in seen:
        seen.add(step)
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    return answer
requests.Session.send = counted

for line in sys.stdin:
    children = []
    for *task, die_at in json.loads(line):
        children.append(os.fork())
        if children[-1] == 0:
            left = die_at
            asyncio.run(work(*task))
            os._exit(0)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


class Workers:
    """Workers of a platform, in processes of their own."""

    def __init__(self, world: World) -> None:
        self._image_ref = world.daemon.image_ref
        environment = {
            "BACKEND_POSTGRES_DSN": "postgresql:///?search_path=backend",
            "BACKEND_SMTP_HOST": "127.0.0.1",
            "BACKEND_SMTP_FROM": "noreply@galaxy.example",
            "BACKEND_GEOIP_DB_PATH": "/nonexistent/geo.mmdb",
            **world.daemon.environment(world.root, world.stack),
        }
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKEND_")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WORKERS],
            cwd=ROOT,
            env=clean | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self._process.communicate(timeout=60)

    def do(self, game: str, what: str, generation: int, die_at: int, workers: int = 1) -> bool:
        """Have workers do something at once, and each die at a step; return whether they came so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([[game, what, generation, self._image_ref, die_at]] * workers) + "\n")
        self._process.stdin.flush()
        [code] = set(json.loads(self._process.stdout.readline()))
        assert code in (0, -signal.SIGKILL)
        return bool(code)


@pytest.fixture
def workers(world: World) -> Iterator[Workers]:
    with contextlib.closing(Workers(world)) as made:
        yield made


@pytest.mark.parametrize("what", ["start", "replace", "start again", "stop", "remove"])
def test_a_worker_that_dies_at_any_request_leaves_what_the_next_one_can_go_on_from(
    world: World, workers: Workers, what: str
) -> None:
    step = 0
    has_died = True
    while has_died:
        step += 1
        game = str(uuid.uuid4())
        generation = 2 if what == "replace" else 1
        if what != "start":
            world.start(game)
        if what == "start again":
            world.run(lambda driver, game=game: driver.stop(game, 0))  # type: ignore[misc]
        has_died = workers.do(game, what if what in ("stop", "remove") else "start", generation, step)
        assert len(world.daemon.client.containers.list(all=True, filters={"label": f"galaxy.game_id={game}"})) <= 1
        if what == "stop":
            world.run(lambda driver, game=game: driver.stop(game, 0))  # type: ignore[misc]
            left = world.inspect(game)
            assert left is not None
            assert not left.is_running
        elif what == "remove":
            world.run(lambda driver, game=game: driver.remove(game))  # type: ignore[misc]
            assert world.inspect(game) is None
        else:
            observed = world.start(game, str(generation))
            assert observed.generation == generation
            assert healthy(observed)
        world.run(lambda driver, game=game: driver.remove(game))  # type: ignore[misc]
    # Every step was one: a start looks at the image, the network and the container, makes it, starts it, looks again.
    assert step > {"start": 7, "replace": 9, "start again": 4, "stop": 3, "remove": 3}[what]


def test_workers_that_start_one_game_at_the_same_time_make_one_container(world: World, workers: Workers, game: str) -> None:
    assert not workers.do(game, "start", 1, 0, workers=4)
    assert len(world.daemon.client.containers.list(all=True, filters={"label": f"galaxy.game_id={game}"})) == 1
    assert healthy(world.inspect(game))


def test_a_container_whose_network_was_made_anew_is_made_anew(world: World, game: str) -> None:
    network = f"galaxy-test-{uuid.uuid4().hex[:12]}"

    def start() -> Observed:
        return world.start(game, BACKEND_DOCKER_NETWORK=network)

    made = world.daemon.client.networks.create(network)
    try:
        first = start()
        world.run(lambda driver: driver.stop(game, 1))
        # What is stopped keeps no network; by its name there is another.
        made.remove()
        made = world.daemon.client.networks.create(network)
        second = start()
        assert healthy(second)
        assert second.container_id != first.container_id
    finally:
        world.daemon.remove_containers(world.root)
        made.remove()


def test_closing_a_driver_ends_its_waiting_and_leaves_the_engine(world: World, game: str) -> None:
    image_ref = world.daemon.image("slow", "-c", "import time; time.sleep(600)")

    async def scenario() -> None:
        driver = DockerDriver(world.config())
        starting = asyncio.create_task(driver.start(Spec(game, 1, "1.0.0", image_ref)))
        deadline = time.monotonic() + 20
        while (seen := await driver.inspect(game)) is None or not seen.is_running:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await driver.close()
        with pytest.raises(DriverUnavailable, match="closed"):
            await starting

    asyncio.run(scenario())
    observed = world.inspect(game)
    assert observed is not None
    assert observed.is_running
