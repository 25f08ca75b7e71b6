"""A Docker daemon for tests: the one of DOCKER_HOST, else this machine's; a pytest plugin beside tests.services.

On CI a daemon that is missing is a failure; elsewhere what needs one is skipped. Tests that use it are of the xdist group
`docker`: one worker of the run makes the image, where the daemon has none of the same content, and the network. A test that
has a daemon go away has one of its own.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import docker
import pytest
import requests
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from app import config as configuration
from app.config import Config
from dev.engine_image import build
from tests.services import until
from workers.runtime import daemon as _daemon  # noqa: F401  # with it, clients leave no socket open where nobody listens

HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


def own_stack() -> str:
    """Return a label for a platform of its own: of one with the same the other's engines are unwanted, and taken away."""
    return f"test-{uuid.uuid4()}"


class DockerDaemon:
    """What tests need of a daemon: a network of their own, and an image of the development engine."""

    driver = "docker"

    def __init__(self, host: str, **network: Any) -> None:
        """Raises DockerException or requests.RequestException when it cannot be asked."""
        self.host = host
        self.client = docker.DockerClient(base_url=host)
        self.image_ref = build(self.client, without_registry=True)
        self._network = self.client.networks.create(f"galaxy-test-{uuid.uuid4().hex[:12]}", **network)
        self.network = self._network.name or ""
        self._made: set[str] = set()

    def close(self) -> None:
        """Remove what was made; the development engine's image stays."""
        for name in self._made:
            self.client.images.remove(name, force=True)
        self._network.remove()
        self.client.close()

    def environment(self, state_root: Path, stack: str) -> dict[str, str]:
        """What a program must be told to run engines here."""
        return {
            "BACKEND_RUNTIME_DRIVER": self.driver,
            "BACKEND_DOCKER_HOST": self.host,
            "BACKEND_DOCKER_NETWORK": self.network,
            "BACKEND_GAME_STATE_ROOT": str(state_root),
            "BACKEND_STACK_LABEL": stack,
        }

    def config(self, state_root: Path, stack: str, **more: str) -> Config:
        return configuration.load(
            {
                "BACKEND_POSTGRES_DSN": "postgresql:///?search_path=backend",
                "BACKEND_SMTP_HOST": "127.0.0.1",
                "BACKEND_SMTP_FROM": "noreply@galaxy.example",
                "BACKEND_GEOIP_DB_PATH": "/nonexistent/geo.mmdb",
                **self.environment(state_root, stack),
                **more,
            }
        )

    def image(self, name: str, *arguments: str) -> str:
        """Make an image that runs Python with other arguments than the development engine's, and return its reference."""
        container = self.client.containers.create(self.image_ref)
        try:
            interpreter = container.attrs["Config"]["Cmd"][0]
            container.commit(repository=f"test-{name}", tag="1", conf={"Cmd": [interpreter, *arguments]})
        finally:
            container.remove()
        self._made.add(f"test-{name}:1")
        return f"test-{name}:1"

    def container(self, game_id: str) -> Container:
        return self.client.containers.get(f"galaxy-game-{game_id}")

    def pid(self, container_id: str) -> int:
        """Return the process id of an engine, on the machine of the daemon: ours."""
        return int(self.client.containers.get(container_id).attrs["State"]["Pid"])

    def remove_containers(self, state_root: Path) -> None:
        """Remove every container over a directory of this root, whoever made it."""
        for container in self.client.containers.list(all=True, ignore_removed=True):
            if any(str(mount.get("Source", "")).startswith(f"{state_root}/") for mount in container.attrs["Mounts"]):
                with contextlib.suppress(APIError):
                    container.remove(force=True)


def absent(why: str) -> NoReturn:
    """Docker is not there: a failure on CI, elsewhere not."""
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture(scope="session")
def docker_daemon() -> Iterator[DockerDaemon]:
    try:
        with contextlib.closing(docker.DockerClient(base_url=HOST)) as client:
            client.ping()
    except (DockerException, requests.RequestException) as error:
        absent(f"there is no Docker daemon at {HOST}: {error}")
    daemon = DockerDaemon(HOST)
    try:
        yield daemon
    finally:
        daemon.close()


class OwnDaemon:
    """A daemon of a test's own, to be stopped and started; in a network namespace, if one is named."""

    def __init__(self, namespace: str = "") -> None:
        self.namespace = namespace
        # Not in pytest's directory: the path of a socket is short.
        self._root = Path(tempfile.mkdtemp(prefix="galaxy-docker-"))
        self.host = f"unix://{self._root}/socket"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = {"data-root": "data", "exec-root": "exec", "pidfile": "pid"}
        command = ["dockerd", "--host", self.host, "--bridge=none", "--iptables=false", "--ip6tables=false"]
        if self.namespace:
            # `ip netns exec` would mount /sys anew, without the control groups.
            command = ["nsenter", f"--net=/run/netns/{self.namespace}", *command]
        with (self._root / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *(f"--{option}={self._root / name}" for option, name in where.items())], stdout=log, stderr=log
            )
        until(self._answers, 60, 0.1)

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def stop(self) -> None:
        """Stop it, and with it every container."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it; containers go on."""
        self._end(signal.SIGKILL)
        # Its containerd dies with it. The next one must not take for alive what only nobody has taken note of.
        for name in ("pid", "exec/containerd/containerd.pid"):
            (self._root / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """End it, and leave nothing of it."""
        if self._process is None:
            # It is not to look for its Swarm any more.
            shutil.rmtree(self._root / "data" / "swarm", ignore_errors=True)
            self.start()
        try:
            with contextlib.closing(docker.DockerClient(base_url=self.host)) as client:
                client.swarm.leave(force=True)
                for container in client.containers.list(all=True, ignore_removed=True):
                    # Its Swarm may be removing it as well.
                    with contextlib.suppress(APIError):
                        container.remove(force=True)
        finally:
            self.stop()
        # One that was killed has left things mounted: its data over themselves, the networks of its containers.
        for mounted in reversed(_mounts_below(self._root)):
            subprocess.run(["umount", "--lazy", mounted], check=True, capture_output=True)
        shutil.rmtree(self._root)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._root / "log").read_text()
        try:
            with contextlib.closing(docker.DockerClient(base_url=self.host)) as client:
                return bool(client.ping())
        except (DockerException, requests.RequestException):
            return False


def _mounts_below(directory: Path) -> list[str]:
    """Return what is mounted there, in the order in which it was."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [path for path in mounted if path.startswith(f"{directory}/")]


@pytest.fixture
def own_daemon() -> Iterator[OwnDaemon]:
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        absent("only root starts a Docker daemon, where dockerd is installed")
    daemon = OwnDaemon()
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.remove()
