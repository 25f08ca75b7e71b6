"""A Docker daemon for tests: the one of DOCKER_HOST, else this machine's; a pytest plugin beside tests.services.

On CI a daemon that is missing is a failure; elsewhere what needs one is skipped. Tests that use it are of the xdist group
`docker`: one worker of the run makes the image and the network.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import requests
from docker.errors import APIError, DockerException
from docker.models.containers import Container

from app import config as configuration
from app.config import Config
from dev.engine_image import make_without_registry

HOST = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


class DockerDaemon:
    """What tests need of a daemon: a network of their own, and an image of the development engine."""

    def __init__(self, client: docker.DockerClient, network: str, image_ref: str) -> None:
        self.client = client
        self.network = network
        self.image_ref = image_ref
        self._made: set[str] = set()

    def environment(self, state_root: Path, stack: str) -> dict[str, str]:
        """What a program must be told to run engines here."""
        return {
            "BACKEND_RUNTIME_DRIVER": "docker",
            "BACKEND_DOCKER_HOST": HOST,
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

    def remove_images(self) -> None:
        """Remove what was made; the development engine's stays."""
        for name in self._made:
            self.client.images.remove(name, force=True)

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


@pytest.fixture(scope="session")
def docker_daemon() -> Iterator[DockerDaemon]:
    try:
        client = docker.DockerClient(base_url=HOST)
        client.ping()
    except (DockerException, requests.RequestException) as error:
        if os.environ.get("CI"):
            pytest.fail(f"there is no Docker daemon at {HOST}: {error}")
        pytest.skip(f"there is no Docker daemon at {HOST}")
    network = client.networks.create(f"galaxy-test-{uuid.uuid4().hex[:12]}")
    daemon = DockerDaemon(client, network.name or "", make_without_registry(client))
    try:
        yield daemon
    finally:
        daemon.remove_images()
        network.remove()
        client.close()
