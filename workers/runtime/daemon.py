"""What the drivers share that run engines by a Docker daemon: the way to it, images, and what an engine's container is made of.

An engine's container, or service, has its game's name, so there is never a second one, and labels say whose it is and of
which generation. So whatever step a worker dies at, the next one finds the engine, or that there is none.

A daemon that cannot be asked is `DriverUnavailable`: its engines may well go on.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import logging
import os
import re
import socket
import threading
import time
import uuid
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, ImageNotFound, InvalidRepository, NotFound
from docker.models.images import Image
from docker.models.networks import Network
from docker.transport import unixconn
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
)

log = logging.getLogger("galaxy.runtime")

ENGINE_PORT = 8080
UNPRIVILEGED = 65532
"""The uid and gid of an engine whose image names none, or root."""
LARGEST_LOG = 1 << 20
STOP_SIGNAL = "SIGTERM"
DROPPED_CAPABILITIES = ["ALL"]
TMPFS, TMPFS_SIZE, TMPFS_MODE = "/tmp", 64 << 20, 0o1777  # noqa: S108  # of the container

POLL = 0.05
# Others may remove or make the container while we look at it, each time anew.
TRIES = 8
REQUEST_TIMEOUT = 60
PULL_TIMEOUT = 600
_CONNECT_TIMEOUT = 1.0
_ENGINE_PREFIX = "GALAXY_ENGINE_"


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


@dataclass(frozen=True)
class Recipe:
    """What an engine's container is made of, as far as it is the engine's affair."""

    image: Image
    network: Network
    labels: dict[str, str]
    environment: dict[str, str]
    directory: Path
    uid: int
    gid: int

    @property
    def user(self) -> str:
        return f"{self.uid}:{self.gid}"


class DaemonDriver(Driver):
    """Runs engines by the daemon at `BACKEND_DOCKER_HOST`, reached over its network; those of another stack label are not ours.

    An engine must listen within `start_timeout` seconds. The network is there beforehand.
    """

    def __init__(self, config: Config, *, start_timeout: float = 30.0) -> None:
        self._config = config
        self._network = config.docker_network or ""
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

    @abstractmethod
    def _start(self, spec: Spec) -> Observed: ...

    @abstractmethod
    def _stop(self, game_id: str, grace: float) -> None: ...

    @abstractmethod
    def _remove(self, game_id: str) -> None: ...

    @abstractmethod
    def _inspect(self, game_id: str) -> Observed | None: ...

    @abstractmethod
    def _list(self) -> builtins.list[Observed]: ...

    @abstractmethod
    def _logs(self, game_id: str, lines: int) -> str: ...

    def _pull(self, image_ref: str) -> None:
        with self._daemon() as client:
            if self._config.runtime_image_pull_policy != "always":
                if _image(client, image_ref) is not None:
                    return
                if self._config.runtime_image_pull_policy == "never":
                    raise ImagePullFailed(f"{image_ref[:200]!r} is not there, and is not to be pulled")
            repository, tag = parse_repository_tag(image_ref)
            until = time.monotonic() + PULL_TIMEOUT
            try:
                for step in client.api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                    if "error" in step:
                        raise ImagePullFailed(f"{image_ref[:200]!r}: {str(step['error'])[:300]}")
                    if time.monotonic() > until or self._closing.is_set():
                        raise DriverUnavailable(f"{image_ref[:200]!r} is still being pulled")
            except (APIError, InvalidRepository) as error:
                raise ImagePullFailed(f"{image_ref[:200]!r}: {said(error)}") from error

    # -- what an engine's container is made of

    def _recipe(self, client: docker.DockerClient, spec: Spec) -> Recipe:
        config = self._config
        image = _image(client, spec.image_ref)
        if image is None:
            raise ImagePullFailed(f"{spec.image_ref[:200]!r} is not there")
        try:
            network = client.networks.get(self._network)
        except NotFound:
            raise ConfigInvalid(f"there is no network {self._network!r}") from None
        uid, gid = _user(image.attrs["Config"].get("User") or "")
        return Recipe(
            image=image,
            network=network,
            labels=self._labels
            | {
                "galaxy.game_id": spec.game_id,
                "galaxy.engine_version": spec.engine_version,
                "galaxy.generation": str(spec.generation),
            },
            environment={name: value for name, value in os.environ.items() if name.startswith(_ENGINE_PREFIX)}
            | {
                "GALAXY_ENGINE_STATE_DIR": config.runtime_container_state_mount,
                "GALAXY_ENGINE_HOST": "0.0.0.0",  # noqa: S104  # of the container
                "GALAXY_ENGINE_PORT": str(ENGINE_PORT),
                "GALAXY_ENGINE_VERSION": spec.engine_version,
            },
            directory=config.game_state_root / spec.game_id,
            uid=uid,
            gid=gid,
        )

    @property
    def _labels(self) -> dict[str, str]:
        """The labels of everything that is ours."""
        stack = self._config.stack_label
        return {"galaxy.backend": "1"} | ({} if stack is None else {"galaxy.stack": stack})

    @property
    def _nano_cpus(self) -> int:
        return round(self._config.runtime_container_cpu_quota * 10**9)

    @property
    def _log_options(self) -> dict[str, str]:
        return {key: str(value) for key, value in self._config.runtime_container_log_opts}

    def _are_ours(self, name: str | None, labels: Mapping[str, str]) -> bool:
        """Whether a container or service of that name, with these labels, is an engine of this platform."""
        return (
            labels.get("galaxy.backend") == "1"
            and labels.get("galaxy.stack") == self._config.stack_label
            and name == f"galaxy-game-{labels.get('galaxy.game_id')}"
        )

    def _url(self, name: str, address: str) -> str:
        """Return where an engine is: its name where callers are on the network, as this worker is or is not, else its address."""
        return f"http://{name if self._is_on_the_network else address}:{ENGINE_PORT}"

    # -- the daemon

    @contextlib.contextmanager
    def _daemon(self) -> Iterator[docker.DockerClient]:
        try:
            yield self._connected()
        except DriverError:
            raise
        except APIError as error:
            raise DriverUnavailable(f"the daemon: {said(error)}") from error
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            raise DriverUnavailable(f"the daemon cannot be asked: {str(error)[:300]}") from error

    def _connected(self) -> docker.DockerClient:
        with self._connecting:
            if self._client is None:
                # It asks the daemon for its version, so it is made when the daemon is there.
                client = docker.DockerClient(base_url=self._config.docker_host, timeout=REQUEST_TIMEOUT, max_pool_size=32)
                try:
                    self._is_on_the_network = _is_on(client, self._network)
                except BaseException:
                    client.close()
                    raise
                self._client = client
            return self._client

    def _wait(self) -> None:
        """Wait a moment; raises DriverUnavailable when the driver is closed meanwhile."""
        if self._closing.wait(POLL):
            raise DriverUnavailable("the driver is being closed")


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
        raise ImagePullFailed(f"{image_ref[:200]!r}: {said(error)}") from error


def _user(named: str) -> tuple[int, int]:
    """Return the uid and gid to run an engine with: its image's if that is a number and not root's.

    A worker that is not root can give a directory to nobody else, so its engines have its own.
    """
    if os.geteuid() != 0:
        return os.geteuid(), os.getegid()
    match = re.fullmatch(r"([1-9][0-9]{0,8})(?::([0-9]{1,9}))?", named)
    return (int(match[1]), int(match[2] or match[1])) if match else (UNPRIVILEGED, UNPRIVILEGED)


def make_state_directory(recipe: Recipe) -> None:
    """Have the game's directory be there and the engine's own."""
    try:
        recipe.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = recipe.directory.stat()
        if (found.st_uid, found.st_gid) != (recipe.uid, recipe.gid):
            os.chown(recipe.directory, recipe.uid, recipe.gid)
    except OSError as error:
        raise ConfigInvalid(f"there can be no state directory: {error}") from error


def engine_name(game_id: str) -> str:
    """Return the name of a game's container or service; raises ConfigInvalid for what is no game's id."""
    with contextlib.suppress(ValueError):
        if str(uuid.UUID(game_id)) == game_id:
            return f"galaxy-game-{game_id}"
    raise ConfigInvalid(f"{game_id[:80]!r} is not a game's id")


def generation_of(labels: Mapping[str, str]) -> int:
    text = str(labels.get("galaxy.generation", ""))
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else 0


def listens(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    try:
        with socket.create_connection((parts.hostname, parts.port), timeout=_CONNECT_TIMEOUT):
            return True
    except OSError:
        return False


def last_of(log_text: bytes) -> str:
    return log_text[-LARGEST_LOG:].decode(errors="replace").strip("\n")


def said(error: DockerException) -> str:
    told: Any = getattr(error, "explanation", None) or error
    return str(told)[:300]
