"""How to ask for mail, notifications and preferences, rightly and wrongly: a part of `requests`."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.types.json import Jsonb

from tests.contract.document import Operation, document
from tests.services import Person, new_email

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

_TAGS = ("mail", "notifications", "notification_preferences")
OPERATIONS = frozenset(o.name for o in document().operations if o.node["tags"][0] in _TAGS)


def _dead_mail(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute(
        "SELECT mail_enqueue('game.started', %s, ARRAY[%s], %s)", [secrets.token_hex(8), new_email(), Jsonb({"game_name": "G"})]
    ).fetchone()
    assert row is not None
    connection.execute("INSERT INTO mail_attempts (delivery_id, attempt_no) VALUES (%s, 1)", row)
    connection.execute("SELECT mail_give_up(%s, 'a test')", row)
    return str(row[0])


def _dead_route(connection: psycopg.Connection[Any]) -> tuple[str, str]:
    row = connection.execute(
        "SELECT notification_submit('runtime.container_start_failed', %s, NULL, %s)",
        [secrets.token_hex(8), Jsonb({"game_id": str(uuid.uuid4())})],
    ).fetchone()
    assert row is not None
    connection.execute("SELECT notification_submit('nobody.knows', %s, NULL, '{}')", [secrets.token_hex(8)])
    route = connection.execute("SELECT route_id FROM notification_routes WHERE notification_id = %s", row).fetchone()
    assert route is not None
    connection.execute("UPDATE notification_routes SET attempts = 100 WHERE route_id = %s", route)
    connection.execute("SELECT notification_route_settle(%s, 'retrying', 'a test')", route)
    return str(row[0]), str(route[0])


def values_of(world: World, operation: Operation) -> Mapping[str, str]:
    """What the path of a right request is made of; there is something in every list."""
    if operation.group != "admin":
        return {}
    with world.connect() as connection:
        if operation.node["tags"][0] == "mail":
            return {"delivery_id": _dead_mail(connection)}
        notification_id, route_id = _dead_route(connection)
        return {"notification_id": notification_id, "route_id": route_id}


def right(world: World, operation: Operation, person: Person, body: Any = None) -> Request:
    """A request that the operation accepts."""
    from tests.contract import requests

    if body is None and operation.has_body:
        body = {"channels": {"game.finished": {"push": True, "email": False}}, "turn_reminder": "daily"}
    return requests.Request(
        operation.method,
        operation.path.format_map(values_of(world, operation)),
        body,
        headers=requests.identity(world, operation, person),
    )


def known_values(world: World, operation: Operation) -> Mapping[str, str]:
    """For made-up requests: what is there for the operation."""
    return values_of(world, operation) if operation.name in OPERATIONS else {}


# -- wrong ones


def _missing(world: World, operation: Operation) -> Request:
    nothing = dict.fromkeys(("delivery_id", "notification_id", "route_id"), str(uuid.uuid4()))
    return replace(right(world, operation, world.person()), path=operation.path.format_map(nothing))


def _mail(status: str) -> Make:
    """A right request about a mail that has come to this."""

    def make(world: World, operation: Operation) -> Request:
        with world.connect() as connection:
            row = connection.execute(
                "SELECT mail_enqueue('game.started', %s, ARRAY[%s], %s)",
                [secrets.token_hex(8), new_email(), Jsonb({"game_name": "G"})],
            ).fetchone()
            assert row is not None
            connection.execute("INSERT INTO mail_attempts (delivery_id, attempt_no, outcome) VALUES (%s, 1, 'sent')", row)
            connection.execute("UPDATE mail_deliveries SET status = %s WHERE delivery_id = %s", [status, row[0]])
        return replace(right(world, operation, world.person()), path=operation.path.format(delivery_id=row[0]))

    return make


def _erased(world: World, operation: Operation) -> Request:
    with world.connect() as connection:
        row = connection.execute(
            "SELECT mail_enqueue('auth.login_code', %s, ARRAY[%s], %s)",
            [secrets.token_hex(8), new_email(), Jsonb({"code": "000000", "minutes": 10})],
        ).fetchone()
        assert row is not None
        connection.execute("SELECT mail_give_up(%s, 'a test')", row)
    return replace(right(world, operation, world.person()), path=operation.path.format(delivery_id=row[0]))


def _alive(world: World, operation: Operation) -> Request:
    request = right(world, operation, world.person())
    with world.connect() as connection:
        connection.execute("DELETE FROM notification_dead_letters")
        connection.execute("UPDATE notification_routes SET status = 'pending', attempts = 0 WHERE status = 'dead_lettered'")
    return request


CAUSES: Mapping[str | tuple[str, str], Make] = {
    "mail_delivery_not_found": _missing,
    "notification_not_found": _missing,
    "notification_route_not_found": _missing,
    "already_sent": _mail("sent"),
    "mail_erased": _erased,
    **{(name, "invalid_transition"): _mail("cancelled") for name in ("mail_delivery_resend", "mail_resend")},
    ("notification_dead_letter_retry", "invalid_transition"): _alive,
}
