"""The supervisor with real child processes: small scripts that write into one journal."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import load
from app.supervisor import MARGIN, SqitchError, deploy, programs
from tests.services import until

ROOT = Path(__file__).resolve().parents[2]

SUPERVISE = """
import json, sys
from app import logs
from app.supervisor import Program, Restarts, Supervisor
spec = json.loads(sys.argv[1])
logs.configure("serve", "info")
child = [sys.executable, "-S", "-E", "-c"]
sys.exit(Supervisor(
    [
        Program(p["name"], [*child, p["code"], p["name"], spec["journal"]], p["stop_timeout"])
        for p in spec["programs"]
    ],
    Restarts(**spec["restarts"]),
).run())
"""

CHILD = """
import os, signal, subprocess, sys, time
name, journal = sys.argv[1:]
def say(event):
    with open(journal, "a") as file:
        file.write(f"{name} {event} {os.getpid()}\\n")
def stop(*_):
    say("stopping")
    time.sleep(STOP)
    say("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
"""
STAYS = CHILD + 'say("started")\ntime.sleep(60)\n'
STUBBORN = (
    CHILD
    + 'signal.signal(signal.SIGTERM, lambda *_: say("refused"))\nsay("started")\n'
    + ("until = time.monotonic() + 60\nwhile time.monotonic() < until: time.sleep(1)\n")
)
PARENT = CHILD + (
    'child = subprocess.Popen(["sleep", "60"])\nopen(journal + ".child", "w").write(str(child.pid))\n'
    'say("started")\ntime.sleep(60)\n'
)


def stays(stop: float = 0.0) -> str:
    return STAYS.replace("STOP", str(stop))


def exits(code: int) -> str:
    return CHILD + f'say("started")\nsys.exit({code})\n'


def is_alive(pid: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


class Run:
    """A supervisor in a process of its own, and the journal of its children."""

    def __init__(self, directory: Path) -> None:
        self.journal = directory / "journal"
        self.journal.touch()
        self.process: subprocess.Popen[str] | None = None

    def start(self, *given: tuple[str, str] | tuple[str, str, float], **restarts: float) -> None:
        spec = {
            "journal": str(self.journal),
            "programs": [{"name": p[0], "code": p[1], "stop_timeout": p[2] if len(p) == 3 else 10.0} for p in given],
            "restarts": {"early": 1.0, "first_wait": 0.01, "longest_wait": 0.05, **restarts},
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", SUPERVISE, json.dumps(spec)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def events(self, event: str) -> list[tuple[str, int]]:
        """Return (program, pid) of each such event, in order."""
        lines = [line.split() for line in self.journal.read_text().splitlines()]
        return [(name, int(pid)) for name, what, pid in lines if what == event]

    def wait_started(self, count: int) -> dict[str, int]:
        """Wait for so many starts; return the newest process id of each program."""
        process = self.process
        assert process is not None
        until(lambda: len(self.events("started")) >= count or process.poll() is not None)
        assert process.poll() is None, "the supervisor has ended"
        return dict(self.events("started"))

    def signal(self, signo: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(signo)

    def end(self, timeout: float = 30) -> tuple[int, list[tuple[str, str]], str]:
        """Wait for the supervisor's end; return its exit code, (message, program) of its log, and stderr."""
        assert self.process is not None
        output, errors = self.process.communicate(timeout=timeout)
        lines = map(json.loads, output.splitlines())
        return self.process.returncode, [(line["msg"], line.get("program", "")) for line in lines], errors


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    if run.process is not None:
        run.process.kill()
        run.process.communicate()


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_programs_one_after_another(run: Run, signo: signal.Signals) -> None:
    run.start(("first", stays(0.3)), ("second", stays(0.1)), ("third", stays()))
    pids = run.wait_started(3)
    run.signal(signo)
    code, output, errors = run.end()
    assert (code, errors) == (0, "")
    events = [tuple(line.split()[:2]) for line in run.journal.read_text().splitlines()[3:]]
    assert events == [(name, what) for name in ("first", "second", "third") for what in ("stopping", "stopped")]
    assert ("program stopped", "first") in output
    assert not any(map(is_alive, pids.values()))


def test_a_killed_program_is_started_again_and_the_others_are_left_alone(run: Run) -> None:
    run.start(("first", stays()), ("second", stays()))
    before = run.wait_started(2)
    os.kill(before["first"], signal.SIGKILL)
    after = run.wait_started(3)
    assert after["first"] != before["first"]
    assert after["second"] == before["second"]
    run.signal(signal.SIGTERM)
    assert run.end()[0] == 0


def test_being_killed_is_never_taken_for_being_unable_to_work(run: Run) -> None:
    run.start(("first", stays()), failures=3, early=60.0)
    for count in range(1, 7):
        os.kill(run.wait_started(count)["first"], signal.SIGKILL)
    run.wait_started(7)
    run.signal(signal.SIGTERM)
    assert run.end()[0] == 0


@pytest.mark.parametrize("exit_code", [0, 1])
def test_a_program_that_keeps_ending_at_once_ends_everything(run: Run, exit_code: int) -> None:
    run.start(("first", stays()), ("second", exits(exit_code)), failures=5, early=60.0)
    code, _, errors = run.end()
    assert code == 1
    assert errors == (
        f"serve: second ended 5 times in a row within 60 s of its start, the last time with exit code {exit_code}\n"
    )
    assert [name for name, _ in run.events("started")].count("second") == 5
    assert [name for name, _ in run.events("stopped")] == ["first"]


def test_a_program_that_worked_for_a_while_is_started_again_without_end(run: Run) -> None:
    works = CHILD + 'say("started")\ntime.sleep(0.1)\nsys.exit(1)\n'
    run.start(("first", works), failures=2, early=0.05)
    run.wait_started(6)
    run.signal(signal.SIGTERM)
    assert run.end()[0] == 0


def test_the_waits_between_starts_grow(run: Run) -> None:
    begun = time.monotonic()
    run.start(("first", exits(1)), failures=5, early=60.0, first_wait=0.1, longest_wait=0.4)
    assert run.end()[0] == 1
    assert time.monotonic() - begun > 0.1 + 0.2 + 0.4 + 0.4


def test_a_refused_configuration_is_not_tried_again(run: Run) -> None:
    run.start(("first", stays()), ("second", exits(78)))
    code, _, errors = run.end()
    assert code == 1
    assert errors == "serve: second refuses its configuration (exit code 78)\n"
    assert [name for name, _ in run.events("started")].count("second") == 1


def test_a_program_that_does_not_stop_in_time_is_killed(run: Run) -> None:
    run.start(("first", STUBBORN, 0.3), ("second", stays()))
    pids = run.wait_started(2)
    run.signal(signal.SIGTERM)
    code, output, _ = run.end()
    assert code == 1
    assert ("program killed: it did not stop in time", "first") in output
    assert [name for name, _ in run.events("refused")] == ["first"]
    assert [name for name, _ in run.events("stopped")] == ["second"]
    assert not is_alive(pids["first"])


def test_a_second_signal_kills_at_once(run: Run) -> None:
    run.start(("first", STUBBORN, 60.0), ("second", stays()))
    pids = run.wait_started(2)
    run.signal(signal.SIGTERM)
    until(lambda: run.events("refused"))
    run.signal(signal.SIGINT)
    assert run.end(timeout=5)[0] == 1
    assert run.events("stopping") == []
    assert not any(map(is_alive, pids.values()))


def test_the_programs_die_with_a_killed_supervisor(run: Run) -> None:
    run.start(("first", STUBBORN), ("second", stays()))
    pids = run.wait_started(2)
    run.signal(signal.SIGKILL)
    until(lambda: not any(map(is_alive, pids.values())))
    assert run.events("stopping") == []


def test_what_a_killed_program_leaves_behind_goes_before_it_is_started_again(run: Run) -> None:
    run.start(("first", PARENT))
    pid = run.wait_started(1)["first"]
    child = int(Path(f"{run.journal}.child").read_text())
    os.kill(pid, signal.SIGKILL)
    run.wait_started(2)
    assert not is_alive(child)
    run.signal(signal.SIGTERM)
    run.end()


def test_a_signal_while_a_program_waits_for_its_restart_stops_the_rest(run: Run) -> None:
    run.start(("first", exits(1)), ("second", stays()), first_wait=60.0, longest_wait=60.0)
    run.wait_started(2)
    until(lambda: not is_alive(run.wait_started(2)["first"]))
    run.signal(signal.SIGTERM)
    assert run.end()[0] == 0


def environment(**more: str) -> dict[str, str]:
    return {
        "BACKEND_POSTGRES_DSN": "postgresql://somebody:hush@127.0.0.1:1/galaxy?search_path=backend",
        "BACKEND_SMTP_HOST": "localhost",
        "BACKEND_SMTP_FROM": "galaxy@example.com",
        "BACKEND_RUNTIME_DRIVER": "process",
        "BACKEND_GAME_STATE_ROOT": "/nowhere/games",
        "BACKEND_GEOIP_DB_PATH": "/nowhere/geo.mmdb",
        **{f"BACKEND_{name.upper()}": value for name, value in more.items()},
    }


def test_the_three_programs_stop_in_order_each_within_its_budget() -> None:
    config = load(environment(http_shutdown_timeout="4s", shutdown_timeout="9s", grpc_push_shutdown_timeout="3s"))
    assert [(p.name, p.stop_timeout) for p in programs(config, Path("/run"))] == [
        ("api", 4 + MARGIN),
        ("worker", 9 + MARGIN),
        ("push", 3 + MARGIN),
    ]
    assert [list(p.command[1:]) for p in programs(config, Path("/run"))] == [["-m", "app", n] for n in ("api", "worker", "push")]


def test_each_program_has_a_prometheus_address_of_its_own() -> None:
    config = load(environment(otel_metrics_exporter="prometheus", otel_prometheus_listen_addr="127.0.0.1:9100"))
    addresses = {p.name: (p.environment or {}).get("BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR") for p in programs(config, Path("/run"))}
    assert addresses == {"api": "127.0.0.1:9100", "push": "127.0.0.1:9101", "worker": "127.0.0.1:9102"}


def test_a_failed_deploy_says_what_sqitch_said_but_no_password() -> None:
    with pytest.raises(SqitchError) as caught:
        deploy(environment()["BACKEND_POSTGRES_DSN"])
    assert "sqitch deploy ended with" in str(caught.value)
    assert "hush" not in str(caught.value)


def test_serve_in_development_does_not_start_without_its_schema() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "app", "serve"],
        cwd=ROOT,
        env={**os.environ, **environment(development="true")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("serve: sqitch deploy ended with")
