"""The state machines as diagrams: docs/states.md, from the rows of backend.state_transitions that hold every writer to them."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import psycopg

from app.dsn import conninfo

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "states.md"
HEADING = """\
# State machines

<!-- Generated from backend.state_transitions by `make schema`; do not edit. -->

A state changes along an edge of its machine or not at all: a trigger on the column refuses everything else, also by hand.
In brackets, who may take an edge where a guard asks.
"""
_QUERY = """
    SELECT machine, action, from_state, to_state, actors FROM backend.state_transitions
     ORDER BY machine, from_state NULLS FIRST, action, to_state
"""


def document(dsn: str) -> str:
    """Return the document for the machines in the database of `dsn`. Raises psycopg.Error."""
    machines: dict[str, list[str]] = defaultdict(list)
    with psycopg.connect(conninfo(dsn, application_name="galaxy-state-diagrams")) as connection:
        # The deployer is no reader of tables by itself.
        connection.execute("SET ROLE backend_owner")
        for machine, action, from_state, to_state, actors in connection.execute(_QUERY):
            who = f" [{', '.join(actors)}]" if actors else ""
            machines[machine].append(f"    {from_state or '[*]'} --> {to_state}: {action}{who}")
    parts = [HEADING]
    for machine, edges in sorted(machines.items()):
        parts.append("\n".join([f"## {machine}", "", "```mermaid", "stateDiagram-v2", *edges, "```", ""]))
    return "\n".join(parts)
