"""How to ask for the operations of race names, rightly and wrongly: a part of `requests`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.contract.document import Operation
from tests.contract.games import limit, new_race
from tests.services import Person

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

OPERATIONS = frozenset({"race_name_register", "race_name_check", "my_race_name_list"})


def earn(world: World, person: Person) -> str:
    """Give somebody a name that they may register, past every rule, unless they are gone; return it."""
    name = new_race()
    with world.connect() as connection, connection.transaction():
        connection.execute(
            "INSERT INTO race_names (race_name, user_id)"
            " SELECT %s, user_id FROM accounts WHERE user_id = %s AND deleted_at IS NULL AND NOT permanent_block",
            [name, person.user_id],
        )
        connection.execute(
            "UPDATE race_names SET tier = 'pending_registration', expires_at = backend.now() + '1 day' WHERE race_name = %s",
            [name],
        )
    return name


def right(world: World, operation: Operation, person: Person, body: Any = None) -> Request:
    """A request that the operation accepts, in the name of `person`."""
    from tests.contract import requests

    name = earn(world, person)
    return requests.Request(
        operation.method,
        operation.path,
        body if body is not None or not operation.has_body else {"race_name": name},
        query={"name": name} if operation.name == "race_name_check" else {},
        headers=requests.identity(world, operation, person),
    )


def _of_another(world: World, operation: Operation) -> Request:
    return right(world, operation, world.person(), {"race_name": earn(world, world.person())})


def _twice(world: World, operation: Operation) -> Request:
    request = right(world, operation, world.person())
    assert request.send(world.api).status_code == 200
    return request


def _too_late(world: World, operation: Operation) -> Request:
    request = right(world, operation, world.person())
    with world.connect() as connection:
        connection.execute("UPDATE race_names SET expires_at = backend.now() WHERE race_name = %s", [request.body["race_name"]])
    return request


def _no_more(world: World, operation: Operation) -> Request:
    person = world.person()
    with world.connect() as connection:
        limit(connection, person.user_id, "max_registered_race_names", 0)
    return right(world, operation, person)


def _surplus(world: World, operation: Operation) -> Request:
    return replace(right(world, operation, world.person()), query={"name": "Zorg", "surplus": "1"})


CAUSES: Mapping[str | tuple[str, str], Make] = {
    "race_name_not_found": _of_another,
    ("race_name_register", "invalid_transition"): _twice,
    "race_name_pending_window_expired": _too_late,
    "race_name_registration_quota_exceeded": _no_more,
    ("race_name_check", "invalid_request"): _surplus,
}
