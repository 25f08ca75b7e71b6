"""The driver that runs engines as containers of a Docker daemon.

Of an engine, the daemon tells everything: its container's name is the game's, so there is never a second one, and labels
say whose it is and of which generation. What is done to a container is done to it by its id: a worker that is slow never
touches the one that has come after. So whatever step a worker dies at, the next one finds the engine, or that there is none.

A daemon that cannot be asked is `DriverUnavailable`: its engines may well go on.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import math
import os
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, InvalidRepository, NotFound
from docker.models.containers import Container
from docker.models.images import Image
from docker.transport import unixconn
from docker.types import LogConfig, Mount
from docker.utils import parse_repository_tag

from app.config import Config
from workers.runtime.driver import (
    ConfigInvalid,
    Driver,
    DriverError,
    DriverUnavailable,
    ImagePullFailed,
    Observed,
    Spec,
    StartFailed,
    Superseded,
)

log = logging.getLogger("galaxy.runtime")

ENGINE_PORT = 8080
UNPRIVILEGED = 65532
"""The uid and gid of an engine whose image names none, or root."""
LARGEST_LOG = 1 << 20

_POLL = 0.05
_REQUEST_TIMEOUT = 60
_PULL_TIMEOUT = 600
_CONNECT_TIMEOUT = 1.0
# Others may remove or make the container while we look at it, each time anew.
_TRIES = 8
_ENGINE_PREFIX = "GALAXY_ENGINE_"
_RESTART_POLICY: Any = {"Name": "unless-stopped"}


class _Connection(unixconn.UnixHTTPConnection):
    """docker-py's, but for the socket that it leaves open where nobody listens: a daemon may be away for long."""

    def connect(self) -> None:
        connecting = socket.socket(socket.AF_UNIX)
        try:
            connecting.settimeout(self.timeout)
            connecting.connect(self.unix_socket)
        except BaseException:
            connecting.close()
            raise
        self.sock = connecting


unixconn.UnixHTTPConnection = _Connection  # type: ignore[misc]


