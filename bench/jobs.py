"""Jobs: how many that do nothing a worker gets done, and what it costs to defer one.

`python -m bench.jobs CONNINFO` is a worker process: Procrastinate's own, connected and with as many at once as ours; it says when
it is ready, works when it is told to, and ends when no job is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import procrastinate

from app import dsn
from app.supervisor import ROOT
from bench import data, pgbench, wakes
from bench.section import Section, counted, ratios, spread, table, turned
from bench.streamers import DATABASE, connect
from dev.cluster import Cluster
from workers.queue import QUICK_AT_ONCE

WRITERS = 8

_QUEUE = "bench"
_TASK = "bench_nothing"

_WAITING = f"""
    TRUNCATE procrastinate.procrastinate_jobs CASCADE;
    SET session_replication_role = replica;
    INSERT INTO procrastinate.procrastinate_jobs (queue_name, task_name, status, attempts)
    SELECT '{_QUEUE}', '{_TASK}', 'succeeded', 1 FROM generate_series(1, {{finished}});
    INSERT INTO procrastinate.procrastinate_jobs (queue_name, task_name)
    SELECT '{_QUEUE}', '{_TASK}' FROM generate_series(1, {{waiting}});
    SET session_replication_role = origin;
"""

_DEFER = f"SELECT backend.job_defer('{_QUEUE}', '{_TASK}');\n"

# Worker processes and finished jobs that lie around.
_CASES = ((1, False), (1, True), (2, False))


@dataclass(frozen=True)
class Plan:
    """The rounds, the seconds in which jobs are deferred, the jobs that are worked on in one go, and the finished ones."""

    rounds: int
    seconds: float
    waiting: int
    finished: int


DEFAULT = Plan(3, 2.0, 1_500, 100_000)
SMOKE = Plan(1, 1.0, 50, 1_000)


@contextlib.contextmanager
def workers(cluster: Cluster, count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """So many worker processes that wait to be told to begin."""
    conninfo = dsn.conninfo(
        cluster.dsn("galaxy_worker", DATABASE), application_name="bench", settings={"search_path": "procrastinate"}
    )
    started: list[subprocess.Popen[str]] = []
    try:
        for _ in range(count):
            command = [sys.executable, "-m", "bench.jobs", conninfo]
            started.append(subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError("a worker does not start")
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


def worked(cluster: Cluster, processes: int, waiting: int, finished: int) -> float:
    """Return how many jobs a second are done."""
    with connect(cluster) as connection:
        connection.execute(_WAITING.format(waiting=waiting, finished=finished).encode())
        connection.execute("VACUUM (ANALYZE) procrastinate.procrastinate_jobs")
    with workers(cluster, processes) as started:
        began = time.monotonic()
        for process in started:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in started:
            assert process.stdout is not None
            if process.stdout.readline() != "done\n":
                raise RuntimeError("a worker has ended too early")
        took = time.monotonic() - began
    with connect(cluster) as connection:
        row = connection.execute("SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE status = 'succeeded'").fetchone()
    assert row is not None
    if row[0] != waiting + finished:
        raise RuntimeError(f"of {waiting} jobs {row[0] - finished} were done")
    return waiting / took


def working(cluster: Cluster, plan: Plan) -> list[str]:
    """What workers get done."""
    found: dict[tuple[int, bool], dict[int, float]] = {case: {} for case in _CASES}
    for turn in range(plan.rounds):
        for case in turned(_CASES, turn):
            processes, is_full = case
            found[case][turn] = worked(cluster, processes, plan.waiting * processes, plan.finished if is_full else 0)
        print(f"jobs, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    base = found[_CASES[0]]
    rows = [
        [
            str(processes),
            f"{plan.finished if is_full else 0:,}",
            f"{statistics.median(rates.values()):,.0f}",
            f"{statistics.median(rates.values()) / processes:,.0f}",
            spread(ratios(rates, base)),
        ]
        for (processes, is_full), rates in found.items()
    ]
    return table(["processes", "finished jobs", "jobs/s", "jobs/s for each process", "÷ the first line"], rows)


def deferring(cluster: Cluster, plan: Plan) -> list[str]:
    """What it costs to defer a job, by the way to wake."""
    found: dict[str, dict[int, float]] = {way: {} for way in wakes.WAYS}
    with connect(cluster) as connection:
        switch = wakes.Wakes(connection)
        for turn in range(plan.rounds):
            for way in turned(wakes.WAYS, turn):
                switch.use(way)
                connection.execute("TRUNCATE procrastinate.procrastinate_jobs CASCADE")
                done = pgbench.run(cluster, DATABASE, _DEFER, clients=WRITERS, seconds=plan.seconds, login="postgres")
                found[way][turn] = pgbench.figures(done).rate
            print(f"deferring, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
        switch.use("conditional")
    rows = [[way, spread(ratios(rates, found["every"])), spread(ratios(rates, found["none"]))] for way, rates in found.items()]
    return table(["wake-up", "jobs/s ÷ Procrastinate's trigger", "÷ none"], rows)


def run(cluster: Cluster, directory: Path, *, is_smoke: bool) -> Section:
    """Measure, and tell it."""
    plan = SMOKE if is_smoke else DEFAULT
    with data.database(cluster, DATABASE):
        done = working(cluster, plan)
        with wakes.waker(cluster, DATABASE, directory):
            deferred = deferring(cluster, plan)
    lines = [
        f"Jobs that do nothing, {plan.waiting:,} for each process, done by Procrastinate's worker with {QUICK_AT_ONCE} at once;",
        f"{counted(plan.rounds, 'round')}. The time includes what a worker takes to begin and to end.",
        "",
        *done,
        f"### Deferring, {WRITERS} writers",
        "",
        "`conditional` is what we do; `none` is without any wake-up; `every` is by Procrastinate's own trigger.",
        "",
        *deferred,
    ]
    return Section("Jobs", lines)


async def work(conninfo: str) -> None:
    """Be a worker process."""
    # As many connections as our workers have at least.
    app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=conninfo, min_size=1, max_size=4))

    @app.task(name=_TASK, queue=_QUEUE)
    async def nothing() -> None:
        pass

    async with app.open_async():
        print("ready", flush=True)
        sys.stdin.readline()
        await app.run_worker_async(queues=[_QUEUE], concurrency=QUICK_AT_ONCE, wait=False, install_signal_handlers=False)
    print("done", flush=True)


if __name__ == "__main__":
    # By its own name: Procrastinate warns of an App that is made in the main module.
    from bench import jobs

    asyncio.run(jobs.work(sys.argv[1]))
