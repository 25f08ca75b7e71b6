"""Games on a Docker daemon that goes away in the midst of something, and engines that are killed for their memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contract.games import call
from tests.docker_daemon import DockerDaemon, OwnDaemon
from tests.postgres import Database
from tests.runtimes import Platform, docker_platform
from tests.services import ADMIN, travel, until
from workers.runtime.driver import Driver
from workers.runtime.engine_client import EngineClient
from workers.tasks.runtime import RuntimeTasks

pytestmark = pytest.mark.xdist_group("docker")


@pytest.fixture
def platform(
    docker_daemon: DockerDaemon, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Platform]:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "9999")
    yield from docker_platform(docker_daemon, database, tmp_path)


# The development engine, which takes all the memory that there is once a file says so.
_GREEDY = """
import os, sys, threading, time
from pathlib import Path
from dev.engine.__main__ import main

def eat():
    sign = Path(os.environ["GALAXY_ENGINE_STATE_DIR"], "eat")
    while not sign.exists():
        time.sleep(0.05)
    sign.unlink()
    eaten = []
    while True:
        eaten.append(os.urandom(1 << 20))

threading.Thread(target=eat, daemon=True).start()
sys.exit(main())
"""


def test_an_engine_that_is_killed_for_its_memory_is_started_again(
    platform: Platform, docker_daemon: DockerDaemon, tmp_path: Path
) -> None:
    platform.harness.image_ref = docker_daemon.image("greedy-later", "-c", _GREEDY)
    game_id = platform.running()
    call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
    platform.recover(1)
    (tmp_path / "games" / game_id / "eat").touch()
    until(lambda: docker_daemon.container(game_id).attrs["RestartCount"] > 0, 60, 0.1)
    platform.recover(2)
    platform.is_well(game_id, current_turn=1)


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_daemon_that_goes_away_in_the_midst_of_a_start_and_comes_back(
    own_daemon: OwnDaemon, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_killed: bool
) -> None:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "9999")
    daemon = DockerDaemon(own_daemon.host)
    send = requests.Session.send
    gone: list[str] = []

    def sent(session: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
        if request.method == "POST" and str(request.url).endswith("/start") and not gone:
            gone.append(str(request.url))
            if is_killed:
                own_daemon.kill()
            else:
                own_daemon.stop()
        return send(session, request, **more)

    with contextlib.closing(docker_platform(daemon, database, tmp_path)) as made:
        platform = next(made)
        running, starting = platform.running(), platform.game()
        monkeypatch.setattr(requests.Session, "send", sent)

        async def passes(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
            await tasks.start(starting)
            assert gone
            for _ in range(2):
                travel(platform.db, "10 minutes")
                await tasks.sweep()
                await platform.jobs(tasks)
                await tasks.reconcile()

        platform.use(passes)
        # Nothing is concluded while nobody can be asked.
        assert platform.runtime(starting)["game"] == "starting"
        assert (platform.runtime(running)["game"], platform.runtime(running)["status"]) == ("running", "running")
        own_daemon.start()
        platform.recover(2)
        platform.is_well(starting, current_turn=0, generation=1)
        platform.is_well(running, current_turn=0, generation=1)
        call(platform.db, "api.runtime_force_next_turn", ADMIN, running)
        platform.recover(1)
        platform.is_well(running, current_turn=1)
    daemon.close()
