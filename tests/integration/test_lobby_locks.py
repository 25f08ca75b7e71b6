"""Who waits for whom in the lobby: what was decided meanwhile is seen by those who waited."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.integration.test_games_concurrency import Call, told
from tests.integration.test_lobby_concurrency import Lobby
from tests.postgres import Database

GAMES = 8


@pytest.fixture
def lobby(database: Database) -> Iterator[Lobby]:
    made = Lobby(database)
    yield made
    made.check()


def meanwhile(lobby: Lobby, query: str, parameters: Sequence[Any], calls: Sequence[Call], login: str = "galaxy_api") -> list[Any]:
    """Run a query, let the calls go, and commit it when each of them waits for a lock or is done; return their answers."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with ThreadPoolExecutor(1) as pool:
        with lobby.db.transaction():
            lobby.db.execute(query, parameters)
            answers = pool.submit(lobby.at_once, calls, login)
            deadline = time.monotonic() + 30
            while not answers.done() and lobby.one(waiting) < len(calls):
                assert time.monotonic() < deadline
                # What the server tells of itself is kept to the end of a transaction otherwise.
                lobby.db.execute("SELECT pg_stat_clear_snapshot()")
        return answers.result(30)


def test_a_person_who_is_approved_in_many_games_at_once_has_as_many_seats_as_they_may(lobby: Lobby) -> None:
    (owner, person) = lobby.people(2)
    lobby.call(
        Call(
            "api.user_limit_apply",
            ("root", person, {"code": "max_pending_applications", "value": GAMES, "reason": "A test."}),
        )
    )
    games = [lobby.public(owner) for _ in range(GAMES)]
    applications = [lobby.application(person, game_id, "Zorg") for game_id in games]
    # Whoever has counted their seats waits for the name.
    answers = meanwhile(
        lobby,
        "SELECT race_name_lock(race_name_canonical('Zorg'))",
        (),
        [
            Call("api.application_approve", (owner, game_id, application))
            if n % 2
            else Call("api.admin_application_approve", ("root", game_id, application))
            for n, (game_id, application) in enumerate(zip(games, applications, strict=True))
        ],
    )
    assert told(answers) == {"done": 3, "GX422 limit_reached": GAMES - 3}
    assert lobby.one("SELECT count(*) FROM memberships WHERE user_id = %s AND status = 'active'", person) == 3


UPDATES = pytest.mark.parametrize("function", ["api.game_update", "api.admin_game_update"])


def update(function: str, owner: str, game_id: str, body: dict[str, Any]) -> Call:
    return Call(function, ("root" if function == "api.admin_game_update" else owner, game_id, body))


@UPDATES
def test_two_changes_of_a_game_at_once_are_both_made(lobby: Lobby, function: str) -> None:
    (owner,) = lobby.people(1)
    game_id = lobby.game(owner)
    bodies: list[dict[str, Any]] = [{"game_name": "Another"}, {"description": "Other words."}, {"max_players": 7}]
    answers = meanwhile(
        lobby,
        "SELECT game_lock(%s)",
        (game_id,),
        [update(function, owner, game_id, body) for body in bodies],
    )
    assert told(answers) == {"done": 3}
    row = lobby.db.execute("SELECT game_name, description, max_players FROM games WHERE game_id = %s", (game_id,)).fetchone()
    assert row == ("Another", "Other words.", 7)


@UPDATES
def test_a_change_that_came_while_enrolment_was_opened_is_refused(lobby: Lobby, function: str) -> None:
    (owner,) = lobby.people(1)
    game_id = lobby.game(owner)
    answers = meanwhile(
        lobby,
        "SELECT api.game_open_enrollment(%s, %s)",
        (owner, game_id),
        [update(function, owner, game_id, {"max_players": 7})],
    )
    assert answers == ["GX409 invalid_transition"]
    assert lobby.one("SELECT max_players FROM games WHERE game_id = %s", game_id) == 2


def block(person: str) -> Call:
    return Call("api.user_sanction_apply", ("root", person, {"code": "permanent_block", "reason": "A test."}))


def given(lobby: Lobby, kind: str, person: str) -> Call:
    """What administrators give somebody: a game to run, or an invite."""
    if kind == "invite":
        return Call("api.admin_invite_create", ("root", lobby.public(), {"invited_user_id": person}, None, None))
    body = {
        "game_name": "Public",
        "min_players": 2,
        "max_players": 4,
        "enrollment_ends_at": "2100-01-01T00:00:00Z",
        "turn_schedule": "0 0 1 1 *",
        "owner_user_id": person,
    }
    return Call("api.admin_game_create", ("root", body))


@pytest.mark.parametrize("kind", ["game", "invite"])
def test_nothing_is_given_to_somebody_who_goes_meanwhile(lobby: Lobby, kind: str) -> None:
    (person,) = lobby.people(1)
    call = given(lobby, kind, person)
    query = "SELECT api.user_soft_delete('root', %s, '{}')"
    assert meanwhile(lobby, query, (person,), [call]) == ["GX422 eligibility_denied"]


def test_who_is_blocked_while_they_are_given_a_game_leaves_none_behind(lobby: Lobby) -> None:
    (person,) = lobby.people(1)
    query = (
        "SELECT (api.admin_game_create('root', jsonb_build_object('game_name', 'Public', 'min_players', 2, 'max_players', 4,"
        " 'enrollment_ends_at', '2100-01-01T00:00:00Z', 'turn_schedule', '0 0 1 1 *', 'owner_user_id', %s::text))).status"
    )
    assert told(meanwhile(lobby, query, (person,), [block(person)])) == {"done": 1}
    assert lobby.one("SELECT status FROM games") == "cancelled"


def test_who_is_blocked_while_they_are_invited_leaves_no_invite_behind(lobby: Lobby) -> None:
    (person,) = lobby.people(1)
    query = "SELECT (api.admin_invite_create('root', %s, jsonb_build_object('invited_user_id', %s::text), NULL, NULL)).status"
    assert told(meanwhile(lobby, query, (lobby.public(), person), [block(person)])) == {"done": 1}
    assert lobby.one("SELECT status FROM invites") == "revoked"