class DockerDriver(Driver):
    """Runs engines on the daemon at `host`, reached over `network`; those of another stack label are not ours.

    An engine must listen within `start_timeout` seconds. The network is there beforehand.
    """

    def __init__(self, config: Config, *, start_timeout: float = 30.0) -> None:
        self._config = config
        self._network = config.docker_network or ""
        self._stack = config.stack_label
        self._start_timeout = start_timeout
        self._closing = threading.Event()
        self._client: docker.DockerClient | None = None
        self._is_on_the_network = False
        self._connecting = threading.Lock()

    async def pull(self, image_ref: str) -> None:
        await asyncio.to_thread(self._pull, image_ref)

    async def start(self, spec: Spec) -> Observed:
        return await asyncio.to_thread(self._start, spec)

    async def stop(self, game_id: str, grace: float) -> None:
        await asyncio.to_thread(self._stop, game_id, grace)

    async def remove(self, game_id: str) -> None:
        await asyncio.to_thread(self._remove, game_id)

    async def inspect(self, game_id: str) -> Observed | None:
        return await asyncio.to_thread(self._inspect, game_id)

    async def list(self) -> list[Observed]:
        return await asyncio.to_thread(self._list)

    async def logs(self, game_id: str, lines: int) -> str:
        return await asyncio.to_thread(self._logs, game_id, lines)

    async def close(self) -> None:
        """Make whatever waits for an engine give up, and close the connections; engines go on."""
        self._closing.set()
        with self._connecting:
            if self._client is not None:
                self._client.close()
                self._client = None

    # -- what the calls do, each in a thread

    def _pull(self, image_ref: str) -> None:
        with self._daemon() as client:
            if self._config.runtime_image_pull_policy != "always":
                if _image(client, image_ref) is not None:
                    return
                if self._config.runtime_image_pull_policy == "never":
                    raise ImagePullFailed(f"{image_ref[:200]!r} is not there, and is not to be pulled")
            repository, tag = parse_repository_tag(image_ref)
            until = time.monotonic() + _PULL_TIMEOUT
            try:
                for step in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                    if "error" in step:
                        raise ImagePullFailed(f"{image_ref[:200]!r}: {str(step['error'])[:300]}")
                    if time.monotonic() > until or self._closing.is_set():
                        raise DriverUnavailable(f"{image_ref[:200]!r} is still being pulled")
            except (APIError, InvalidRepository) as error:
                raise ImagePullFailed(f"{image_ref[:200]!r}: {_said(error)}") from error

    def _start(self, spec: Spec) -> Observed:
        _require_game_id(spec.game_id)
        with self._daemon() as client:
            for _ in range(_TRIES):
                try:
                    container = self._wanted(client, spec)
                    if container is not None:
                        return self._wait_until_it_listens(container)
                except NotFound:
                    continue  # somebody has removed it
            raise DriverUnavailable("others make and remove this game's container all the time")

    def _wanted(self, client: docker.DockerClient, spec: Spec) -> Container | None:
        """Return the container of the spec, started; None if another look is needed."""
        container = self._named(client, spec.game_id)
        if container is None:
            container = self._create(client, spec)
        elif not self._is_ours(container):
            raise StartFailed(f"the name {container.name} is taken by a container that is not ours")
        elif (generation := _observed_generation(container)) > spec.generation:
            raise Superseded(f"generation {generation} is newer than {spec.generation}")
        elif generation < spec.generation:
            log.info("engine replaced", extra={"game_id": spec.game_id, "generation": generation})
            _end(container, self._config.runtime_stop_grace_period)
            self._discard(container)
            return None
        if container is not None and not container.attrs["State"]["Running"]:
            try:
                container.start()
            except APIError as error:
                # Removed meanwhile, or made for what is not there any more, such as a network: then another is made.
                self._discard(container)
                if isinstance(error, NotFound):
                    return None
                raise StartFailed(f"the container cannot be started: {_said(error)}") from error
            log.info("engine started", extra={"game_id": spec.game_id, "generation": spec.generation})
        return container

    def _create(self, client: docker.DockerClient, spec: Spec) -> Container | None:
        """Return a new container that has not been started; None if another has its name meanwhile."""
        config = self._config
        image = _image(client, spec.image_ref)
        if image is None:
            raise ImagePullFailed(f"{spec.image_ref[:200]!r} is not there")
        try:
            client.networks.get(self._network)
        except NotFound:
            raise ConfigInvalid(f"there is no network {self._network!r}") from None
        user = _user(image.attrs["Config"].get("User") or "")
        directory = self._make_state_directory(spec.game_id, *user)
        labels = {
            "galaxy.backend": "1",
            "galaxy.game_id": spec.game_id,
            "galaxy.engine_version": spec.engine_version,
            "galaxy.generation": str(spec.generation),
        }
        if self._stack is not None:
            labels["galaxy.stack"] = self._stack
        mount = config.runtime_container_state_mount
        name = _container_name(spec.game_id)
        try:
            return client.containers.create(
                image,
                name=name,
                hostname=name,
                labels=labels,
                environment={name: value for name, value in os.environ.items() if name.startswith(_ENGINE_PREFIX)}
                | {
                    "GALAXY_ENGINE_STATE_DIR": mount,
                    "GALAXY_ENGINE_HOST": "0.0.0.0",  # noqa: S104  # of the container
                    "GALAXY_ENGINE_PORT": str(ENGINE_PORT),
                    "GALAXY_ENGINE_VERSION": spec.engine_version,
                },
                mounts=[Mount(target=mount, source=str(directory), type="bind")],
                network=self._network,
                user=f"{user[0]}:{user[1]}",
                nano_cpus=round(config.runtime_container_cpu_quota * 10**9),
                mem_limit=config.runtime_container_memory,
                # With as much again of swap, which is Docker's default, the limit would be none.
                memswap_limit=config.runtime_container_memory,
                pids_limit=config.runtime_container_pids_limit,
                security_opt=["no-new-privileges:true"],
                cap_drop=["ALL"],
                read_only=True,
                tmpfs={"/tmp": "rw,noexec,nosuid,nodev,size=64m,mode=1777"},  # noqa: S108  # of the container
                stop_signal="SIGTERM",
                restart_policy=_RESTART_POLICY,
                log_config=LogConfig(
                    type=config.runtime_container_log_driver,
                    config={key: str(value) for key, value in config.runtime_container_log_opts},
                ),
            )
        except ImageNotFound as error:
            raise ImagePullFailed(f"{spec.image_ref[:200]!r}: {_said(error)}") from error
        except APIError as error:
            if error.status_code == requests.codes.conflict:
                return None
            kind = ConfigInvalid if error.is_client_error() else StartFailed
            raise kind(f"there can be no such container: {_said(error)}") from error

    def _make_state_directory(self, game_id: str, uid: int, gid: int) -> Path:
        directory = self._config.game_state_root / game_id
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = directory.stat()
            if (found.st_uid, found.st_gid) != (uid, gid):
                os.chown(directory, uid, gid)
        except OSError as error:
            raise ConfigInvalid(f"there can be no state directory: {error}") from error
        return directory

    def _wait_until_it_listens(self, container: Container) -> Observed:
        until = time.monotonic() + self._start_timeout
        restarts: int | None = None
        while True:
            container.reload()
            state = container.attrs["State"]
            restarts = container.attrs["RestartCount"] if restarts is None else restarts
            has_ended = not state["Running"] or state["Restarting"] or container.attrs["RestartCount"] > restarts
            observed = self._observed(container)
            if not has_ended and observed.endpoint is not None and _listens(observed.endpoint):
                return observed
            if self._closing.wait(_POLL):
                raise DriverUnavailable("the driver is being closed")
            if has_ended or time.monotonic() > until:
                told = "the engine has ended" if has_ended else f"the engine did not listen within {self._start_timeout:g} s"
                # Else the daemon would start it again and again.
                _end(container, 0)
                raise StartFailed(f"{told}:\n{_tail(container, 20)}")

    def _stop(self, game_id: str, grace: float) -> None:
        with self._daemon() as client, contextlib.suppress(NotFound):
            container = self._ours(client, game_id)
            if container is not None:
                _end(container, grace)
                log.info("engine stopped", extra={"game_id": game_id, "generation": _observed_generation(container)})

    def _remove(self, game_id: str) -> None:
        with self._daemon() as client:
            container = self._ours(client, game_id)
            if container is not None:
                self._discard(container)

    def _discard(self, container: Container) -> None:
        """Remove a container, running or not, and wait until its name is free."""
        until = time.monotonic() + _REQUEST_TIMEOUT
        try:
            while True:
                try:
                    container.remove(force=True)
                except NotFound:
                    raise
                except APIError as error:
                    # Somebody else is removing it.
                    if error.status_code != requests.codes.conflict or time.monotonic() > until:
                        raise
                if self._closing.wait(_POLL):
                    raise DriverUnavailable("the driver is being closed")
                container.reload()
        except NotFound:
            return

    def _inspect(self, game_id: str) -> Observed | None:
        with self._daemon() as client:
            container = self._ours(client, game_id)
            return None if container is None else self._observed(container)

    def _list(self) -> builtins.list[Observed]:
        labels = ["galaxy.backend=1", *([] if self._stack is None else [f"galaxy.stack={self._stack}"])]
        with self._daemon() as client:
            found = client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
            return [self._observed(container) for container in found if self._is_ours(container)]

    def _logs(self, game_id: str, lines: int) -> str:
        with self._daemon() as client, contextlib.suppress(NotFound):
            container = self._ours(client, game_id)
            return "" if container is None or lines <= 0 else _tail(container, lines)
        return ""

    # -- containers

    def _named(self, client: docker.DockerClient, game_id: str) -> Container | None:
        _require_game_id(game_id)
        try:
            return client.containers.get(_container_name(game_id))
        except NotFound:
            return None

    def _ours(self, client: docker.DockerClient, game_id: str) -> Container | None:
        container = self._named(client, game_id)
        return container if container is not None and self._is_ours(container) else None

    def _is_ours(self, container: Container) -> bool:
        labels = container.labels
        return (
            labels.get("galaxy.backend") == "1"
            and labels.get("galaxy.stack") == self._stack
            and container.name == f"galaxy-game-{labels.get('galaxy.game_id')}"
        )

    def _observed(self, container: Container) -> Observed:
        state = container.attrs["State"]
        # Between two tries of the daemon to start it again, it does not run.
        is_running = state["Running"] and not state["Restarting"]
        return Observed(
            game_id=container.labels["galaxy.game_id"],
            generation=_observed_generation(container),
            engine_version=container.labels.get("galaxy.engine_version", ""),
            container_id=container.id or "",
            endpoint=self._endpoint(container) if is_running else None,
            is_running=is_running,
            exit_code=None if is_running or state["Status"] == "created" else state["ExitCode"],
        )

    def _endpoint(self, container: Container) -> str | None:
        """Return its name where callers are on the network, as this worker is or is not, else its address."""
        attached = container.attrs["NetworkSettings"]["Networks"].get(self._network)
        if attached is None or not attached["IPAddress"]:
            return None
        return f"http://{container.name if self._is_on_the_network else attached['IPAddress']}:{ENGINE_PORT}"

    # -- the daemon

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[docker.DockerClient]:
        try:
            yield self._connected()
        except DriverError:
            raise
        except APIError as error:
            raise DriverUnavailable(f"the daemon: {_said(error)}") from error
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise DriverUnavailable(f"the daemon cannot be asked: {str(error)[:300]}") from error

    def _connected(self) -> docker.DockerClient:
        with self._connecting:
            if self._client is None:
                # It asks the daemon for its version, so it is made when the daemon is there.
                client = docker.DockerClient(base_url=self._config.docker_host, timeout=_REQUEST_TIMEOUT, max_pool_size=32)
                try:
                    self._is_on_the_network = _is_on(client, self._network)
                except BaseException:
                    client.close()
                    raise
                self._client = client
            return self._client


