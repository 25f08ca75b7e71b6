"""The push stream and its wake-up: `python -m bench.push [--smoke]` prints what bench/push.md holds.

Three questions: how long an event takes from its commit to each of 1, 4 and 16 subscribers at 100 and 1,000 events a second;
what waking the sequencer costs the writers at 250 to 2,000 writes a second; how many events a second 8 writers get through to
4 subscribers, against a NOTIFY in every transaction. Writers start by the clock, whether the one before is done or not, so that
none hides that others wait. What is compared is measured in turn, in the same round; ratios are told with their spread. Commits
are flushed to the disk, without which a NOTIFY costs little. From the repository's root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from app.supervisor import ROOT
from bench.load import percentile
from bench.streamers import DATABASE, Gateway, Streamer, connect, deploy, emit, streamers
from dev.cluster import DURABLE, Cluster, find_binaries, throw_away

# What the writers do about waking: as it is; never; in every transaction.
_WAKE = "CREATE OR REPLACE FUNCTION backend.push_wake() RETURNS void LANGUAGE plpgsql AS "
WAKES = {
    "conditional": None,
    "none": f"{_WAKE}'BEGIN END'",
    "every": f"{_WAKE}'BEGIN NOTIFY galaxy_push_pending; END'",
}

_SCRIPT = """\\set n random(1, 1000000000000)
SELECT backend.push_client_event(
    gen_random_uuid(), NULL, 'bench', jsonb_build_object('n', :n::bigint), gen_random_uuid(), 'request');
"""
WRITERS = 8


@dataclass(frozen=True)
class Plan:
    rounds: int
    seconds: float
    subscribers: tuple[int, ...] = (1, 4, 16)
    rates: tuple[int, ...] = (100, 1000)
    writes: tuple[int, ...] = (250, 500, 1000, 2000)


DEFAULT = Plan(3, 4.0)
SMOKE = Plan(1, 0.5, (1, 4), (100,), (250, 500))


Written = dict[int, tuple[float, float]]
"""When an event's transaction began and when it had committed, by its number."""


def write_by_the_clock(cluster: Cluster, rate: int, seconds: float) -> Written:
    """Make an event each 1/rate seconds."""
    written: Written = {}
    began = time.monotonic() + 0.2

    def work(writer: int) -> None:
        with connect(cluster) as connection:
            for step in range(writer, round(rate * seconds), WRITERS):
                due = began + step / rate
                time.sleep(max(0.0, due - time.monotonic()))
                asked = time.monotonic()
                emit(connection, step)
                written[step] = (asked, time.monotonic())

    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(work, range(WRITERS)))
    return written


def wait_for(gateways: Sequence[Gateway], counts: Sequence[int], timeout: float = 60) -> None:
    until = time.monotonic() + timeout
    while any(len(g.received) < count for g, count in zip(gateways, counts, strict=True)):
        if time.monotonic() > until:
            raise RuntimeError("not all that was committed has come")
        time.sleep(0.01)


