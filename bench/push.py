"""The push stream and its wake-up: `python -m bench.push [--smoke]` prints what bench/push.md holds.

Three questions: how long an event takes from its commit to each of 1, 4 and 16 subscribers at 100 and 1,000 events a second;
what waking the sequencer costs the writers at 250 to 2,000 writes a second; how many events a second 16 writers, and 8, get
through to 4 subscribers, against a NOTIFY in every transaction. Writers start by the clock, at once where their own last has
taken longer, so that none hides that others wait. What is compared is measured in turn, in the same round; ratios are told with
their spread. Commits are flushed to the disk, without which a NOTIFY costs little. From the repository's root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from app.supervisor import ROOT
from bench import data, pgbench, wakes
from bench.load import percentile
from bench.section import Reach, Section, counted, of_round, ratios, spread, table, turned
from bench.streamers import DATABASE, Streamer, connect, deploy, emit, streamers
from dev.cluster import DURABLE, Cluster, throw_away

_SCRIPT = """\\set n random(1, 1000000000000000)
SELECT backend.push_client_event(
    gen_random_uuid(), NULL, 'bench', jsonb_build_object('n', :n::bigint), gen_random_uuid(), 'request');
"""
WRITERS = 8

# For what is sustained: 8 would wait for the disk more than for anything of ours.
MANY_WRITERS = 16


@dataclass(frozen=True)
class Plan:
    """`sustained` are the rounds of what is sustained."""

    rounds: int
    sustained: int
    seconds: float
    subscribers: tuple[int, ...] = (1, 4, 16)
    rates: tuple[int, ...] = (100, 1000)
    writes: tuple[int, ...] = (250, 500, 1000, 2000)


DEFAULT = Plan(3, 12, 4.0)
SMOKE = Plan(1, 1, 0.5, (1, 4), (100,), (250, 500))

# For the report of everything, which asks less.
_SHORT = Plan(5, 12, 2.0, rates=(1000,))
_SHORT_SMOKE = Plan(1, 1, 0.5, (1, 4), (1000,))

_REACH_RATE = 1000


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


def latencies(cluster: Cluster, streamer: Streamer, plan: Plan) -> tuple[list[str], list[Reach]]:
    """Commit to receive, by subscribers and rate; writers and subscribers are in processes of their own."""
    found: dict[tuple[int, int], list[tuple[float, float, float]]] = {}
    for turn in range(plan.rounds):
        for count in turned(plan.subscribers, turn):
            for rate in plan.rates:
                with subscribed(streamer, count) as read:
                    written = loaded(cluster, rate, plan.seconds)
                    received = read(len(written))
                # An event can be here before its writer hears of the commit.
                delays = sorted(max(0.0, at - written[n][1]) for n, at in received)
                own = percentile(sorted(end - asked for asked, end in written.values()), 0.5)
                found.setdefault((count, rate), []).append((percentile(delays, 0.5), percentile(delays, 0.99), own))
        print(f"latencies, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    rows, reaches = [], []
    for (count, rate), rounds in sorted(found.items()):
        p50, p99 = ([one[i] * 1000 for one in rounds] for i in (0, 1))
        share = [delay / own for delay, _, own in rounds]
        rows.append([str(count), f"{rate:,}", spread(p50), spread(p99), spread(share)])
        if rate == _REACH_RATE:
            what = f"push, p50 at {rate:,} events/s ÷ the writer's transaction, subscribers: {count}"
            reaches.append(Reach(what, share, 5, at_most=True))
    return table(["subscribers", "events/s", "p50, ms", "p99, ms", "p50 ÷ the writer's transaction"], rows), reaches


def wake_costs(cluster: Cluster, plan: Plan) -> list[str]:
    """What a writer waits, by rate and way to wake."""
    found: dict[tuple[str, int], dict[int, tuple[float, float]]] = {}
    with connect(cluster) as connection:
        switch = wakes.Wakes(connection)
        for turn in range(plan.rounds):
            for rate in plan.writes:
                for way in turned(wakes.WAYS, turn):
                    switch.use(way)
                    took = [one.took for one in written_by_pgbench(cluster, rate, plan.seconds, WRITERS)]
                    found.setdefault((way, rate), {})[turn] = (percentile(took, 0.5), percentile(took, 0.99))
            switch.use("conditional")
            print(f"wake-up, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    slowest = plan.writes[0]
    rows = []
    for rate in plan.writes:
        for way in wakes.WAYS:
            p50 = [one[0] * 1000 for one in found[way, rate].values()]
            p99, slow, none = (
                {turn: one[1] * 1000 for turn, one in found[other].items()}
                for other in ((way, rate), (way, slowest), ("none", rate))
            )
            rows.append(
                [way, f"{rate:,}", spread(p50), spread(p99.values()), spread(ratios(p99, slow)), spread(ratios(p99, none))]
            )
    return table(["wake-up", "writes/s", "p50, ms", "p99, ms", f"p99 ÷ p99 at {slowest}", "p99 ÷ without wake-up"], rows)


class _Case(NamedTuple):
    writers: int
    way: str
    subscribers: int


def sustained(cluster: Cluster, streamer: Streamer, plan: Plan) -> tuple[list[str], list[Reach]]:
    """Events a second that writers, as fast as they can, get through to 4 subscribers, and to 1 and to 16.

    With no subscriber, and nobody woken, events are still given their places, by the streamer's poll.
    """
    cases = (("every", 4), ("conditional", 4), ("conditional", 1), ("conditional", 16))
    compared = [_Case(MANY_WRITERS, *case) for case in cases]
    others = [_Case(MANY_WRITERS, "none", 0), *(_Case(WRITERS, *case) for case in (*cases[:2], ("none", 0)))]
    found: dict[_Case, dict[int, float]] = {case: {} for case in (*compared, *others)}
    with connect(cluster) as connection:
        switch = wakes.Wakes(connection)
        for turn in range(plan.sustained):
            for case in of_round(compared, others, turn):
                switch.use(case.way)
                with subscribed(streamer, case.subscribers) as read:
                    began, clock = time.monotonic(), time.time()
                    written = written_by_pgbench(cluster, 0, plan.seconds, case.writers)
                    last = began + written[-1].ended - clock
                    ended = max((at for _, at in read(len(written))), default=last)
                found[case][turn] = len(written) / (ended - began)
            switch.use("conditional")
            print(f"sustained, round {turn + 1} of {plan.sustained}", file=sys.stderr, flush=True)
    rows = [
        [
            *map(str, case),
            str(len(rates)),
            f"{statistics.median(rates.values()):,.0f}",
            spread(ratios(rates, found[_Case(case.writers, "every", 4)])),
            spread(ratios(rates, found[_Case(case.writers, "none", 0)])),
        ]
        for case, rates in found.items()
    ]
    every, conditional, one, sixteen = (found[case] for case in compared)
    what = f"push, sustained by {MANY_WRITERS} writers to 4 subscribers ÷ NOTIFY in every transaction"
    reaches = [
        Reach(what, ratios(conditional, every), 2.5),
        Reach("push, each of 16 subscribers ÷ one alone", ratios(sixteen, one), 0.7),
    ]
    head = ["writers", "wake-up", "subscribers", "rounds", "events/s to each", "÷ NOTIFY in every transaction", "÷ no subscriber"]
    return table(head, rows), reaches


def written_by_pgbench(cluster: Cluster, rate: int, seconds: float, writers: int) -> list[pgbench.Transaction]:
    """Write without Python, so many times a second, or as often as can be where the rate is 0."""
    return pgbench.run(cluster, DATABASE, _SCRIPT, clients=writers, seconds=seconds, login="postgres", rate=rate)


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


@contextlib.contextmanager
def subscribed(streamer: Streamer, count: int) -> Iterator[Callable[[int], list[tuple[int, float]]]]:
    """Subscribe in another process; what is given waits for so many events, and returns each and when it came to each."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.gateways", streamer.address, str(count)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the gateways have not subscribed")

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
            f"median of {plan.rounds} rounds of {plan.seconds:g} s, with the least and the greatest in brackets; for",
            "what is sustained, of as many as the table says.",
            "Where something else runs on the machine, only the ratios say anything, and those with a wide spread little.",
            "",
            "## From commit to receipt",
            "",
            *latencies(cluster, streamer, plan)[0],
            "## What waking costs the writers",
            "",
            *wake_costs(cluster, plan),
            "## Sustained",
            "",
            *sustained(cluster, streamer, plan)[0],
        ]
    return "\n".join(parts)


def run(cluster: Cluster, directory: Path, *, is_smoke: bool) -> Section:
    """Measure what is to be reached, and tell it."""
    plan = _SHORT_SMOKE if is_smoke else _SHORT
    with data.database(cluster, DATABASE), streamers(cluster, directory, 1) as (streamer,):
        data.settle(cluster)
        delays, delay_reaches = latencies(cluster, streamer, plan)
        rates, rate_reaches = sustained(cluster, streamer, plan)
    lines = [
        f"{counted(plan.rounds, 'round')} of {plan.seconds:g} s; `python -m bench.push` measures more ([push.md](push.md)).",
        "",
        "### From commit to receipt",
        "",
        *delays,
        "### Sustained",
        "",
        *rates,
    ]
    return Section("Push", lines, [*rate_reaches, *delay_reaches])


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["write"]:
        directory, rate, seconds = arguments[1:]
        print(json.dumps(write_by_the_clock(Cluster(Path(directory)), int(rate), float(seconds))))
        return 0
    # As Ctrl-C does: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
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
