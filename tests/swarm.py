"""Swarms for tests: daemons of their own, each in a network namespace, on a switch in another; a pytest plugin.

What a worker does there is done in the network of the engines, as workers and apis are attached to it: `inside` takes the
thread that calls it, and those that it starts, into the namespace of a container that is attached.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import docker
import pytest
from docker.errors import APIError
from docker.models.containers import Container

from tests.docker_daemon import DockerDaemon, OwnDaemon, absent
from tests.services import until

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Swarm(DockerDaemon):
    """A Swarm of one manager and other nodes, with an overlay network and the engine's image on each; `host` is the manager's."""

    driver = "swarm"

    def __init__(self, nodes: int) -> None:
        self._name = f"gx{uuid.uuid4().hex[:6]}"
        self.daemons = [OwnDaemon(f"{self._name}-{number}") for number in range(nodes)]
        self._clients: list[docker.DockerClient] = []
        try:
            self._make()
        except BaseException:
            self.close()
            raise

    def _make(self) -> None:
        self._connect()
        with ThreadPoolExecutor() as threads:
            list(threads.map(OwnDaemon.start, self.daemons))
        self._clients = [docker.DockerClient(base_url=daemon.host) for daemon in self.daemons]
        manager, *others = self._clients
        manager.swarm.init(advertise_addr=_address(0), listen_addr=_address(0))
        token = manager.swarm.attrs["JoinTokens"]["Worker"]
        for number, client in enumerate(others, 1):
            client.swarm.join([_address(0)], token, listen_addr=_address(number), advertise_addr=_address(number))
        self.node_ids = [client.info()["Swarm"]["NodeID"] for client in self._clients]
        super().__init__(self.daemons[0].host, driver="overlay", scope="swarm", attachable=True)
        image = b"".join(self.client.images.get(self.image_ref).save(named=True)) if others else b""
        with ThreadPoolExecutor() as threads:
            list(threads.map(lambda client: client.images.load(image), others))
        self._attached = self.client.containers.create(
            self.image_ref, ["python", "-c", "import time; time.sleep(86400)"], network=self.network, init=True
        )
        self._attached.start()
        self._attached.reload()
        until(
            lambda: [node.attrs["Status"]["State"] for node in self.client.nodes.list()] == ["ready"] * len(self.daemons), 60, 0.1
        )

    def close(self) -> None:
        for client in self._clients:
            client.close()
        with ThreadPoolExecutor() as threads:
            list(threads.map(OwnDaemon.remove, self.daemons))
        for namespace in (self._name, *(daemon.namespace for daemon in self.daemons)):
            if Path("/run/netns", namespace).exists():
                _ip("netns", "delete", namespace)

    def node_of(self, container_id: str) -> int:
        """Return the number of the node that a container runs on."""
        return next(number for number, client in enumerate(self._clients) if _has(client, container_id))

    def lose(self, number: int) -> None:
        """Have a node die, with all that runs on it; it does not come back."""
        pids = [int(found.attrs["State"]["Pid"]) for found in self._clients[number].containers.list()]
        self.daemons[number].kill()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @contextlib.contextmanager
    def unavailable(self, availability: str, *numbers: int) -> Iterator[None]:
        """Have nodes take nothing new for a while, and with `drain`, not `pause`, keep nothing that they have."""
        self._set_availability(availability, numbers)
        try:
            yield
        finally:
            self._set_availability("active", numbers)

    def _set_availability(self, availability: str, numbers: Iterable[int]) -> None:
        def is_set(node_id: str) -> bool:
            node = self.client.nodes.get(node_id)
            try:
                node.update({**node.attrs["Spec"], "Availability": availability})
            except APIError as error:
                # Swarm itself has changed it meanwhile.
                if "out of sequence" not in str(error.explanation):
                    raise
                return False
            return True

        for number in numbers:
            until(lambda node_id=self.node_ids[number]: is_set(node_id))  # type: ignore[misc]

    def containers(self, game_id: str) -> list[Container]:
        """Return the containers of a game that run, on any node that answers."""
        label: dict[str, Any] = {"label": f"galaxy.game_id={game_id}"}
        return [
            container
            for client, daemon in zip(self._clients, self.daemons, strict=True)
            if daemon.is_running
            for container in client.containers.list(filters=label, ignore_removed=True)
        ]

    def container(self, game_id: str) -> Container:
        [container] = self.containers(game_id)
        return container

    def task_state(self, container_id: str) -> str | None:
        """Return what the manager knows of the task that has a container."""
        for task in self.client.api.tasks():  # type: ignore[no-untyped-call]
            if task["Status"].get("ContainerStatus", {}).get("ContainerID") == container_id:
                return str(task["Status"]["State"])
        return None

    def pid(self, container_id: str) -> int:
        client = self._clients[self.node_of(container_id)]
        return int(client.containers.get(container_id).attrs["State"]["Pid"])

    def remove_containers(self, state_root: Path) -> None:
        """Remove every service over a directory of this root, and what is left of it."""
        for service in self.client.services.list():
            mounts = service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"].get("Mounts") or []
            if any(str(mount["Source"]).startswith(f"{state_root}/") for mount in mounts if mount["Type"] == "bind"):
                with contextlib.suppress(APIError):
                    service.remove()  # type: ignore[no-untyped-call]
        for client, daemon in zip(self._clients, self.daemons, strict=True):
            if daemon.is_running:
                for container in client.containers.list(all=True, ignore_removed=True):
                    if any(str(mount.get("Source", "")).startswith(f"{state_root}/") for mount in container.attrs["Mounts"]):
                        with contextlib.suppress(APIError):
                            container.remove(force=True)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """Be in the engines' network for a while."""
        with _in_network_of(self._attached.attrs["State"]["Pid"]):
            yield

    def _connect(self) -> None:
        switch = self._name
        _ip("netns", "add", switch)
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "link", "set", "switch", "up")
        for number, daemon in enumerate(self.daemons):
            _ip("netns", "add", daemon.namespace)
            _ip("-n", switch, "link", "add", f"to{number}", "type", "veth", "peer", "name", "eth0", "netns", daemon.namespace)
            _ip("-n", switch, "link", "set", f"to{number}", "master", "switch", "up")
            _ip("-n", daemon.namespace, "addr", "add", f"{_address(number)}/24", "dev", "eth0")
            for link in ("eth0", "lo"):
                _ip("-n", daemon.namespace, "link", "set", link, "up")


def _address(number: int) -> str:
    return f"10.99.0.{number + 1}"


def _ip(*arguments: Any) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _has(client: docker.DockerClient, container_id: str) -> bool:
    return any(container.id == container_id for container in client.containers.list(all=True, ignore_removed=True))


@contextlib.contextmanager
def _in_network_of(pid: int) -> Iterator[None]:
    with Path("/proc/thread-self/ns/net").open() as before, Path(f"/proc/{pid}/ns/net").open() as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def _swarm(nodes: int) -> Iterator[Swarm]:
    if shutil.which("dockerd") is None or shutil.which("ip") is None or os.geteuid() != 0:
        absent("only root starts a Swarm, where dockerd and ip are installed")
    with contextlib.closing(Swarm(nodes)) as made:
        yield made


@pytest.fixture(scope="session")
def swarm() -> Iterator[Swarm]:
    """One manager, which is all its nodes."""
    yield from _swarm(1)


@pytest.fixture(scope="module")
def swarm_of_three() -> Iterator[Swarm]:
    """A manager and two other nodes."""
    yield from _swarm(3)
