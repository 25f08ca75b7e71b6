"""The report: what all sections found, and what of it was to be reached."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence

from bench.section import Section, spread, table


def write(sections: Sequence[Section], *, postgres: str) -> str:
    """Return the report in Markdown."""
    machine = f"{len(os.sched_getaffinity(0))} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`; `python -m bench SECTION` measures a part. Ratios are of figures measured one after another",
        "in the same round; they can be compared between machines and runs, absolute figures cannot. Each is the median of the",
        "rounds, with the least and the greatest in brackets.",
        "",
        f"{machine}, Postgres {postgres}, which flushes every commit. Programs, load and Postgres",
        "share the cores and talk over loopback and a Unix socket.",
        "",
    ]
    for section in sections:
        lines += [f"## {section.title}", "", *section.lines]
    reaches = _reach(sections)
    return "\n".join([*lines, *(["## Reach", "", *reaches] if reaches else [])])


def _reach(sections: Sequence[Section]) -> list[str]:
    rows: list[list[str]] = []
    for section in sections:
        for reach in section.reaches:
            bar = f"{'at most' if reach.at_most else 'at least'} {reach.bar:g}"
            rows.append([reach.what, bar, spread(reach.figures), "yes" if reach.is_met else "no"])
        rows += [[what, "", why, "not measured"] for what, why in section.missing]
    return table(["to be reached", "bar", "found", "met"], rows) if rows else []
