"""The transitions that write most, beside the games of `bench.lists`: the life of a game, and the end of an account.

Each is done in a transaction in which everything before it was done, and which is undone: the next round finds the same. So it is
told without its commit, and with the constraints that are otherwise checked there. What a commit costs, and what eight writers at
once do, `bench.writes` says of one of them.
"""

from __future__ import annotations

import json
import statistics
import time
from typing import Any

import psycopg

PLAYERS = 8

_GAME = {
    "game_name": "Measured",
    "min_players": PLAYERS,
    "max_players": PLAYERS,
    "enrollment_ends_at": "2100-01-01T00:00:00Z",
    "turn_schedule": "0 18 * * *",
}


class _Story:
    """What happens in one transaction; each step is timed."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.took: dict[str, list[float]] = {}
        self._connection = connection

    def do(self, name: str, call: str, *arguments: Any) -> Any:
        """Do a step and return its first column, of JSON where a reply has it."""
        began = time.perf_counter()
        # Not prepared: a transaction that is undone makes psycopg forget what it has prepared.
        row = self._connection.execute(f"SELECT * FROM {call}", arguments, prepare=False).fetchone()
        self._connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        self.took.setdefault(name, []).append(time.perf_counter() - began)
        self._connection.execute("SET CONSTRAINTS ALL DEFERRED")
        assert row is not None
        return json.loads(row[1]) if call.startswith("api.") and len(row) == 3 else row[0]


def people(connection: psycopg.Connection[Any]) -> list[Any]:
    """Make those who play, without a seat anywhere; return their ids."""
    made = "SELECT (account_create('email', e, e, 'en', 'UTC', NULL)).user_id FROM (SELECT %s::text AS e) AS t"
    return [connection.execute(made, [f"player-{n}@example.org"]).fetchall()[0][0] for n in range(PLAYERS)]


def life_of_a_game(story: _Story, players: list[Any]) -> None:
    """From its creation to its end, with a turn between."""
    game = story.do("admin_game_create", "api.admin_game_create('root', %s::jsonb)", json.dumps(_GAME))["game_id"]
    story.do("admin_game_open_enrollment", "api.admin_game_open_enrollment('root', %s)", game)
    races = [f"Nation {chr(ord('A') + number)}" for number in range(len(players))]
    for player, race in zip(players, races, strict=True):
        body = json.dumps({"race_name": race})
        application = story.do("application_create", "api.application_create(%s, %s, %s::jsonb)", player, game, body)
        approve = "api.admin_application_approve('root', %s, %s)"
        story.do("admin_application_approve", approve, game, application["application_id"])
    letter = json.dumps({"recipients": races[1:], "subject": "All", "body": "Greetings to everybody."})
    story.do(f"diplomail_send to {PLAYERS - 1}", "api.diplomail_send(%s, %s, %s::jsonb)", players[0], game, letter)
    story.do("admin_game_ready_to_start", "api.admin_game_ready_to_start('root', %s)", game)
    story.do("admin_game_start", "api.admin_game_start('root', %s)", game)
    lease = story.do("runtime_start_claim", "worker.runtime_start_claim(%s, 60)", game)
    states = json.dumps([{"id": str(n), "raceName": race, "planets": 3, "population": 9} for n, race in enumerate(races)])
    started = "worker.runtime_started(%s, %s, 'engine', 'http://127.0.0.1:9', 0, %s::jsonb)"
    assert story.do("runtime_started", started, game, lease, states)
    for turn, is_last in ((1, False), (2, True)):
        story.do("runtime_force_next_turn", "api.runtime_force_next_turn('root', %s)", game)
        lease = story.do("turn_claim", "worker.turn_claim(%s, 60)", game)
        report = "worker.turn_report(%s, %s, %s, %s, %s::jsonb)"
        name, outcome = ("turn_report, the last", "finished") if is_last else ("turn_report", "done")
        assert story.do(name, report, game, lease, turn, is_last, states) == outcome


def block_of_an_account(story: _Story, person: Any) -> None:
    """Of somebody with many seats, applications and invites."""
    block = json.dumps({"code": "permanent_block", "reason": "measured"})
    story.do("user_sanction_apply, a permanent block", "api.user_sanction_apply('root', %s, %s::jsonb)", person, block)


def end_of_an_account(story: _Story, person: Any) -> None:
    """Of the same."""
    story.do("my_account_delete", "api.my_account_delete(%s)", person)


def took(connection: psycopg.Connection[Any], players: list[Any], person: Any, times: int) -> dict[str, float]:
    """Return the seconds of each transition, by its name: the middle of so many times. `person` is whose account ends."""
    story = _Story(connection)
    for _ in range(times):
        for part, concerned in ((life_of_a_game, players), (block_of_an_account, person), (end_of_an_account, person)):
            with connection.transaction(force_rollback=True):
                part(story, concerned)
    return {name: statistics.median(found) for name, found in story.took.items()}