def latencies(cluster: Cluster, streamer: Streamer, plan: Plan) -> list[str]:
    """Commit to receive, by subscribers and rate; writers and subscribers are in processes of their own."""
    lines = ["| subscribers | events/s | p50, ms | p99, ms | p50 ÷ the writer's transaction |", "| --- | --- | --- | --- | --- |"]
    found: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for turn in range(plan.rounds):
        for count in plan.subscribers:
            for rate in plan.rates:
                with subscribed(streamer, count) as read:
                    written = loaded(cluster, rate, plan.seconds)
                    received = read(len(written))
                delays = sorted(max(0.0, at - written[n][1]) for n, at in received)
                own = percentile(sorted(end - asked for asked, end in written.values()), 0.5)
                found.setdefault((count, rate), []).append((percentile(delays, 0.5), percentile(delays, 0.99), own))
        print(f"latencies, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    for (count, rate), rounds in found.items():
        p50, p99 = ([one[i] * 1000 for one in rounds] for i in (0, 1))
        lines.append(f"| {count} | {rate:,} | {spread(p50)} | {spread(p99)} | {spread([a / c for a, _, c in rounds])} |")
    return lines


def wake_costs(cluster: Cluster, plan: Plan) -> list[str]:
    """What a writer waits, by rate and way to wake."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with connect(cluster) as connection:
        own = connection.execute("SELECT pg_get_functiondef('backend.push_wake()'::regprocedure)").fetchone()
        assert own is not None
        for turn in range(plan.rounds):
            for rate in plan.writes:
                ways = list(WAKES)
                for way in ways[turn % 3 :] + ways[: turn % 3]:
                    connection.execute((WAKES[way] or own[0]).encode())
                    took = pgbench(cluster, rate, plan.seconds)
                    found.setdefault((way, rate), []).append((percentile(took, 0.5), percentile(took, 0.99)))
            connection.execute(own[0].encode())
            print(f"wake-up, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    slowest = plan.writes[0]
    lines = [
        f"| wake-up | writes/s | p50, ms | p99, ms | p99 ÷ p99 at {slowest} | p99 ÷ without wake-up |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for (way, rate), rounds in found.items():
        p50, p99 = ([one[i] * 1000 for one in rounds] for i in (0, 1))
        base = [a[1] / b[1] for a, b in zip(rounds, found[way, slowest], strict=True)]
        none = [a[1] / b[1] for a, b in zip(rounds, found["none", rate], strict=True)]
        lines.append(f"| {way} | {rate:,} | {spread(p50)} | {spread(p99)} | {spread(base)} | {spread(none)} |")
    return lines


def sustained(cluster: Cluster, streamer: Streamer, plan: Plan) -> list[str]:
    """Events a second that 8 writers, as fast as they can, get through to 4 subscribers, and to 16."""
    found: dict[str, list[float]] = {"every, 4": [], "conditional, 4": [], "conditional, 1": [], "conditional, 16": []}
    with connect(cluster) as connection:
        own = connection.execute("SELECT pg_get_functiondef('backend.push_wake()'::regprocedure)").fetchone()
        assert own is not None
        for turn in range(plan.rounds):
            for name, rates in found.items():
                way, _, count = name.partition(", ")
                connection.execute((WAKES[way] or own[0]).encode())
                with subscribed(streamer, int(count)) as read:
                    began = time.monotonic()
                    written = len(pgbench(cluster, 0, plan.seconds))
                    ended = max(at for _, at in read(written))
                rates.append(written / (ended - began))
            connection.execute(own[0].encode())
            print(f"sustained, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    base, one = found["every, 4"], found["conditional, 1"]
    lines = [
        "| wake-up, subscribers | events/s to each | ÷ NOTIFY in every transaction | ÷ one subscriber |",
        "| --- | --- | --- | --- |",
    ]
    for name, rates in found.items():
        ratios = [spread([a / b for a, b in zip(rates, other, strict=True)]) for other in (base, one)]
        lines.append(f"| {name} | {statistics.median(rates):,.0f} | {' | '.join(ratios)} |")
    return lines


# Processes of their own, so that what measures does not hold up what is measured.


def loaded(cluster: Cluster, rate: int, seconds: float) -> Written:
    """Write in another process, by the clock."""
    answer = subprocess.run(
        [sys.executable, "-m", "bench.push", "write", str(cluster.directory), str(rate), str(seconds)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
        timeout=seconds * 5 + 60,
    )
    return {int(n): (asked, end) for n, (asked, end) in json.loads(answer.stdout).items()}


def pgbench(cluster: Cluster, rate: int, seconds: float) -> list[float]:
    """Write without Python, so many times a second, or as often as can be where the rate is 0.

    Returns how long each transaction took, in order.
    """
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "write.sql")
        script.write_text(_SCRIPT)
        subprocess.run(
            [
                find_binaries() / "pgbench",
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={WRITERS}",
                "--jobs=2",
                f"--time={max(1, round(seconds))}",
                *([f"--rate={rate}"] if rate else []),
                f"--file={script}",
                "--log",
                f"--log-prefix={directory}/log",
                f"--host={cluster.socket_directory}",
                f"--port={cluster.port}",
                "--username=postgres",
                DATABASE,
            ],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "PGOPTIONS": "-csearch_path=backend"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
            timeout=seconds + 60,
        )
        # client, number, microseconds, …
        return sorted(
            int(line.split()[2]) / 1e6 for log in Path(directory).glob("log.*") for line in log.read_text().splitlines()
        )


@contextlib.contextmanager
def subscribed(streamer: Streamer, count: int) -> Iterator[Callable[[int], list[tuple[int, float]]]]:
    """Subscribe in another process; what is given waits for so many events, and returns each and when it came to each."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.push", "read", streamer.address, str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdout.readline()

        def read(events: int) -> list[tuple[int, float]]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{events}\n")
            process.stdin.flush()
            return [(n, at) for n, at in json.loads(process.stdout.readline())]

        yield read
    finally:
        process.stdin.close()
        process.wait(30)
        process.stdout.close()


def read_here(address: str, count: int) -> None:
    gateways = [Gateway([address], f"gateway-{number}") for number in range(count)]
    print("ready", flush=True)
    events = int(sys.stdin.readline())
    wait_for(gateways, [events] * count)
    print(json.dumps([(n, at) for gateway in gateways for n, _, at in gateway.received]), flush=True)
    closing = [threading.Thread(target=gateway.close) for gateway in gateways]
    for one in closing:
        one.start()


def spread(figures: Sequence[float]) -> str:
    return f"{statistics.median(figures):.2f} ({min(figures):.2f}–{max(figures):.2f})"


def report(plan: Plan) -> str:
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galaxy-bench-")))
        cluster = stack.enter_context(throw_away({**DURABLE, "shared_buffers": "256MB"}))
        deploy(cluster)
        (streamer,) = stack.enter_context(streamers(cluster, directory, 1))
        parts = [
            "# The push stream and its wake-up",
            "",
            "Written by `python -m bench.push`. Writers, streamer, subscribers and Postgres share the cores; each figure is the",
            f"median of {plan.rounds} rounds of {plan.seconds:g} s, with the least and the greatest in brackets.",
            "Where something else runs on the machine, only the ratios say anything, and those with a wide spread little.",
            "",
            "## From commit to receipt",
            "",
            *latencies(cluster, streamer, plan),
            "",
            "## What waking costs the writers",
            "",
            *wake_costs(cluster, plan),
            "",
            "## Sustained, 8 writers",
            "",
            *sustained(cluster, streamer, plan),
            "",
        ]
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["write"]:
        directory, rate, seconds = arguments[1:]
        print(json.dumps(write_by_the_clock(Cluster(Path(directory)), int(rate), float(seconds))))
        return 0
    if arguments[:1] == ["read"]:
        read_here(arguments[1], int(arguments[2]))
        return 0
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=__doc__)
    parser.add_argument(
        "--smoke", action="store_const", const=SMOKE, default=DEFAULT, dest="plan", help="only prove that it works"
    )
    plan: Plan = parser.parse_args(arguments).plan
    text = report(plan)
    if plan is SMOKE:
        print(text)
    else:
        (ROOT / "bench" / "push.md").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
