"""A game on a Swarm from its start to its stop, through HTTP, under two job programs that race for everything."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from dev.cluster import Cluster
from dev.mail_catcher import MailCatcher
from tests.docker_daemon import own_stack
from tests.integration.test_games_story import Match, Platform
from tests.services import Api, Program, StartProgram, session_database, until
from tests.swarm import Swarm

pytestmark = pytest.mark.xdist_group("swarm")


@pytest.fixture(scope="module")
def platform(
    swarm: Swarm,
    cluster: Cluster,
    template_database: str,
    session_starter: StartProgram,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Platform]:
    """The API and two job programs, attached to the engines' network."""
    directory = tmp_path_factory.mktemp("swarm-games")
    with session_database(cluster, template_database, "swarm") as database, swarm.inside(), MailCatcher() as mail:
        common = {
            **swarm.environment(directory, own_stack()),
            "BACKEND_SMTP_PORT": str(mail.smtp_port),
            "BACKEND_RUNTIME_CONTAINER_MEMORY": "96m",
            "BACKEND_RUNTIME_STOP_GRACE_PERIOD": "1s",
            "BACKEND_RUNTIME_RECONCILE_INTERVAL": "2s",
        }

        def start_worker(**more: str) -> Program:
            return session_starter("worker", database, **common, **more)

        programs = [session_starter("api", database, **common), start_worker(), start_worker()]
        assert isinstance(programs[0], Api)
        try:
            yield Platform(programs[0].wait_ready(), database, mail, directory, start_worker)
        finally:
            for program in programs:
                program.close()
            swarm.remove_containers(directory)


class Played:
    """A game that runs, as administrators and the Swarm see its engine."""

    def __init__(self, platform: Platform, swarm: Swarm) -> None:
        self._platform = platform
        self._swarm = swarm
        self.series = f"1.{secrets.randbelow(10**9)}"
        self.match = Match(platform, self.version(0), turn_schedule="0 0 1 1 *")
        self.match.start()
        self.game_id = self.match.game_id

    def version(self, patch: int) -> str:
        version = f"{self.series}.{patch}"
        self._platform.admin("POST", "/engine-versions", 201, {"version": version, "image_ref": self._swarm.image_ref})
        return version

    def runtime(self) -> Any:
        return self._platform.admin("GET", f"/runtimes/{self.game_id}", 200)

    def ask(self, what: str, status: int, body: Any = None) -> Any:
        return self._platform.admin("POST", f"/runtimes/{self.game_id}/{what}", status, body)

    def replaced(self, generation: int) -> Any:
        """Wait until an engine of this generation runs, and return what is told of it."""

        def runs() -> Any:
            found = self.runtime()
            return found if (found["generation"], found["status"]) == (generation, "running") else None

        return until(runs, 60, 0.05)

    def services(self) -> list[Any]:
        return [s for s in self._swarm.client.services.list() if s.name == f"galaxy-game-{self.game_id}"]

    def turn(self, number: int) -> None:
        self.match.force()
        self.match.turn(number)
        # Whatever has raced for it, there is one engine.
        assert [container.id for container in self._swarm.containers(self.game_id)] == [self.runtime()["container_id"]]


@pytest.fixture
def played(platform: Platform, swarm: Swarm) -> Iterator[Played]:
    yield Played(platform, swarm)
    assert platform.query("SELECT * FROM invariants") == []


def test_a_game_from_its_start_to_its_stop(platform: Platform, played: Played) -> None:
    match = played.match
    turns = f"/games/{match.game_id}"
    [service] = played.services()
    # The api and the engine talk over the network of both.
    home = platform.user(match.owner, "GET", f"{turns}/reports/0", 200)["planets"][0]["number"]
    order = {"turn": 0, "commands": [{"order": "grow", "planet": home}]}
    platform.user(match.owner, "POST", f"{turns}/orders", 200, order)
    played.turn(1)
    assert platform.user(match.guest, "GET", f"{turns}/reports/1", 200)["race"] == match.races[1]

    # A patch is an update of the service, within major and minor.
    before = played.runtime()
    played.ask("patch", 422, {"version": platform.version(before["image_ref"])})
    patched = played.version(1)
    played.ask("patch", 202, {"version": patched})
    after = played.replaced(2)
    assert (after["engine_version"], after["current_turn"]) == (patched, 1)
    assert after["container_id"] != before["container_id"]
    assert [(s.id, s.attrs["Spec"]["Labels"]["galaxy.engine_version"]) for s in played.services()] == [(service.id, patched)]
    played.turn(2)

    played.ask("restart", 202)
    assert played.replaced(3)["container_id"] != after["container_id"]
    played.turn(3)
    assert until(lambda: played.runtime()["health"], 60, 0.05)["is_healthy"]

    played.ask("logs", 202)
    content = until(lambda: platform.admin("GET", f"/runtimes/{match.game_id}/logs", 200)["content"], 60, 0.05)
    assert "/api/v1/admin/turn" in content

    platform.admin("POST", f"/games/{match.game_id}/force-stop", 202)
    until(lambda: played.runtime()["status"] == "removed", 60, 0.05)
    assert played.services() == []
    assert (platform.engines / match.game_id / "state.json").exists()


def test_a_service_that_is_removed_by_hand_pauses_its_game_which_goes_on(platform: Platform, played: Played) -> None:
    played.turn(1)
    [service] = played.services()
    service.remove()
    paused = until(lambda: (found := played.match.state())["status"] == "paused" and found, 60, 0.05)
    assert paused["status_reason"] == "container_gone"
    # The reconciler has made another, over the same state.
    until(lambda: played.match.state()["runtime_status"] == "running", 60, 0.05)
    assert [made.id for made in played.services()] != [service.id]
    assert played.match.do("resume")["status"] == "running"
    played.turn(2)
