"""A database, engines and workers, without the programs: what becomes of engines is tried step by step."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, TypeVar, cast

import psycopg
import pytest

from app import config as configuration
from tests.contract.games import make_game
from tests.contract.requests import World
from tests.docker_daemon import DockerDaemon, own_stack
from tests.integration.test_driver import DockerHarness, Harness, ProcessHarness, SwarmHarness
from tests.postgres import Database
from tests.services import ADMIN, travel
from tests.smtp_relay import worker_environment
from tests.swarm import Swarm
from workers.door import Door
from workers.main import driver_of
from workers.runtime.driver import Driver
from workers.runtime.engine_client import EngineClient, State
from workers.tasks.runtime import RuntimeTasks

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
RARELY = "0 0 1 1 *"


def on(driver: str, *more: str) -> Any:
    """Return a driver, and whatever else, for a test to be run with; those that share a daemon run one after the other."""
    return pytest.param(driver, *more, marks=[] if driver == "process" else [pytest.mark.xdist_group(driver)])


DRIVERS = (on("process"), on("docker"))
on_swarm_too = pytest.mark.parametrize("platform", [*DRIVERS, on("swarm")], indirect=True)
"""For what does not need to be repeated often: a Swarm takes its time."""

# A program that imports once, and for each line forks a worker that does one thing and dies after so many steps.
_WORKERS = """
import asyncio, json, os, signal, sys
import requests
from app import config
from workers.door import Door
from workers.main import driver_of
from workers.runtime.docker_driver import DockerDriver
from workers.runtime.engine_client import EngineClient
from workers.runtime.process_driver import ProcessDriver
from workers.runtime.swarm_driver import SwarmDriver
from workers.tasks.runtime import RuntimeTasks

die_at = 0
steps = []

def reached(step):
    steps.append(step)
    if len(steps) == die_at:
        os.kill(os.getpid(), signal.SIGKILL)

def stepping(kind, name, label):
    done = getattr(kind, name)
    async def stepped(self, *arguments, **more):
        result = await done(self, *arguments, **more)
        reached(label(*arguments))
        return result
    setattr(kind, name, stepped)

stepping(Door, "call", lambda function, *_: f"worker.{function}")
stepping(EngineClient, "_call", lambda method, endpoint, path, *_: f"{method} {path}")
for driver in (ProcessDriver, DockerDriver, SwarmDriver):
    for name in ("pull", "start", "stop", "remove"):
        stepping(driver, name, lambda *_, name=name: f"driver.{name}")

send = requests.Session.send
def sent(self, request, **more):
    answer = send(self, request, **more)
    if request.method != "GET":
        reached(f"docker {request.method}")
    return answer
requests.Session.send = sent

async def work(what, game_id):
    settings = config.load(os.environ)
    door = Door(settings)
    await door.open()
    driver = driver_of(settings)
    client = EngineClient(settings.engine_call_timeout, settings.engine_probe_timeout)
    await getattr(RuntimeTasks(settings, door, driver, client), what)(game_id)
    await client.close()
    await driver.close()
    await door.close()

