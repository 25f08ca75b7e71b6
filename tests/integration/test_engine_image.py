"""The development engine's image, and what of it the docker driver's tests stand on."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import pytest
from docker.models.containers import Container

from dev import engine_conformance
from dev.engine_image import BASE, build
from tests.docker_daemon import DockerDaemon
from tests.services import until

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture
def container(docker_daemon: DockerDaemon) -> Iterator[Container]:
    made = docker_daemon.client.containers.run(
        docker_daemon.image_ref,
        detach=True,
        name=f"test-image-{uuid.uuid4()}",
        network=docker_daemon.network,
        read_only=True,
        cap_drop=["ALL"],
        tmpfs={"/var/lib/galaxy-game": "mode=1777"},
        environment={"GALAXY_ENGINE_HOST": "0.0.0.0"},  # of the container
    )
    try:
        yield made
    finally:
        made.remove(force=True)


def test_an_engine_in_a_container_conforms(docker_daemon: DockerDaemon, container: Container) -> None:
    container.reload()
    address = container.attrs["NetworkSettings"]["Networks"][docker_daemon.network]["IPAddress"]
    until(lambda: b"listens on" in container.logs())
    conformance = engine_conformance.Conformance(f"http://{address}:8080")
    conformance.run()
    assert [str(check) for check in conformance.checks if check.outcome == "FAIL"] == []
    assert len(conformance.checks) > 100


def test_it_runs_as_nobody_in_particular(docker_daemon: DockerDaemon) -> None:
    config = docker_daemon.client.images.get(docker_daemon.image_ref).attrs["Config"]
    assert config["User"] == "65532:65532"
    assert list(config["ExposedPorts"]) == ["8080/tcp"]
    assert config["Cmd"] == ["python", "-m", "dev.engine"]


def test_it_is_built_once_for_the_same_files(docker_daemon: DockerDaemon) -> None:
    client = docker_daemon.client
    before = client.images.get(docker_daemon.image_ref).id
    bases = {image.id for image in client.images.list(name=BASE)}
    assert build(client, without_registry=True) == docker_daemon.image_ref
    assert client.images.get(docker_daemon.image_ref).id == before
    assert {image.id for image in client.images.list(name=BASE)} == bases
    assert len(bases) == 1


def test_another_version_is_another_name(docker_daemon: DockerDaemon) -> None:
    client = docker_daemon.client
    reference = build(client, "7.7.7", without_registry=True)
    try:
        assert reference == "dev-engine:7.7.7"
        assert client.images.get(reference).id == client.images.get(docker_daemon.image_ref).id
    finally:
        with contextlib.suppress(Exception):
            client.images.remove(reference)
