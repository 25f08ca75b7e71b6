"""How to ask for diplomatic mail, rightly and wrongly: a part of `requests`."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg

from tests.contract import games
from tests.contract.document import Operation, document
from tests.contract.games import Game
from tests.services import Person, sanction

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

_TAGS = ("diplomail", "admin_diplomail")
OPERATIONS = frozenset(o.name for o in document().operations if o.node["tags"][0] in _TAGS)


def _can_act(world: World, person: Person) -> bool:
    with world.connect() as connection:
        try:
            connection.execute("SELECT account_require(%s)", [person.user_id])
        except psycopg.Error:
            return False
    return True


def _game_and_values(world: World, operation: Operation, person: Person) -> tuple[Game, Mapping[str, str]]:
    """A game whose guest is `person`, unless they can do nothing, with mail both ways; and what the path is made of."""
    game = games.make_game(world, status="enrollment_open", guest=person if _can_act(world, person) else world.person())
    race = {"recipients": [game.races[1]], "subject": "\N{HEBREW LETTER SHIN}", "body": "\N{ROCKET}\n\ttoo"}
    game.call("api.diplomail_send", game.guest.user_id, game.game_id, json.dumps({**race, "recipients": [game.races[0]]}))
    game.call("api.diplomail_send", game.owner.user_id, game.game_id, json.dumps(race))
    with world.connect() as connection:
        row = connection.execute(
            "SELECT message_id FROM diplomail_recipients WHERE game_id = %s AND user_id = %s", [game.game_id, game.guest.user_id]
        ).fetchone()
    assert row is not None
    return game, {"game_id": game.game_id, "message_id": str(row[0])}


def _body(game: Game, operation: Operation) -> Any:
    match operation.name:
        case "diplomail_send" | "admin_diplomail_send":
            return {"recipients": [game.races[0]], "subject": "A pact", "body": "Two\nlines"}
        case "admin_diplomail_broadcast":
            return {"game_ids": [game.game_id], "body": "For all"}
        case "admin_diplomail_purge":
            return {"finished_more_than_days": 36500}
    raise AssertionError(f"say in {__name__} what a right body of {operation.name} is")


def game_and_request(world: World, operation: Operation, person: Person, body: Any = None) -> tuple[Game, Request]:
    from tests.contract import requests

    game, values = _game_and_values(world, operation, person)
    right_body = _body(game, operation) if operation.has_body else None
    return game, requests.Request(
        operation.method,
        operation.path.format_map(values),
        body if body is not None else right_body,
        headers=requests.identity(world, operation, person),
    )


def right(world: World, operation: Operation, person: Person, body: Any = None) -> Request:
    """A request that the operation accepts, in the name of `person`."""
    return game_and_request(world, operation, person, body)[1]


def known_values(world: World, operation: Operation, person: Person) -> Mapping[str, str]:
    """For made-up requests: what is there for the operation."""
    return _game_and_values(world, operation, person)[1] if operation.name in OPERATIONS else {}


# -- wrong ones


def _elsewhere(name: str) -> Make:
    def make(world: World, operation: Operation) -> Request:
        person = world.person()
        _, values = _game_and_values(world, operation, person)
        request = right(world, operation, person)
        return replace(request, path=operation.path.format_map({**values, name: str(uuid.uuid4())}))

    return make


def _with_body(**body: Any) -> Make:
    def make(world: World, operation: Operation) -> Request:
        request = right(world, operation, world.person())
        return replace(request, body={**request.body, **body})

    return make


def _as_invitee(world: World, operation: Operation) -> Request:
    game, request = game_and_request(world, operation, world.person())
    return replace(request, headers=games.invitee(game).header)


def _may_not_write(world: World, operation: Operation) -> Request:
    person = world.person()
    request = right(world, operation, person)
    with world.connect() as connection:
        sanction(connection, person.user_id, "diplomail_block")
    return request


CAUSES: Mapping[str | tuple[str, str], Make] = {
    "message_not_found": _elsewhere("message_id"),
    "recipient_not_found": _with_body(recipients=["Nobody at all"]),
    "tier_required": _with_body(recipients="all"),
    ("diplomail_send", "forbidden"): _as_invitee,
    ("diplomail_send", "sanctioned"): _may_not_write,
    **{
        (name, "game_not_found"): _elsewhere("game_id")
        for name in (
            "diplomail_send",
            "diplomail_inbox_list",
            "diplomail_sent_list",
            "admin_diplomail_send",
            "admin_diplomail_list",
        )
    },
    ("admin_diplomail_broadcast", "game_not_found"): _with_body(game_ids=[str(uuid.uuid4())]),
}
