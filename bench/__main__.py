"""Measure, and write bench/report.md: `python -m bench [--full | --smoke]`.

`--full` looks into a million sessions and takes longer; `--smoke` only proves that everything works, and prints its report.
Run from the repository's root. Everything that is started is stopped, also when it is interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from app.supervisor import ROOT
from bench import data, report, servers
from bench.load import Figures
from dev.cluster import Cluster

GROWTH_SYSTEMS = ("P", "B", "ours")
GROWTH_CONNECTIONS = 16


@dataclass(frozen=True)
class Plan:
    """The numbers of sessions and of connections to compare, the rounds, and the seconds of one measurement."""

    small: int
    large: int
    connections: tuple[int, ...]
    rounds: int
    seconds: float


DEFAULT = Plan(10_000, 100_000, (1, 16, 64), 5, 1.5)
FULL = Plan(10_000, 1_000_000, (1, 16, 64), 5, 4.0)
SMOKE = Plan(100, 1_000, (1, 16), 1, 0.3)


@dataclass(frozen=True)
class Slot:
    """What is measured in one go."""

    system: str
    rows: int
    connections: int


def slots(plan: Plan, systems: list[str], turn: int) -> list[Slot]:
    """Return what a round measures. What is compared is measured close together, in an order that turns with the rounds."""
    found = []
    for connections in plan.connections:
        pairs = [(system, plan.large) for system in systems]
        if connections == GROWTH_CONNECTIONS:
            pairs += [(system, plan.small) for system in GROWTH_SYSTEMS]
        start = turn % len(pairs)
        found += [Slot(system, rows, connections) for system, rows in pairs[start:] + pairs[:start]]
    return found


def http_load(server: servers.Server, slot: Slot, seconds: float) -> Figures:
    """Run bench.load in a process of its own and return what it found."""
    arguments = [server.port, server.path, slot.rows, slot.connections, seconds]
    answer = subprocess.run(
        [sys.executable, "-m", "bench.load", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds * 2 + 60,
    )
    if answer.returncode != 0:
        raise RuntimeError(f"the load on {slot} failed:\n{answer.stderr}")
    return Figures(*json.loads(answer.stdout))


def measure(cluster: Cluster, plan: Plan, gevent: Path | None, directory: Path) -> list[report.Sample]:
    """Run the servers and measure, round by round."""
    systems = [system for system in report.SYSTEMS if gevent is not None or system not in servers.NEEDING_GEVENT]
    keys = {(slot.system, slot.rows) for slot in slots(plan, systems, 0) if slot.system != "P"}
    postmaster = cluster.pid
    assert postmaster is not None
    samples = []
    with servers.running(cluster, sorted(keys), directory, gevent) as found:
        for turn in range(plan.rounds):
            for slot in slots(plan, systems, turn):
                server = found.get((slot.system, slot.rows))
                working = [postmaster] if server is None else [postmaster, server.process.pid]
                before = sum(map(servers.cpu_seconds, working))
                if server is None:
                    figures = data.pgbench(cluster, slot.rows, slot.connections, plan.seconds)
                else:
                    figures = http_load(server, slot, plan.seconds)
                cpu = max(servers.TICK, sum(map(servers.cpu_seconds, working)) - before)
                samples.append(report.Sample(turn, slot.system, slot.rows, slot.connections, cpu / figures.answers, figures))
            print(f"round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    return samples


def run(plan: Plan) -> str:
    """Measure everything and return the report."""
    notes = []
    gevent = None
    try:
        gevent = servers.gevent_packages()
    except subprocess.CalledProcessError:
        notes.append("gevent was left out: its packages could not be installed.")
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galaxy-bench-")))
        cluster = stack.enter_context(data.databases([plan.small, plan.large]))
        versions = {"Postgres": data.version(cluster), **servers.versions(gevent)}
        samples = measure(cluster, plan, gevent, directory)
    return report.write(samples, versions=versions, seconds=plan.seconds, notes=notes)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--full", dest="plan", action="store_const", const=FULL, help="look into a million sessions")
    choice.add_argument("--smoke", dest="plan", action="store_const", const=SMOKE, help="only prove that everything works")
    plan: Plan = parser.parse_args().plan or DEFAULT
    # As Ctrl-C does: what was started is stopped on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    began = time.monotonic()
    text = run(plan)
    if plan is SMOKE:
        print(text)
    else:
        (ROOT / "bench" / "report.md").write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
