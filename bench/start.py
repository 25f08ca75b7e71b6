"""How long our programs take to start, and how much memory they then hold."""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from bench import data, servers
from bench.section import Section, counted, ratios, spread, table, turned
from bench.streamers import DATABASE
from dev.cluster import Cluster, free_port

_BASE = "Python, psycopg imported"
_BARE = "import psycopg, sys; print('ready', flush=True); sys.stdin.read()"

_SETTLED = 1.0  # seconds after the start: what it does by itself first is done
_PATIENCE = 60.0
_MEBIBYTE = 1024

ROUNDS = 5
SMOKE_ROUNDS = 1


@dataclass(frozen=True)
class Found:
    """The seconds from the start until it could be used, and the memory of each of its processes in KiB (PSS)."""

    seconds: float
    memory: list[int]


def processes(parent: int) -> Iterator[int]:
    """Yield a process and all that descend from it."""
    yield parent
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{parent}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))


def memory(pid: int) -> int:
    """Return the KiB of a process, what is shared divided by those who share it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise RuntimeError(f"nothing is told of the memory of {pid}")


def until(met: Callable[[], bool], log: Path) -> None:
    """Wait for something. Raises RuntimeError with what the program says when it takes too long."""
    end = time.monotonic() + _PATIENCE
    while not met():
        if time.monotonic() > end:
            raise RuntimeError(f"{log.stem} does not start:\n{log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.01)


def api(cluster: Cluster, directory: Path) -> tuple[subprocess.Popen[bytes], Callable[[], object]]:
    server = servers.start_api(cluster, DATABASE, directory, "api")
    return server.process, lambda: servers.first_answer(server, "/readyz")


def push(cluster: Cluster, directory: Path) -> tuple[subprocess.Popen[bytes], Callable[[], object]]:
    address = f"127.0.0.1:{free_port()}"
    log = directory / "push.log"
    given = servers.settings(cluster, DATABASE, directory, BACKEND_GRPC_PUSH_LISTEN_ADDR=address)

    def is_serving() -> bool:
        # A channel of its own each time: one that failed waits before it tries again.
        own = [("grpc.use_local_subchannel_pool", 1)]
        with contextlib.suppress(grpc.RpcError), grpc.insecure_channel(address, options=own) as channel:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=1)
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
        return False

    return servers.spawn_module(["app", "push"], given, log), lambda: until(is_serving, log)


def worker(cluster: Cluster, directory: Path) -> tuple[subprocess.Popen[bytes], Callable[[], object]]:
    log = directory / "worker.log"
    process = servers.spawn_module(["app", "worker"], servers.settings(cluster, DATABASE, directory), log)
    return process, lambda: until(lambda: '"working"' in log.read_text(), log)


def bare(_cluster: Cluster, _directory: Path) -> tuple[subprocess.Popen[bytes], Callable[[], object]]:
    process = subprocess.Popen([sys.executable, "-c", _BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    return process, process.stdout.readline


_PROGRAMS = {_BASE: bare, "api": api, "push": push, "worker": worker}


def started(program: str, cluster: Cluster, directory: Path) -> Found:
    """Start a program, look at it, and stop it."""
    began = time.monotonic()
    process, wait = _PROGRAMS[program](cluster, directory)
    try:
        wait()
        seconds = time.monotonic() - began
        time.sleep(_SETTLED)
        return Found(seconds, [memory(pid) for pid in processes(process.pid)])
    finally:
        servers.stop([process])
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def run(cluster: Cluster, directory: Path, *, is_smoke: bool) -> Section:
    """Measure, and tell it."""
    found: dict[str, list[Found]] = {program: [] for program in _PROGRAMS}
    rounds = SMOKE_ROUNDS if is_smoke else ROUNDS
    with data.database(cluster, DATABASE):
        for turn in range(rounds):
            for program in turned(list(_PROGRAMS), turn):
                found[program].append(started(program, cluster, directory))
            print(f"start, round {turn + 1} of {rounds}", file=sys.stderr, flush=True)
    times = {program: {turn: one.seconds for turn, one in enumerate(all_of)} for program, all_of in found.items()}
    sizes = {program: {turn: sum(one.memory) / _MEBIBYTE for turn, one in enumerate(all_of)} for program, all_of in found.items()}
    rows = [
        [
            program,
            f"{statistics.median(times[program].values()):.2f}",
            spread(ratios(times[program], times[_BASE])),
            ", ".join(f"{size / _MEBIBYTE:.0f}" for size in all_of[-1].memory),
            f"{statistics.median(sizes[program].values()):.0f}",
            spread(ratios(sizes[program], sizes[_BASE])),
        ]
        for program, all_of in found.items()
    ]
    lines = [
        f"From the start of `python -m app …` until it can be used: `/readyz` answers 200 (api, {servers.WORKERS} processes",
        f"of {servers.THREADS} threads), gRPC's health says so (push), the log does (worker). Memory a second later, PSS, with",
        f"nothing to do; what processes share counts in parts. {counted(rounds, 'round')}.",
        "",
        *table(["program", "start, s", f"÷ {_BASE}", "MiB of each process", "MiB", f"÷ {_BASE}"], rows),
    ]
    return Section("Start and memory", lines)
