"""What a process checks before it serves: that the schema is not older than its plan, and its login no more than its door."""

from __future__ import annotations

import hashlib
import logging
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import psycopg

PLAN = Path(__file__).resolve().parent.parent / "sqitch.plan"

EX_CONFIG = 78
"""Exit status of a program that must not be started again as it is (sysexits.h)."""

_LINE = re.compile(r"(?P<name>\S+)(?: \[(?P<requires>[^\]]*)\])? (?P<date>\S+Z) (?P<planner>.+? <[^>]*>)(?: # (?P<note>.*))?$")


class Refused(Exception):
    """A reason not to start, as a sentence for the operator."""


class Change(NamedTuple):
    """A change of the plan and the id under which Sqitch records it as deployed."""

    name: str
    change_id: str


def planned_changes(plan: Path = PLAN) -> list[Change]:
    """Return the changes of a Sqitch plan in order.

    An id is a SHA-1 over the change's lines in the plan and the id before it, as Sqitch computes it
    (App::Sqitch::Plan::Change), so that a reworked change is told from the first of its name.
    """
    project, uri = "", ""
    changes: list[Change] = []
    for line in plan.read_text(encoding="utf-8").splitlines():
        if line.startswith("%"):
            key, _, value = line[1:].partition("=")
            project = value if key == "project" else project
            uri = value if key == "uri" else uri
            continue
        if not line.strip() or line.startswith(("@", "#")):
            continue
        match = _LINE.match(line)
        if match is None:
            raise ValueError(f"{plan.name} has a line that is not a change: {line!r}")
        requires = [r for r in (match["requires"] or "").split() if not r.startswith("!")]
        conflicts = [r[1:] for r in (match["requires"] or "").split() if r.startswith("!")]
        info = [f"project {project}"]
        info += [f"uri {uri}"] if uri else []
        info += [f"change {match['name']}"]
        info += [f"parent {changes[-1].change_id}"] if changes else []
        info += [f"planner {match['planner']}", f"date {match['date']}"]
        info += ["requires", *(f"  + {r}" for r in requires)] if requires else []
        info += ["conflicts", *(f"  - {c}" for c in conflicts)] if conflicts else []
        info += ["", match["note"]] if match["note"] else []
        text = "\n".join(info).encode()
        digest = hashlib.sha1(b"change %d\0" % len(text) + text, usedforsecurity=False)
        changes.append(Change(match["name"], digest.hexdigest()))
    return changes


def missing_changes(deployed: Iterable[str]) -> list[str]:
    """Return the names of planned changes whose ids are not among the deployed ones. A newer schema misses none."""
    known = set(deployed)
    return [c.name for c in planned_changes() if c.change_id not in known]


def deployed_changes(connection: psycopg.Connection[Any], door: LiteralString) -> set[str]:
    """Return the ids of the deployed changes, as the function of a door (`api`, …) tells them; none without that function."""
    try:
        return {row[0] for row in connection.execute(f"SELECT {door}.schema_changes()")}
    except psycopg.ProgrammingError:
        return set()


def check_deployed(deployed: Iterable[str]) -> None:
    """Raise Refused when the schema is older than the plan."""
    missing = missing_changes(deployed)
    if missing:
        raise Refused(
            f"the database's schema is older than this program: {len(missing)} changes are not deployed, "
            f"the first is {missing[0]}; run: sqitch deploy"
        )


def tell_unreachable(log: logging.Logger, error: psycopg.Error) -> None:
    """Say in the log and on standard error why a program ends that cannot ask Postgres; libpq's words hold no password."""
    reason = " ".join(str(error).split())[:1000]
    log.error("Postgres cannot be asked", extra={"error": type(error).__name__, "sqlstate": error.sqlstate, "reason": reason})
    sys.stderr.write(f"Postgres cannot be asked: {reason}\n")


def login_problem(is_superuser: bool, member_of: Iterable[str], door: str, user: str) -> str | None:
    """Return why a login is more than the one of its door (`backend_api`, …); None when it is just that."""
    if is_superuser:
        return f"the login {user} is a superuser; use one that is a member of {door} only"
    extra = sorted(set(member_of) - {door})
    if extra:
        return f"the login {user} is also a member of {', '.join(extra)}; use one that is a member of {door} only"
    if door not in member_of:
        return f"the login {user} is not a member of {door}"
    return None


LOGIN_QUERY = """
    WITH RECURSIVE login AS (
        SELECT u.oid, u.rolname, u.rolsuper FROM pg_catalog.pg_roles AS u WHERE u.rolname = session_user
    ), membership AS (
        SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN login AS u ON m.member = u.oid
        UNION
        SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN membership AS b ON m.member = b.roleid
    )
    SELECT u.rolname::text, u.rolsuper,
           ARRAY(SELECT r.rolname::text FROM membership AS b JOIN pg_catalog.pg_roles AS r ON r.oid = b.roleid)
      FROM login AS u
"""


def check_login(connection: psycopg.Connection[tuple[object, ...]], door: str, development: bool) -> None:
    """Raise Refused when this connection's login may do more than its door; development allows it."""
    row = connection.execute(LOGIN_QUERY).fetchone()
    assert row is not None
    user, is_superuser, member_of = row
    assert isinstance(member_of, list)
    problem = login_problem(bool(is_superuser), member_of, door, str(user))
    if problem and not development:
        raise Refused(problem)
