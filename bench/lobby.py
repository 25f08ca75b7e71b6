"""The lists of the lobby over 100,000 games: `python -m bench.lobby [--games N] [--calls N]`.

Prints how long each list takes, as the function that serves it, and the plan of the query behind the list of games. Half of the
games are over, as they come to be; a search is for what nearly all, few, one or none have in their names. From the repository's
root.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import psycopg

from bench.load import percentile
from dev.cluster import THROW_AWAY, throw_away

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
    INSERT INTO games (game_id, game_name, visibility, status, owner_user_id, min_players, max_players, enrollment_ends_at,
                       turn_schedule, target_engine_version)
    SELECT uuid_v7(),
           CASE WHEN i = {games} / 2 THEN 'Nebula' WHEN i % 1000 = 0 THEN 'Comet ' || i ELSE 'Game ' || i END,
           CASE WHEN i % 10 = 0 THEN 'private' ELSE 'public' END,
           (ARRAY['finished', 'cancelled', 'finished', 'enrollment_open',
                  'running', 'cancelled', 'draft', 'ready_to_start'])[1 + i % 8],
           CASE WHEN i % 10 = 0 THEN p.user_id END, 2, 4, now() + interval '30 days', '0 18 * * *', '1.0.0'
      FROM generate_series(1, {games}) AS i LEFT JOIN people AS p ON p.n = 1 + i % {people};
    INSERT INTO memberships (game_id, user_id, race_name, race_name_canonical)
    SELECT g.game_id, p.user_id, 'Race ' || m, 'race' || m
      FROM (SELECT game_id, row_number() OVER () AS n FROM games) AS g
     CROSS JOIN generate_series(1, 3) AS m
      JOIN people AS p ON p.n = 1 + (g.n * 7 + m) % {people};
    INSERT INTO applications (game_id, applicant_user_id, race_name, status, decided_at)
    SELECT g.game_id, p.user_id, 'Race', 'rejected', now()
      FROM (SELECT game_id, row_number() OVER () AS n FROM games) AS g JOIN people AS p ON p.n = 1 + (g.n * 13) % {people};
    INSERT INTO invites (game_id, invited_user_id, status, expires_at)
    SELECT g.game_id, p.user_id, 'declined', now()
      FROM (SELECT game_id, row_number() OVER () AS n FROM games) AS g JOIN people AS p ON p.n = 1 + (g.n * 17) % {people};
"""

_QUERY = "SELECT game_id FROM backend.games_newest('public', %(status)s, NULL, %(q)s, %(before)s, 51)"


def fill(connection: psycopg.Connection[Any], games: int) -> None:
    """Make the games, and what hangs on them."""
    for statement in _FILL.format(games=games, people=_PEOPLE).split(";\n"):
        if statement.strip():
            connection.execute(statement.encode())
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("SET session_replication_role = origin")


def measure(connection: psycopg.Connection[Any], call: str, arguments: tuple[Any, ...], calls: int) -> str:
    """Return how long a call takes: the middle and the 99th of a hundred, in milliseconds."""
    took = []
    for _ in range(calls):
        started = time.perf_counter()
        connection.execute(f"SELECT {call}", arguments, prepare=True).fetchone()
        took.append((time.perf_counter() - started) * 1000)
    took.sort()
    return f"{percentile(took, 0.5):8.2f} ms p50 {percentile(took, 0.99):8.2f} ms p99"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--games", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=100)
    options = parser.parse_args(arguments)
    with throw_away({**THROW_AWAY, "shared_buffers": "512MB"}) as cluster:
        cluster.create_database("galaxy")
        cluster.sqitch("galaxy", "deploy")
        with cluster.connect("galaxy") as connection:
            fill(connection, options.games)
            row = connection.execute("SELECT user_id FROM people WHERE n = 7").fetchone()
            assert row is not None
            person = row[0]
            deep = connection.execute("SELECT game_id FROM backend.games ORDER BY game_id OFFSET 200 LIMIT 1").fetchone()
            assert deep is not None
            lists: dict[str, tuple[str, tuple[Any, ...]]] = {
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
            }
            for name, (call, given) in lists.items():
                print(f"{name:36} {measure(connection, call, given, options.calls)}")
            print(f"{'worker.enrollments_close, none due':36} {measure(connection, 'worker.enrollments_close(100)', (), 20)}")
            for name, values in {
                "newest": {"status": None, "q": None, "before": None},
                "last page": {"status": None, "q": None, "before": deep[0]},
                "one status": {"status": ["enrollment_open"], "q": None, "before": None},
                "q that none has": {"status": None, "q": "zzz", "before": None},
            }.items():
                print(f"\n-- games_newest, {name}")
                for line in connection.execute(f"EXPLAIN (ANALYZE, COSTS OFF) {_QUERY}", values):
                    print(line[0])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
