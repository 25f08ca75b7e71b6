"""compose.yaml, from images to the end: the schema deployed as a step of its own, two of each program, ready, without any rights.

The tests are one story, in this order.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import docker
import httpx
import pytest
from docker.errors import ImageNotFound
from docker.models.containers import Container

from dev import service_image
from dev.cluster import free_port
from dev.push_client import PushClient
from tests.docker_daemon import DockerDaemon, absent
from tests.postgres import ROOT
from tests.services import new_email, new_key, until

pytestmark = pytest.mark.xdist_group("docker")

_TOKEN = "galaxy"  # the default of compose.yaml
PROGRAMS = {f"{name}{number}" for name in ("api", "push", "worker") for number in ("", "-2")}


class Composed:
    """The containers of compose.yaml under a project's name of their own."""

    def __init__(self, command: list[str], client: docker.DockerClient, state: Path, version: str) -> None:
        self.ports = {name: free_port() for name in ("HTTP", "GRPC", "MAIL")}
        self._client = client
        self._command = [*command, "--project-name", version, "--file", str(ROOT / "compose.yaml"), "--profile", "several"]
        socket = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")).path
        self._environment = {
            **os.environ,
            **{f"GALAXY_{name}_PORT": str(port) for name, port in self.ports.items()},
            "GALAXY_VERSION": version,
            "GALAXY_NETWORK": version,
            "GALAXY_STATE_ROOT": str(state),
            "POSTGRES_IMAGE": f"{service_image.POSTGRES}:{version}",
            "DOCKER_SOCKET": socket,
            "DOCKER_GID": str(os.stat(socket).st_gid),
        }
        self._version = version

    def run(self, *arguments: str) -> None:
        done = subprocess.run(
            [*self._command, *arguments], cwd=ROOT, env=self._environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr + self.logs()

    def containers(self) -> dict[str, Container]:
        """Return them by their service's name."""
        project: dict[str, str | list[str] | bool] = {"label": f"com.docker.compose.project={self._version}"}
        return {c.labels["com.docker.compose.service"]: c for c in self._client.containers.list(all=True, filters=project)}

    def logs(self) -> str:
        return "\n".join(f"{name}: {c.logs(tail=20).decode(errors='replace')}" for name, c in self.containers().items())

    def health(self) -> dict[str, str]:
        states = {name: container.attrs["State"] for name, container in self.containers().items()}
        return {name: state["Health"]["Status"] for name, state in states.items() if "Health" in state}


def _compose() -> list[str]:
    if (
        shutil.which("docker")
        and subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0
    ):
        return ["docker", "compose"]
    if not shutil.which("docker-compose"):
        absent("there is no Docker Compose")
    return ["docker-compose"]


@pytest.fixture(scope="module")
def composed(docker_daemon: DockerDaemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Composed]:
    command = _compose()
    version = f"test-{secrets.token_hex(4)}"
    with contextlib.closing(docker.DockerClient(base_url=docker_daemon.host, timeout=600)) as client:
        service_image.build(client, version, without_registry=True)
        made = Composed(command, client, tmp_path_factory.mktemp("games"), version)
        try:
            made.run("up", "--detach", "--no-build")
            until(lambda: set(made.health().values()) == {"healthy"}, 180, 0.5)
            yield made
        finally:
            made.run("down", "--volumes", "--timeout", "20")
            for name in (*service_image.IMAGES.values(), *service_image.LOCAL):
                with contextlib.suppress(ImageNotFound):
                    client.images.remove(f"{name}:{version}", force=True)


def test_two_of_each_program_are_ready_after_the_schema_was_deployed(composed: Composed) -> None:
    assert composed.health().keys() == PROGRAMS | {"postgres"}
    containers = composed.containers()
    assert containers["migrate"].attrs["State"]["ExitCode"] == 0
    assert containers["prepare"].attrs["State"]["ExitCode"] == 0


def test_programs_run_as_nobody_and_write_nowhere(composed: Composed) -> None:
    containers = composed.containers()
    for name in ("api", "push", "worker", "migrate", "mail"):
        host = containers[name].attrs["HostConfig"]
        assert containers[name].attrs["Config"]["User"] == "65532:65532"
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
    touched = containers["api"].exec_run(["python", "-c", "open('/opt/galaxy/file', 'w')"])
    assert b"Read-only file system" in touched.output
    # The daemon is the worker's alone.
    mounts = {name: {m["Destination"] for m in c.attrs["Mounts"]} for name, c in containers.items()}
    assert {name for name, places in mounts.items() if "/var/run/docker.sock" in places} == {"worker", "worker-2"}


def test_somebody_signs_in_by_a_mailed_code_and_a_gateway_hears_of_the_end_of_the_session(composed: Composed) -> None:
    mail = f"http://127.0.0.1:{composed.ports['MAIL']}/messages"
    internal = {"Authorization": f"Bearer {_TOKEN}"}
    with (
        httpx.Client(base_url=f"http://127.0.0.1:{composed.ports['HTTP']}", timeout=30, trust_env=False) as client,
        PushClient(f"127.0.0.1:{composed.ports['GRPC']}", "gateway", _TOKEN) as gateway,
    ):
        gateway.connect()
        assert client.get("/readyz").json()["status"] == "ready"
        email = new_email()
        sent = client.post("/api/v1/public/auth/send-email-code", json={"email": email})
        found = until(lambda: httpx.get(mail, params={"to": email}, trust_env=False).json()["items"], 30, 0.1)
        code = next(word for word in found[0]["text"].split() if len(word) == 6 and word.isdecimal())
        body = {"challenge_id": sent.json()["challenge_id"], "code": code, "client_public_key": new_key(), "time_zone": "UTC"}
        session_id = client.post("/api/v1/public/auth/confirm-email-code", json=body).json()["device_session_id"]
        path = f"/api/v1/internal/sessions/{session_id}/revoke"
        assert client.post(path, json={"reason": "logout"}, headers=internal).status_code == 200
        assert next(gateway).session_invalidation.device_session_id == session_id


def test_the_image_of_the_programs_is_small(composed: Composed) -> None:
    sizes = {name: container.image.attrs["Size"] for name, container in composed.containers().items() if container.image}
    assert sizes["api"] == sizes["push-2"] < 250 * 2**20


def test_programs_stop_in_order_and_postgres_after_them(composed: Composed) -> None:
    composed.run("stop")
    states = {name: container.attrs["State"] for name, container in composed.containers().items()}
    assert {state["ExitCode"] for state in states.values()} == {0}
    ended = {name: state["FinishedAt"] for name, state in states.items()}
    assert max(ended[name] for name in PROGRAMS) < ended["postgres"]
