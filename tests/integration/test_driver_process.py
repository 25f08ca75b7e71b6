"""The process driver's own: workers that die at every step, processes that are not what they seem, what an engine is given."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest

from dev.engine.process import EngineProcess
from tests.services import until
from workers.runtime import process_driver
from workers.runtime.driver import ConfigInvalid, DriverUnavailable, Observed, Spec, StartFailed
from workers.runtime.process_driver import ProcessDriver

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "dev-engine:1.0.0"

T = TypeVar("T")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "games"
    for pid in engines(tmp_path):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def game() -> str:
    return str(uuid.uuid4())


def engines(under: Path) -> list[int]:
    """Return the process ids of the engines whose state is somewhere under a directory."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdecimal():
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            if f"GALAXY_ENGINE_STATE_DIR={under}".encode() in environment:
                found.append(int(process.name))
    return found


def run(root: Path, use: Callable[[ProcessDriver], Awaitable[T]], start_timeout: float = 30) -> T:
    async def scenario() -> T:
        driver = ProcessDriver(root, start_timeout=start_timeout, stop_grace=5)
        try:
            return await use(driver)
        finally:
            await driver.close()

    return asyncio.run(scenario())


def start(root: Path, game: str, generation: int = 1, start_timeout: float = 30) -> Observed:
    return run(root, lambda driver: driver.start(Spec(game, generation, "1.0.0", IMAGE)), start_timeout)


def inspect(root: Path, game: str) -> Observed:
    observed = run(root, lambda driver: driver.inspect(game))
    assert observed is not None
    return observed


