"""What is told of the session look-up: ratios of what was measured in the same round, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.data import SESSIONS_PER_ACCOUNT
from bench.load import Figures
from bench.section import OTHERS_EVERY, Reach, Section, counted, ratios, spread
from bench.servers import THREADS, WORKERS

SYSTEMS = {
    "P": "the limit: pgbench, prepared, over the Unix socket, with as many clients as connections",
    "B": f"the baseline: Falcon, gunicorn gthread ({WORKERS} processes, {THREADS} threads), `psycopg_pool` and `execute`",
    "ours": f"`python -m app api` as it is ({WORKERS} processes, {THREADS} threads), without exporters of telemetry",
    "ours, telemetry": "the same with all traces and metrics sent to a collector, by OTLP over HTTP",
    "bare": "Falcon and the gunicorn of B, no database",
    "gthread, kept": "Falcon and the gunicorn of B, a connection kept by each thread, prepared through libpq",
    "sync, kept": "the same call, a connection kept by each of 4 processes of the sync worker, which hangs up after every answer",
    "gevent, kept": f"the same call, a connection kept by each of {WORKERS} processes of the gevent worker",
}


@dataclass(frozen=True)
class Sample:
    """One measurement; `cpu` is the processor time of server and Postgres for an answer, in seconds."""

    round: int
    system: str
    rows: int
    connections: int
    cpu: float
    figures: Figures


def section(samples: Sequence[Sample], *, versions: Mapping[str, str], seconds: float, notes: Iterable[str]) -> Section:
    """Return what was found; `versions` by name."""
    small, large = min(sample.rows for sample in samples), max(sample.rows for sample in samples)
    busy = max(sample.figures.busy for sample in samples)
    rounds = len({sample.round for sample in samples})
    lines = [
        "`api.session_get` as the login `galaxy_api`, each time for a random id; over HTTP by connections that ask again as soon",
        "as they are answered. `CPU` is the processor time of server and Postgres for an answer: where something else runs on",
        "the machine, trust it more than requests/s.",
        "",
        f"- {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        f"- {counted(rounds, 'round')} with {seconds:g} s for each measurement, in an order that turns; what has no bar",
        f"  is measured in each {OTHERS_EVERY}th.",
        f"- The sessions fit into Postgres's buffers; {SESSIONS_PER_ACCOUNT} belong to an account. The load generator took at",
        f"  most {busy:.0%} of a core.",
        *(f"- {note}" for note in notes),
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {system} | {SYSTEMS[system]} |" for system in SYSTEMS if any(sample.system == system for sample in samples)),
        "",
    ]
    for connections in sorted({sample.connections for sample in samples}):
        lines += [f"### {large:,} sessions, {counted(connections, 'connection')}", ""]
        lines += _table([s for s in samples if s.rows == large and s.connections == connections])
    lines += [f"### From {small:,} to {large:,} sessions", "", *_growth(samples, small, large)]
    return Section("The session look-up", lines, _reaches(samples, large), [("look-up ÷ G", "G is for whoever has Go")])


def _reaches(samples: Sequence[Sample], large: int) -> list[Reach]:
    """Return the aims of our program, for each number of connections."""
    found = []
    for connections in sorted({sample.connections for sample in samples}):
        chosen = [sample for sample in samples if sample.rows == large and sample.connections == connections]
        own, base = ({s.round: s.figures for s in chosen if s.system == system} for system in ("ours", "B"))
        place = f"look-up, {counted(connections, 'connection')}"
        rates = [{turn: one.rate for turn, one in rounds.items()} for rounds in (own, base)]
        found.append(Reach(f"{place}: requests/s ÷ B", ratios(*rates), 1.7))
        found.append(Reach(f"{place}: p99 ÷ p50", [one.p99 / one.p50 for one in own.values()], 5, at_most=True))
    return found


def _table(samples: Sequence[Sample]) -> list[str]:
    lines = [
        "| | requests/s ÷ B | requests/s ÷ P | p50 ÷ B | p50, ms | p99 ÷ p50 | CPU ÷ B |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for system in SYSTEMS:
        own = {sample.round: sample for sample in samples if sample.system == system}
        if not own:
            continue
        base, limit = ({s.round: s for s in samples if s.system == other} for other in ("B", "P"))
        cells = [
            _ratio(own, base, lambda sample: sample.figures.rate),
            _ratio(own, limit, lambda sample: sample.figures.rate),
            _ratio(own, base, lambda sample: sample.figures.p50),
            f"{statistics.median(sample.figures.p50 for sample in own.values()) * 1000:.2f}",
            spread(sample.figures.p99 / sample.figures.p50 for sample in own.values()),
            _ratio(own, base, lambda sample: sample.cpu),
        ]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return [*lines, ""]


def _growth(samples: Sequence[Sample], small: int, large: int) -> list[str]:
    """Compare the two sizes, for what was measured with both."""
    connections = max(sample.connections for sample in samples if sample.rows == small)
    lines = [
        f"With {counted(connections, 'connection')}; each figure is that of {large:,} sessions ÷ that of {small:,}.",
        "",
        "| | requests/s | p50 | CPU |",
        "| --- | --- | --- | --- |",
    ]
    for system in SYSTEMS:
        own = [sample for sample in samples if sample.system == system and sample.connections == connections]
        few, many = ({s.round: s for s in own if s.rows == rows} for rows in (small, large))
        if few:
            cells = [
                _ratio(many, few, lambda sample: sample.figures.rate),
                _ratio(many, few, lambda sample: sample.figures.p50),
                _ratio(many, few, lambda sample: sample.cpu),
            ]
            lines.append(f"| {system} | {' | '.join(cells)} |")
    return [*lines, ""]


def _ratio(own: Mapping[int, Sample], base: Mapping[int, Sample], figure: Callable[[Sample], float]) -> str:
    """Compare a figure round by round."""
    return spread(ratios(*({turn: figure(sample) for turn, sample in one.items()} for one in (own, base))))