for line in sys.stdin:
    what, game_id, at = json.loads(line)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        die_at = at
        asyncio.run(work(what, game_id))
        os.write(writing, json.dumps(steps).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as told:
        answer = told.read()
    _, status = os.waitpid(child, 0)
    print(json.dumps([os.waitstatus_to_exitcode(status), json.loads(answer or "[]")]), flush=True)
"""


class Platform:
    """A database, a driver's world, and workers that are told what to do one by one."""

    def __init__(self, database: Database, harness: Harness, environment: dict[str, str]) -> None:
        self.harness = harness
        self.world = World(cast("Any", None), database)
        self.db: psycopg.Connection[Any] = database.connect()
        self.db.execute("INSERT INTO admin_accounts (username, password_hash) VALUES (%s, '$2b$12$' || repeat('x', 53))", [ADMIN])
        self.environment = worker_environment(database, 9, **environment)
        self.config = configuration.load(self.environment)
        self._done: set[int] = set()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("BACKEND_")}
        self._workers = subprocess.Popen(
            [sys.executable, "-c", _WORKERS],
            cwd=ROOT,
            env=clean | self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        assert self._workers.stdin is not None
        assert self._workers.stdout is not None
        self._workers.stdin.close()
        self._workers.wait(60)
        self._workers.stdout.close()
        self.harness.close()

    def worker(self, what: str, game_id: str, die_at: int) -> list[str] | None:
        """Have a worker do something; return its steps, None if it died at one."""
        assert self._workers.stdin is not None
        assert self._workers.stdout is not None
        self._workers.stdin.write(json.dumps([what, game_id, die_at]) + "\n")
        self._workers.stdin.flush()
        code, steps = json.loads(self._workers.stdout.readline())
        assert code in (0, -signal.SIGKILL), code
        return None if code else list(steps)

    def use(self, work: Callable[[RuntimeTasks, Driver, EngineClient], Awaitable[T]], *, lease_seconds: int | None = None) -> T:
        """Be a worker that lives."""

        async def scenario() -> T:
            door = Door(self.config)
            await door.open()
            driver = driver_of(self.config)
            client = EngineClient(self.config.engine_call_timeout, self.config.engine_probe_timeout)
            try:
                return await work(RuntimeTasks(self.config, door, driver, client, lease_seconds=lease_seconds), driver, client)
            finally:
                await client.close()
                await driver.close()
                await door.close()

        return asyncio.run(scenario())

    async def jobs(self, tasks: RuntimeTasks) -> None:
        """Do the jobs that wait."""
        jobs = self.db.execute(
            "SELECT id, task_name, args ->> 'game_id' FROM procrastinate.procrastinate_jobs"
            " WHERE queue_name = 'runtime' AND id <> ALL (%s) ORDER BY priority DESC, id",
            [list(self._done)],
        ).fetchall()
        for job_id, task, game_id in jobs:
            self._done.add(job_id)
            await getattr(tasks, task.removeprefix("runtime_").removesuffix("_run"))(game_id)

    def forget_jobs(self) -> None:
        """The jobs that wait are lost with whoever had them."""
        self._done |= {row[0] for row in self.db.execute("SELECT id FROM procrastinate.procrastinate_jobs").fetchall()}

    def recover(self, rounds: int = 2) -> None:
        """Let every lease run out, and the reconciler pass, each time with what else a worker does without an end."""

        async def passes(tasks: RuntimeTasks, driver: Driver, client: EngineClient) -> None:
            for _ in range(rounds):
                travel(self.db, "10 minutes")
                await tasks.sweep()
                await self.jobs(tasks)
                await tasks.reconcile()
                await self.jobs(tasks)

        self.use(passes)

    def game(self) -> str:
        """Make a game that is to be started."""
        made = make_game(self.world, status="starting", turn_schedule=RARELY)
        self.db.execute("UPDATE runtime_records SET image_ref = %s WHERE game_id = %s", [self.harness.image_ref, made.game_id])
        self.forget_jobs()
        return made.game_id

    def running(self) -> str:
        game_id = self.game()
        self.use(lambda tasks, driver, client: tasks.start(game_id))
        self.is_well(game_id)
        return game_id

    def runtime(self, game_id: str) -> dict[str, Any]:
        row = self.db.execute(
            "SELECT to_jsonb(r) || jsonb_build_object('game', g.status, 'reason', g.status_reason)"
            " FROM runtime_records AS r JOIN games AS g USING (game_id) WHERE game_id = %s",
            [game_id],
        ).fetchone()
        assert row is not None
        return dict(row[0])

    def engine(self, game_id: str) -> State:
        endpoint = self.runtime(game_id)["endpoint"]
        return self.use(lambda tasks, driver, client: client.status(endpoint, game_id))

    def is_well(self, game_id: str, **expected: Any) -> None:
        """Everybody says the same: game, runtime, driver and engine, of which there is one."""
        runtime = self.runtime(game_id)
        wanted = {"game": "running", "wanted": "running", "status": "running", "unwell_since": None, "lease_until": None}
        assert {name: runtime[name] for name in (wanted | expected)} == wanted | expected
        assert self.harness.running(game_id) == 1
        observed = self.use(lambda tasks, driver, client: driver.inspect(game_id))
        assert observed is not None
        assert (observed.endpoint, observed.generation, observed.container_id) == (
            runtime["endpoint"],
            runtime["generation"],
            runtime["container_id"],
        )
        assert self.engine(game_id).turn == runtime["current_turn"]


def platform_on(
    driver: str, request: pytest.FixtureRequest, database: Database, directory: Path
) -> Generator[Platform, None, None]:
    """Make a platform, and end all its engines afterwards; a driver is `process`, `docker` or `swarm`."""
    if driver == "docker":
        return docker_platform(request.getfixturevalue("docker_daemon"), database, directory)
    if driver == "swarm":
        return swarm_platform(request.getfixturevalue("swarm"), database, directory, is_shared=False)
    where = {"BACKEND_RUNTIME_DRIVER": "process", "BACKEND_GAME_STATE_ROOT": str(directory / "games")}
    return _platform(database, ProcessHarness(directory), where)


def docker_platform(daemon: DockerDaemon, database: Database, directory: Path) -> Generator[Platform, None, None]:
    """Make a platform on a daemon."""
    where = daemon.environment(directory / "games", own_stack())
    return _platform(database, DockerHarness(daemon, directory), where)


def swarm_platform(swarm: Swarm, database: Database, directory: Path, *, is_shared: bool) -> Generator[Platform, None, None]:
    """Make a platform on a Swarm, whose nodes have one directory for games, or are to be taken for having each its own."""
    where = swarm.environment(directory / "games", own_stack())
    where["BACKEND_GAME_STATE_SHARED"] = "true" if is_shared else "false"
    return _platform(database, SwarmHarness(swarm, directory), where)


def _platform(database: Database, harness: Harness, where: dict[str, str]) -> Generator[Platform, None, None]:
    quick = {
        "BACKEND_ENGINE_CALL_TIMEOUT": "5s",
        "BACKEND_ENGINE_PROBE_TIMEOUT": "2s",
        "BACKEND_RUNTIME_STOP_GRACE_PERIOD": "1s",
        "BACKEND_RUNTIME_CONTAINER_MEMORY": "96m",
    }
    made = Platform(database, harness, where | quick)
    try:
        yield made
    finally:
        made.close()