def record(root: Path, game: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((root / game / "process.json").read_bytes())
    return content


def healthy(observed: Observed) -> bool:
    return httpx.get(f"{observed.endpoint}/healthz", trust_env=False).status_code == 200


# -- workers that die

_WORKER = """
import asyncio, os, signal, sys
from pathlib import Path
from workers.runtime.driver import Spec
from workers.runtime.process_driver import ProcessDriver

root, game, what, generation, left = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])

def hook(event, arguments):
    # What changes something, and the first look at a process.
    global left
    step = event in ("os.rename", "os.remove", "subprocess.Popen")
    step = step or event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR) and root in str(arguments[0])
    step = step or event == "open" and str(arguments[0]).endswith("/stat")
    if step:
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    driver = ProcessDriver(Path(root), stop_grace=5)
    # The thread that works is made beforehand; it is no step.
    await asyncio.to_thread(sys.addaudithook, hook)
    if what == "start":
        await driver.start(Spec(game, generation, "1.0.0", "dev-engine:1.0.0"))
    elif what == "stop":
        await driver.stop(game, 5)
    else:
        await driver.remove(game)

asyncio.run(main())
"""


def worker(root: Path, game: str, what: str, generation: int = 1, die_at: int = 0) -> int:
    command = [sys.executable, "-c", _WORKER, str(root), game, what, str(generation), str(die_at)]
    return subprocess.run(command, cwd=ROOT, timeout=60, check=False, start_new_session=True).returncode


# The steps: driver.lock, engine.lock, endpoint.json, exit.json, engine.log, process.json (two), engine.log again, the
# fork, its start time, process.json (two), and from then on looks at whether it lives and listens.
START_STEPS = 13
FORK_STEP = 9


def test_a_worker_that_dies_at_any_step_of_a_start_leaves_what_the_next_one_can_go_on_from(root: Path) -> None:
    for step in range(1, START_STEPS + 1):
        game = str(uuid.uuid4())
        assert worker(root, game, "start", die_at=step) == -signal.SIGKILL
        left = engines(root / game)
        assert len(left) == (1 if step > FORK_STEP else 0)
        observed = start(root, game)
        assert healthy(observed)
        assert inspect(root, game) == observed
        now = engines(root / game)
        assert now == [record(root, game)["pid"]]
        assert not left or now == left, "what ran already was not adopted"


@pytest.mark.parametrize("step", range(2, START_STEPS + 4, 2))
def test_a_worker_that_dies_at_any_step_of_a_replacement_leaves_one_engine(root: Path, game: str, step: int) -> None:
    start(root, game, 1)
    assert worker(root, game, "start", 2, die_at=step) == -signal.SIGKILL
    assert len(engines(root / game)) <= 1
    observed = start(root, game, 2)
    assert (observed.generation, healthy(observed)) == (2, True)
    assert engines(root / game) == [record(root, game)["pid"]]


@pytest.mark.parametrize(("what", "steps"), [("stop", 4), ("remove", 8)])
def test_a_worker_that_dies_while_it_stops_or_removes(root: Path, game: str, what: str, steps: int) -> None:
    for step in range(1, steps + 1):
        start(root, game)
        assert worker(root, game, what, die_at=step) == -signal.SIGKILL
        if what == "stop":
            run(root, lambda driver: driver.stop(game, 5))
            assert not inspect(root, game).is_running
        else:
            run(root, lambda driver: driver.remove(game))
            assert run(root, lambda driver: driver.inspect(game)) is None
            assert not {"engine.log", "endpoint.json"} & {path.name for path in (root / game).iterdir()}
        assert engines(root / game) == []
    assert worker(root, game, what, die_at=steps + 1) == 0


def test_an_engine_outlives_its_worker_and_the_next_one_knows_all_of_it(root: Path, game: str) -> None:
    assert worker(root, game, "start", generation=3) == 0
    observed = inspect(root, game)
    assert (observed.is_running, observed.generation, healthy(observed)) == (True, 3, True)
    assert start(root, game, 3) == observed
    pid = record(root, game)["pid"]
    assert os.getsid(pid) == pid
    # It is not our child: who is told its exit code is somebody else.
    run(root, lambda driver: driver.stop(game, 5))
    after = inspect(root, game)
    assert (after.is_running, after.exit_code) == (False, None)


def test_workers_that_start_one_game_at_the_same_time_make_one_engine(root: Path, game: str) -> None:
    command = [sys.executable, "-c", _WORKER, str(root), game, "start", "1", "0"]
    workers = [subprocess.Popen(command, cwd=ROOT) for _ in range(4)]
    assert [process.wait(60) for process in workers] == [0, 0, 0, 0]
    assert engines(root / game) == [record(root, game)["pid"]]
    assert healthy(inspect(root, game))


# -- engines that hang, or cannot start


def hang_at_start(root: Path, game: str) -> None:
    """An engine that reads this waits for somebody to write it."""
    (root / game).mkdir(parents=True)
    os.mkfifo(root / game / "state.json")


def test_an_engine_that_never_listens_is_killed(root: Path, game: str) -> None:
    hang_at_start(root, game)
    with pytest.raises(StartFailed, match=r"did not listen within 0\.7 s"):
        start(root, game, start_timeout=0.7)
    assert engines(root) == []
    assert not inspect(root, game).is_running
    (root / game / "state.json").unlink()
    assert healthy(start(root, game))


def test_one_whose_worker_died_before_writing_it_down_is_found_by_its_lock_and_killed_too(root: Path, game: str) -> None:
    hang_at_start(root, game)
    assert worker(root, game, "start", die_at=FORK_STEP + 1) == -signal.SIGKILL
    assert len(engines(root)) == 1
    assert record(root, game)["pid"] is None
    assert not (root / game / "endpoint.json").exists()
    assert not inspect(root, game).is_running
    with pytest.raises(StartFailed, match="did not listen"):
        start(root, game, start_timeout=0.7)
    assert engines(root) == []
    (root / game / "state.json").unlink()
    assert healthy(start(root, game))


def test_a_failed_start_says_what_the_engine_said(root: Path, game: str) -> None:
    (root / game).mkdir(parents=True)
    (root / game / "state.json").write_text("{")
    with pytest.raises(StartFailed, match="not started: "):
        start(root, game)
    until(lambda: inspect(root, game).exit_code == 1)
    assert not inspect(root, game).is_running


def test_a_state_root_that_cannot_be_is_a_wrong_configuration(tmp_path: Path, game: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigInvalid):
        start(tmp_path / "file" / "games", game)


@pytest.mark.parametrize(
    "image_ref",
    [
        "dev-engine",
        "dev-engine:",
        "dev-engine:../x",
        "dev-engine:1 2",
        "dev-engine:1\n",
        "x/dev-engine:1",
        "dev-engine:" + "1" * 65,
    ],
)
def test_another_image_is_a_wrong_configuration(root: Path, game: str, image_ref: str) -> None:
    with pytest.raises(ConfigInvalid):
        run(root, lambda driver: driver.start(Spec(game, 1, "1.0.0", image_ref)))
    assert not root.exists()


def test_closing_a_driver_ends_its_waiting_and_leaves_the_engine(root: Path, game: str) -> None:
    async def scenario() -> None:
        driver = ProcessDriver(root)
        starting = asyncio.create_task(driver.start(Spec(game, 1, "1.0.0", IMAGE)))
        await asyncio.to_thread(until, lambda: bool(engines(root)))
        await driver.close()
        with pytest.raises(DriverUnavailable, match="closed"):
            await starting

    hang_at_start(root, game)
    asyncio.run(scenario())
    assert len(engines(root)) == 1


# -- processes that are not what they seem


def test_a_process_that_has_the_id_of_a_former_engine_is_left_alone(root: Path, game: str) -> None:
    start(root, game)
    run(root, lambda driver: driver.stop(game, 5))
    with subprocess.Popen(["sleep", "60"]) as innocent:
        try:
            path = root / game / "process.json"
            path.write_text(json.dumps({**record(root, game), "pid": innocent.pid}))
            assert not inspect(root, game).is_running
            run(root, lambda driver: driver.stop(game, 0))
            # Also while something holds the lock.
            with (root / game / "engine.lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                for use in (lambda driver: driver.stop(game, 0), lambda driver: driver.remove(game)):
                    with pytest.raises(DriverUnavailable):
                        run(root, use)
            observed = start(root, game)
            assert healthy(observed)
            assert record(root, game)["pid"] != innocent.pid
            assert innocent.poll() is None
        finally:
            innocent.kill()


def test_signals_go_to_the_process_that_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen(["sleep", "60"]) as innocent:
        try:
            started = process_driver._start_time(innocent.pid)
            assert started is not None
            process_driver._end(process_driver._Process(innocent.pid, started - 1), 0)
            assert innocent.poll() is None
            process_driver._end(process_driver._Process(innocent.pid, started), 5)
            assert innocent.wait(5) == -signal.SIGTERM
        finally:
            innocent.kill()
    # Nobody has the id any more.
    process_driver._end(process_driver._Process(innocent.pid, started), 0)


def test_an_engine_that_somebody_else_has_started_is_left_alone(root: Path, game: str) -> None:
    with EngineProcess(root / game) as engine:
        with pytest.raises(StartFailed, match="has not started"):
            start(root, game)
        assert run(root, lambda driver: driver.inspect(game)) is None
        run(root, lambda driver: driver.stop(game, 0))
        assert httpx.get(f"{engine.url}/healthz", trust_env=False).status_code == 200
    assert healthy(start(root, game))


def test_a_game_that_another_worker_is_busy_with_is_waited_for_and_then_left(root: Path, game: str) -> None:
    start(root, game)
    with (root / game / "driver.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert inspect(root, game).is_running
        with pytest.raises(DriverUnavailable, match="busy"):
            asyncio.run(ProcessDriver(root, start_timeout=0.1, stop_grace=0.1).stop(game, 0.1))
    run(root, lambda driver: driver.stop(game, 5))


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "null"])
def test_a_record_that_is_not_ours_is_none(root: Path, game: str, content: str) -> None:
    (root / game).mkdir(parents=True)
    (root / game / "process.json").write_text(content)
    (root / "lost+found").mkdir()
    assert run(root, lambda driver: driver.inspect(game)) is None
    assert run(root, lambda driver: driver.list()) == []
    assert healthy(start(root, game))


# -- what an engine is given, and leaves


def test_an_engine_is_given_no_secret_and_no_file_of_ours(root: Path, game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_POSTGRES_DSN", "postgresql://secret")
    monkeypatch.setenv("SOME_TOKEN", "secret")
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "3")
    start(root, game)
    pid = record(root, game)["pid"]
    environment = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"secret" not in environment
    assert b"GALAXY_ENGINE_LAST_TURN=3" in environment
    expected = {"/dev/null", str(root / game / "engine.log"), str(root / game / "engine.lock")}

    def files() -> set[str]:
        opened = set()
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                opened.add(os.readlink(link))
        return {name for name in opened if not name.startswith(("socket:", "anon_inode:"))}

    # It may just be making sure that endpoint.json is on the disk.
    until(lambda: files() == expected)


def test_what_is_written_is_ours_alone(root: Path, game: str) -> None:
    start(root, game)
    assert oct((root / game).stat().st_mode)[-3:] == "700"
    assert {oct(path.stat().st_mode)[-3:] for path in (root / game).iterdir()} == {"600"}
    assert [path.name for path in (root / game).iterdir() if path.name.endswith(".new")] == []


def test_a_log_is_kept_short(root: Path, game: str) -> None:
    start(root, game)
    log = root / game / "engine.log"
    with log.open("ab") as file:
        for number in range(100_000):
            file.write(b"line %d: there is much to say\n" % number)
    assert log.stat().st_size > 2 * process_driver.LARGEST_LOG
    inspect(root, game)
    assert log.stat().st_size < process_driver.LARGEST_LOG
    assert run(root, lambda driver: driver.logs(game, 1)) == "line 99999: there is much to say"
    run(root, lambda driver: driver.stop(game, 5))
    lines = run(root, lambda driver: driver.logs(game, 10**9)).splitlines()
    assert lines[0].startswith("line ")
    assert "stopped" in lines[-1]
    assert len(lines) > 1000
    assert b"\0" not in log.read_bytes()


def test_an_engine_that_ends_is_not_left_as_a_zombie(root: Path, game: str) -> None:
    start(root, game)
    pid = record(root, game)["pid"]
    os.kill(pid, signal.SIGTERM)
    until(lambda: inspect(root, game).exit_code == 0)
    assert not Path(f"/proc/{pid}").exists()


def test_a_state_directory_that_goes_away_harms_nobody(root: Path, game: str) -> None:
    start(root, game)
    [pid] = engines(root)
    shutil.rmtree(root / game)
    assert run(root, lambda driver: driver.list()) == []
    run(root, lambda driver: driver.stop(game, 1))
    os.kill(pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{pid}").exists())
