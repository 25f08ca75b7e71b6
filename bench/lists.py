"""Lists and sweeps over 100,000 games, each as the function that serves it, with the scans that Postgres does for it.

Half of the games are over, as they come to be; a search is for what nearly all, few, one or none have in their names. Nothing is
due of what the sweeps look for, so that each finds what the one before has found. Transitions are measured beside the same games.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from bench import data, transitions
from bench.load import percentile
from bench.section import Section, counted, ratios, spread, table, turned
from bench.streamers import DATABASE, connect
from dev.cluster import Cluster

_PEOPLE = 1000

# Without triggers and foreign keys, but in the order of time, as they would have come.
_FILL = """
    SET session_replication_role = replica;
    SET search_path = backend;
    INSERT INTO engine_versions (version, image_ref) VALUES ('1.0.0', 'engine:1');
    INSERT INTO admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53));
    SELECT count((account_create('email', e, e, 'en', 'UTC', NULL)).user_id)
      FROM (SELECT 'p' || i || '@example.org' AS e FROM generate_series(1, {people}) AS i) AS t;
    CREATE TEMPORARY TABLE people AS SELECT user_id, row_number() OVER (ORDER BY user_id) AS n FROM accounts;
    INSERT INTO games (game_id, game_name, name_search, visibility, status, owner_user_id, min_players, max_players,
                       enrollment_ends_at, turn_schedule, target_engine_version)
    SELECT uuid_v7(), n.game_name, text_fold(n.game_name), CASE WHEN n.i % 10 = 0 THEN 'private' ELSE 'public' END,
           (ARRAY['finished', 'cancelled', 'finished', 'enrollment_open',
                  'running', 'cancelled', 'draft', 'ready_to_start'])[1 + n.i % 8],
           CASE WHEN n.i % 10 = 0 THEN p.user_id END, 2, 4, now() + interval '30 days', '0 18 * * *', '1.0.0'
      FROM (SELECT i, CASE WHEN i = {games} / 2 + 1 THEN 'Nebula' WHEN i % 1000 = 7 THEN 'Comet ' || i ELSE 'Game ' || i END
              FROM generate_series(1, {games}) AS i) AS n (i, game_name)
      LEFT JOIN people AS p ON p.n = 1 + n.i % {people}
     ORDER BY n.i;
    INSERT INTO memberships (game_id, user_id, race_name, race_name_canonical)
    SELECT g.game_id, p.user_id, 'Race ' || m, 'race' || m
      FROM (SELECT game_id, row_number() OVER () AS n FROM games) AS g
     CROSS JOIN generate_series(1, 3) AS m
      JOIN people AS p ON p.n = 1 + (g.n * 7 + m) % {people};
    INSERT INTO applications (game_id, applicant_user_id, race_name, status, decided_at)
    SELECT g.game_id, p.user_id, 'Race', 'rejected', now()
      FROM (SELECT game_id, row_number() OVER () AS n FROM games) AS g JOIN people AS p ON p.n = 1 + (g.n * 13) % {people};
    INSERT INTO invites (game_id, invited_user_id, status, expires_at)
    SELECT g.game_id, p.user_id, CASE WHEN g.n % 2 = 0 THEN 'created' ELSE 'declined' END, now() + interval '30 days'
      FROM (SELECT game_id, row_number() OVER () AS n FROM games) AS g JOIN people AS p ON p.n = 1 + (g.n * 17) % {people};
    UPDATE games SET finished_at = now() - interval '60 days' WHERE status = 'finished';
    INSERT INTO runtime_records (game_id, wanted, status, engine_version, image_ref, next_turn_at, finished_at, next_attempt_at)
    SELECT g.game_id, t.engine, t.engine, '1.0.0', 'engine:1', CASE WHEN t.engine = 'running' THEN now() + t.ahead END,
           g.finished_at, now() + t.ahead
      FROM games AS g
      JOIN (VALUES ('running', 'running', interval '1 day'), ('finished', 'removed', '-60 days')) AS t (status, engine, ahead)
     USING (status);
    INSERT INTO runtime_operation_log (game_id, operation, generation, lease_number, started_at, finished_at, outcome)
    SELECT r.game_id, 'turn', 1, t, now() + t * interval '1 minute', now() + t * interval '1 minute', 'done'
      FROM runtime_records AS r CROSS JOIN generate_series(1, 3) AS t WHERE r.status = 'running';
    INSERT INTO device_sessions (user_id, kind, client_public_key)
    SELECT p.user_id, 'key', sha256(p.n::text::bytea) FROM people AS p;
    INSERT INTO push_events (position, event_id, user_id, kind, payload, created_at, sequenced_at)
    SELECT i, gen_random_uuid(), p.user_id, 'bench', '{{}}', now() + interval '1 day', now() + interval '1 day'
      FROM generate_series(1, {games}) AS i JOIN people AS p ON p.n = 1 + i % {people};
