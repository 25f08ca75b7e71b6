"""The session look-up: our program, Postgres alone, and other ways to serve it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench import data, lookup_report, servers
from bench.load import elsewhere
from bench.section import Section, of_round
from dev.cluster import Cluster

COMPARED = ("B", "ours")

GROWTH_SYSTEMS = ("P", *COMPARED)
GROWTH_CONNECTIONS = 16


@dataclass(frozen=True)
class Plan:
    """The numbers of sessions and of connections to compare, the rounds, and the seconds of one measurement."""

    small: int
    large: int
    connections: tuple[int, ...]
    rounds: int
    seconds: float


DEFAULT = Plan(10_000, 1_000_000, (1, 16, 64), 16, 1.0)
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
        compared = [(system, plan.large) for system in COMPARED]
        others = [(system, plan.large) for system in systems if system not in COMPARED]
        if connections == GROWTH_CONNECTIONS:
            others += [(system, plan.small) for system in GROWTH_SYSTEMS]
        found += [Slot(system, rows, connections) for system, rows in of_round(compared, others, turn)]
    return found


def measure(cluster: Cluster, plan: Plan, gevent: Path | None, directory: Path) -> list[lookup_report.Sample]:
    """Run the servers and measure, round by round."""
    systems = [system for system in lookup_report.SYSTEMS if gevent is not None or system not in servers.NEEDING_GEVENT]
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
                    figures = data.look_up(cluster, slot.rows, slot.connections, plan.seconds)
                else:
                    figures = elsewhere(
                        server.port, f"GET {server.path}{{id}} HTTP/1.1", slot.rows, slot.connections, plan.seconds
                    )
                cpu = max(servers.TICK, sum(map(servers.cpu_seconds, working)) - before)
                samples.append(
                    lookup_report.Sample(turn, slot.system, slot.rows, slot.connections, cpu / figures.answers, figures)
                )
            print(f"look-up, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    return samples


def run(cluster: Cluster, directory: Path, *, is_smoke: bool) -> Section:
    """Measure, and tell it."""
    plan = SMOKE if is_smoke else DEFAULT
    notes = []
    gevent = None
    try:
        gevent = servers.gevent_packages()
    except subprocess.CalledProcessError:
        notes.append("gevent was left out: its packages could not be installed.")
    with data.sessions(cluster, [plan.small, plan.large]):
        samples = measure(cluster, plan, gevent, directory)
    return lookup_report.section(samples, versions=servers.versions(gevent), seconds=plan.seconds, notes=notes)
