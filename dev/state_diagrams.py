"""The state machines as diagrams: docs/states.md, and what docs/flows.md has between `<!-- tables: … -->` and `<!-- end -->`.

From the rows that hold every writer to them, backend.state_transitions and backend.notification_kinds.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

import psycopg

from app.dsn import conninfo

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "states.md"
FLOWS = ROOT / "docs" / "flows.md"
HEADING = """\
# State machines

<!-- Generated from backend.state_transitions by `make schema`; do not edit. -->

A state changes along an edge of its machine or not at all: a trigger on the column refuses everything else, also by hand.
In brackets, who may take an edge where a guard asks.
"""
_EDGES = """
    SELECT machine, action, from_state, to_state, actors FROM backend.state_transitions
     ORDER BY machine, from_state NULLS FIRST, action, to_state
"""
_KINDS = """
    SELECT kind, channels, is_for_administrators, is_optional, has_reminder FROM backend.notification_kinds
     ORDER BY is_for_administrators, kind
"""
_PLACE = re.compile(r"(<!-- tables: ([\w ]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def document(dsn: str) -> str:
    """Return docs/states.md for the database of `dsn`. Raises psycopg.Error."""
    parts = [HEADING]
    for machine, diagram in sorted(_diagrams(dsn).items()):
        parts.append(f"## {machine}\n\n{diagram}")
    return "\n".join(parts)


def flows(dsn: str) -> str:
    """Return docs/flows.md with what the tables know as the database of `dsn` has it. Raises psycopg.Error, KeyError."""
    known = {**_diagrams(dsn), "notification kinds": _kinds(dsn)}
    return _PLACE.sub(lambda place: f"{place[1]}\n{known[place[2]]}\n", FLOWS.read_text())


def _connect(dsn: str) -> psycopg.Connection:
    connection = psycopg.connect(conninfo(dsn, application_name="galaxy-state-diagrams"))
    # The deployer is no reader of tables by itself.
    connection.execute("SET ROLE backend_owner")
    return connection


def _diagrams(dsn: str) -> dict[str, str]:
    edges: dict[str, list[str]] = defaultdict(list)
    with _connect(dsn) as connection:
        for machine, action, from_state, to_state, actors in connection.execute(_EDGES):
            who = f" [{', '.join(actors)}]" if actors else ""
            edges[machine].append(f"    {from_state or '[*]'} --> {to_state}: {action}{who}")
    return {machine: "\n".join(["```mermaid", "stateDiagram-v2", *lines, "```", ""]) for machine, lines in edges.items()}


def _kinds(dsn: str) -> str:
    lines = ["| kind | by | to | can be chosen |", "| --- | --- | --- | --- |"]
    with _connect(dsn) as connection:
        for kind, channels, is_for_administrators, is_optional, has_reminder in connection.execute(_KINDS):
            ways = [*channels, *(["reminder by email"] if has_reminder else [])]
            whom = "administrators" if is_for_administrators else "the person"
            lines.append(f"| `{kind}` | {', '.join(ways)} | {whom} | {'yes' if is_optional else 'no'} |")
    return "\n".join([*lines, ""])
