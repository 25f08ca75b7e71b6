"""ops/swarm/stack.yaml, deployed: its programs play a game whose engine they reach by its name on their network.

There is no registry: the programs run in the development engine's image, with this machine's own files mounted into it. No
more is changed than what is run where; users, rights, networks and variables are the file's.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from docker.models.containers import Container

from tests.contract.document import basic
from tests.docker_daemon import absent
from tests.integration.test_games_story import Platform
from tests.integration.test_swarm_story import Played
from tests.postgres import ROOT, Database
from tests.services import ADMIN, check_answer, note_secret, until
from tests.swarm import Swarm

pytestmark = pytest.mark.xdist_group("swarm")


class Stack:
    """What is deployed, under a name of its own."""

    def __init__(self, swarm: Swarm, database: Database, geo: Path, directory: Path) -> None:
        if shutil.which("docker") is None:
            absent("there is no Docker client")
        self.name = f"test-{secrets.token_hex(4)}"
        self.state = directory / "games"
        self.state.mkdir()
        # The fixture's own is for nobody else to read.
        (directory / "geo").mkdir()
        shutil.copy(geo, directory / "geo" / "country.mmdb")
        self.password = secrets.token_urlsafe()
        note_secret(self.password)
        self._swarm = swarm
        packages = Path(sysconfig.get_paths()["purelib"]).resolve()
        here = {ROOT, packages, Path("/lib"), Path("/usr/lib"), database.cluster.socket_directory}
        program = {
            "entrypoint": ["python", "-m", "app"],
            "environment": {"PYTHONPATH": str(packages)},
            "working_dir": str(ROOT),
            "volumes": [f"{path}:{path}:ro" for path in sorted(here)],
        }
        override = directory / "override.yaml"
        override.write_text(json.dumps({"version": "3.8", "services": dict.fromkeys(("api", "push", "worker"), program)}))
        variables = {
            "GALAXY_IMAGE": swarm.image_ref,
            "GALAXY_NETWORK": swarm.network,
            "DOCKER_SOCKET": swarm.host.removeprefix("unix://"),
            "GALAXY_STATE_ROOT": str(self.state),
            "GALAXY_STACK": self.name,
            "GALAXY_GEOIP": str(directory / "geo"),
            **{f"GALAXY_DSN_{name.upper()}": database.dsn(f"galaxy_{name}") for name in ("api", "push", "worker")},
            "GALAXY_INTERNAL_TOKEN": self.password,
            "GALAXY_AUTH_PEPPER": self.password,
            "GALAXY_ADMIN_USER": ADMIN,
            "GALAXY_ADMIN_PASSWORD": self.password,
            "GALAXY_SMTP_HOST": "127.0.0.1",
            "GALAXY_SMTP_FROM": "noreply@galaxy.example",
        }
        files = ("--compose-file", str(ROOT / "ops" / "swarm" / "stack.yaml"), "--compose-file", str(override))
        self._docker("stack", "deploy", "--resolve-image", "never", *files, self.name, **variables)

    def _docker(self, *arguments: str, **variables: str) -> None:
        environment = {**os.environ, "DOCKER_HOST": self._swarm.host, **variables}
        done = subprocess.run(["docker", *arguments], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def tasks(self, service: str) -> list[dict[str, Any]]:
        """Return what runs of a service."""
        client: Any = self._swarm.client
        found = client.api.tasks({"service": f"{self.name}_{service}", "desired-state": "running"})
        return [task for task in found if task["Status"]["State"] == "running"]

    def address(self, service: str) -> str:
        [attached] = self.tasks(service)[0]["NetworksAttachments"]
        return str(attached["Addresses"][0]).partition("/")[0]

    def container(self, service: str) -> Any:
        return self._swarm.client.containers.get(self.tasks(service)[0]["Status"]["ContainerStatus"]["ContainerID"])

    def containers(self, *, are_all: bool = False) -> list[Container]:
        label: dict[str, Any] = {"label": f"com.docker.stack.namespace={self.name}"}
        return self._swarm.client.containers.list(all=are_all, filters=label, ignore_removed=True)

    def logs(self) -> str:
        """Return what its programs wrote last, for whoever looks into why they do not run."""
        containers = self.containers(are_all=True)
        return "\n".join(f"{container.name}: {container.logs(tail=20).decode(errors='replace')}" for container in containers)

    def close(self) -> None:
        self._docker("stack", "rm", self.name)
        until(lambda: not self.containers(), 60, 0.1)
        self._swarm.remove_containers(self.state)


@pytest.fixture
def stack(swarm: Swarm, database: Database, geo_database: Path, tmp_path: Path) -> Iterator[Stack]:
    # Programs that are nobody look for Postgres in it.
    database.cluster.socket_directory.chmod(0o711)
    made = Stack(swarm, database, geo_database, tmp_path)
    try:
        yield made
    finally:
        print(made.logs())
        made.close()
        database.cluster.socket_directory.chmod(0o700)


def test_the_programs_of_the_stack_play_a_game(stack: Stack, swarm: Swarm, database: Database, tmp_path: Path) -> None:
    wanted = {"api": 2, "push": 2, "worker": 1}
    with swarm.inside():
        until(lambda: {name: len(stack.tasks(name)) for name in wanted} == wanted, 60, 0.2)
        with httpx.Client(
            base_url=f"http://{stack.address('api')}:8080", timeout=30, event_hooks={"response": [check_answer]}
        ) as client:
            until(lambda: client.get("/readyz").status_code == 200, 60, 0.1)
            api = SimpleNamespace(client=client, admin=basic(ADMIN, stack.password))
            played = Played(Platform(cast("Any", api), database, cast("Any", None), stack.state, cast("Any", None)), swarm)
            assert played.runtime()["endpoint"] == f"http://galaxy-game-{played.game_id}:8080"
            played.turn(1)

    # The daemon is the worker's alone, and nobody else is root.
    programs = {name: stack.container(name).attrs for name in wanted}
    users = {name: (made["Config"]["User"], made["HostConfig"]["CapAdd"]) for name, made in programs.items()}
    nobody = ("65532:65532", None)
    assert users == {"api": nobody, "push": nobody, "worker": ("0:0", ["CAP_CHOWN", "CAP_DAC_OVERRIDE"])}
    for made in programs.values():
        assert (made["HostConfig"]["CapDrop"], made["HostConfig"]["ReadonlyRootfs"]) == (["ALL"], True)
    assert [n for n, made in programs.items() if any("docker.sock" in m["Destination"] for m in made["Mounts"])] == ["worker"]