def _is_on(client: docker.DockerClient, network: str) -> bool:
    """Whether this process runs in a container of the network: then the names of others there mean something to it."""
    try:
        attached = client.networks.get(network).attrs.get("Containers") or {}
        mounts = Path("/proc/self/mountinfo").read_text()
    except (NotFound, OSError):
        return False
    return any(f"/containers/{container_id}/" in mounts for container_id in attached)


def _image(client: docker.DockerClient, image_ref: str) -> Image | None:
    """Return an image that is there; raises ImagePullFailed for a reference that there can be no image of."""
    try:
        return client.images.get(image_ref)
    except ImageNotFound:
        return None
    except APIError as error:
        if not error.is_client_error():
            raise
        raise ImagePullFailed(f"{image_ref[:200]!r}: {_said(error)}") from error


def _container_name(game_id: str) -> str:
    return f"galaxy-game-{game_id}"


def _require_game_id(game_id: str) -> None:
    try:
        if str(uuid.UUID(game_id)) == game_id:
            return
    except ValueError:
        pass
    raise ConfigInvalid(f"{game_id[:80]!r} is not a game's id")


def _user(named: str) -> tuple[int, int]:
    """Return the uid and gid to run an engine with: its image's if that is a number and not root's.

    A worker that is not root can give a directory to nobody else, so its engines have its own.
    """
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    match = re.fullmatch(r"([1-9][0-9]{0,8})(?::([0-9]{1,9}))?", named)
    return (int(match[1]), int(match[2] or match[1])) if match else (UNPRIVILEGED, UNPRIVILEGED)


def _observed_generation(container: Container) -> int:
    text = str(container.labels.get("galaxy.generation", ""))
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def _end(container: Container, grace: float) -> None:
    container.stop(timeout=math.ceil(grace))


def _tail(container: Container, lines: int) -> str:
    try:
        text = container.logs(tail=lines)
    except NotFound:
        raise
    except APIError as error:
        # Not every log driver can be read.
        return f"(no log: {_said(error)})"
    return bytes(text)[-LARGEST_LOG:].decode(errors="replace").strip("\n")


def _listens(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=_CONNECT_TIMEOUT):
            return True
    except OSError:
        return False


def _said(error: DockerException) -> str:
    told: Any = getattr(error, "explanation", None) or error
    return str(told)[:300]