"""

# Every plan of every statement within a function is told, with what it did, as a notice.
_EXPLAIN = """
    LOAD 'auto_explain';
    SET auto_explain.log_min_duration = 0;
    SET auto_explain.log_nested_statements = on;
    SET auto_explain.log_analyze = on;
    SET auto_explain.log_timing = off;
    SET auto_explain.log_level = notice;
    SET client_min_messages = notice;
"""
_SCAN = re.compile(r"(?:->  )?(?P<scan>\w[\w ]* Scan[^(]*?) +\(cost=.*?\(actual rows=(?P<rows>[\d.]+) loops=(?P<loops>\d+)\)")
_REMOVED = re.compile(r"Rows Removed by (?:Filter|Index Recheck): (\d+)")

# Tables with fewer rows are always read quickly, and are everywhere.
_LARGE = "SELECT relname FROM pg_class WHERE relnamespace = 'backend'::regnamespace AND reltuples >= %s"

_BASE = "session_get"


@dataclass(frozen=True)
class Plan:
    """The games, the rounds, and in a round the calls of each function and the times that transitions are done."""

    games: int
    rounds: int
    calls: int
    stories: int


DEFAULT = Plan(100_000, 3, 50, 15)
SMOKE = Plan(3_000, 1, 3, 1)

Calls = dict[str, tuple[str, tuple[Any, ...]]]
"""What is called with which arguments, by the name in the report."""


def fill(connection: psycopg.Connection[Any], games: int) -> None:
    """Make the games, and what hangs on them."""
    for statement in _FILL.format(games=games, people=_PEOPLE).split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("SET session_replication_role = origin")


def calls(connection: psycopg.Connection[Any]) -> Calls:
    """Return the lists of somebody and of an administrator, and the sweeps."""
    row = connection.execute(
        "SELECT p.user_id, s.device_session_id FROM people AS p JOIN device_sessions AS s USING (user_id) WHERE p.n = 7"
    ).fetchone()
    assert row is not None
    person, session = row
    return {
        _BASE: ("api.session_get(%s)", (session,)),
        "game_list": ("api.game_list(%s, 50, NULL, NULL, NULL)", (person,)),
        "game_list, one status": ("api.game_list(%s, 50, NULL, '{enrollment_open}', NULL)", (person,)),
        "game_list, a status that none has": ("api.game_list(%s, 50, NULL, '{paused}', NULL)", (person,)),
        "game_list, q that nearly all have": ("api.game_list(%s, 50, NULL, NULL, 'AME')", (person,)),
        "game_list, q that few have": ("api.game_list(%s, 50, NULL, NULL, 'comet')", (person,)),
        "game_list, q that one has": ("api.game_list(%s, 50, NULL, NULL, 'nebula')", (person,)),
        "game_list, q that none has": ("api.game_list(%s, 50, NULL, NULL, 'zzz')", (person,)),
        "my_game_list": ("api.my_game_list(%s, 50, NULL)", (person,)),
        "my_application_list": ("api.my_application_list(%s, 50, NULL)", (person,)),
        "my_invite_list": ("api.my_invite_list(%s, 50, NULL)", (person,)),
        "admin_game_list": ("api.admin_game_list('root', 50, NULL, NULL, NULL, NULL, NULL)", ()),
        "admin_game_list, an owner": ("api.admin_game_list('root', 50, NULL, NULL, NULL, %s, NULL)", (person,)),
        "runtime_queue_is_full": ("backend.runtime_queue_is_full()", ()),
        "enrollments_close": ("worker.enrollments_close(100)", ()),
        "invites_expire": ("worker.invites_expire(100)", ()),
        "turns_defer": ("worker.turns_defer(100)", ()),
        "runtimes_unsettled_defer": ("worker.runtimes_unsettled_defer(100)", ()),
        "banishes_defer": ("worker.banishes_defer(100)", ()),
        "finished_engines_unwant": ("worker.finished_engines_unwant(100)", ()),
        "runtime_operations_purge": ("worker.runtime_operations_purge(100)", ()),
        "push_events_purge": ("worker.push_events_purge(100)", ()),
    }


def took(connection: psycopg.Connection[Any], call: str, arguments: tuple[Any, ...], count: int) -> float:
    """Return the seconds that a call takes: the middle of so many."""
    found = []
    for _ in range(count):
        started = time.perf_counter()
        connection.execute(f"SELECT {call}", arguments, prepare=True).fetchone()
        found.append(time.perf_counter() - started)
    return percentile(found, 0.5)


def scans(connection: psycopg.Connection[Any], call: str, arguments: tuple[Any, ...], large: set[str]) -> list[str]:
    """Return how the large tables are read, each way once, with the rows that it went through."""
    plans: list[str] = []

    def keep(diagnostic: psycopg.errors.Diagnostic) -> None:
        plans.append(diagnostic.message_primary or "")

    connection.add_notice_handler(keep)
    connection.execute(f"SELECT {call}", arguments)
    connection.remove_notice_handler(keep)
    found: dict[str, int] = {}
    for plan in plans:
        scan, loops = "", 0
        for line in plan.splitlines():
            if read := _SCAN.search(line):
                scan, loops = read["scan"], int(read["loops"])
                found[scan] = found.get(scan, 0) + round(float(read["rows"]) * loops)
            elif removed := _REMOVED.search(line):
                found[scan] = found.get(scan, 0) + int(removed[1]) * loops
    of_large = (scan for scan in found if large & set(re.findall(r"\w+", scan.rpartition(" on ")[2])))
    return [f"{scan}: {counted(found[scan], 'row')}" for scan in of_large]


def transitions_beside(connection: psycopg.Connection[Any], wanted: Calls, plan: Plan) -> list[str]:
    """Measure the transitions, now that all else is: what was undone leaves its traces in the tables."""
    players, person = transitions.people(connection), wanted["my_game_list"][1][0]
    base: dict[int, float] = {}
    found: dict[str, dict[int, float]] = {}
    for turn in range(plan.rounds):
        base[turn] = took(connection, *wanted[_BASE], plan.calls)
        for name, seconds in transitions.took(connection, players, person, plan.stories).items():
            found.setdefault(name, {})[turn] = seconds
        print(f"transitions, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
    rows = [
        [f"`{name}`", spread(ratios(times, base)), f"{statistics.median(times.values()) * 1000:.2f}"]
        for name, times in found.items()
    ]
    return table(["transition", f"time ÷ `{_BASE}`", "ms"], rows)


def run(cluster: Cluster, _directory: Path, *, is_smoke: bool) -> Section:
    """Measure, and tell it."""
    plan = SMOKE if is_smoke else DEFAULT
    with data.database(cluster, DATABASE), connect(cluster) as connection:
        fill(connection, plan.games)
        data.settle(cluster)
        wanted = calls(connection)
        found: dict[str, dict[int, float]] = {name: {} for name in wanted}
        for turn in range(plan.rounds):
            for name, (call, arguments) in turned(list(wanted.items()), turn):
                found[name][turn] = took(connection, call, arguments, plan.calls)
            print(f"lists, round {turn + 1} of {plan.rounds}", file=sys.stderr, flush=True)
        large = {row[0] for row in connection.execute(_LARGE, [plan.games // 10])}
        connection.execute(_EXPLAIN)
        plans = {name: scans(connection, call, arguments, large) for name, (call, arguments) in wanted.items()}
        with connect(cluster) as other:  # of which nothing is explained
            changes = transitions_beside(other, wanted, plan)
    rows = [
        [
            f"`{name}`",
            spread(ratios(times, found[_BASE])),
            f"{statistics.median(times.values()) * 1000:.2f}",
            "; ".join(plans[name]) or "none",
        ]
        for name, times in found.items()
    ]
    lines = [
        f"Over {plan.games:,} games with three members, an application and an invite each, from one connection without HTTP:",
        f"the middle of {plan.calls} calls, in {counted(plan.rounds, 'round')}. Pages have 50 entries; nothing is due for the",
        "sweeps. The last column is how tables with many rows were read, and how many rows that went through, from every",
        "statement's plan.",
        "",
        *table(["function", f"time ÷ `{_BASE}`", "ms", "scans"], rows),
        "### Transitions",
        "",
        f"Beside the same games, from one connection: the life of a game of {transitions.PLAYERS}, and the end of the account of",
        "somebody with seats, applications and invites in hundreds of them. Each in a transaction that is undone: without its",
        "commit, but with the constraints that are checked there, for which there is a second round trip, and not prepared.",
        f"{counted(plan.stories, 'game')} and as many accounts in each of {counted(plan.rounds, 'round')}.",
        "",
        *changes,
    ]
    return Section("Lists, sweeps and transitions", lines)
