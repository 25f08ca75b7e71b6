"""How to ask for the operations of people, for themselves and for administrators, rightly and wrongly: a part of `requests`."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import psycopg

from tests.contract.document import Operation, document
from tests.services import Person, delete_account, new_email

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

_TAGS = ("users", "blocked_emails", "entitlement_tiers")
_MINE = ("my_profile_update", "my_settings_update", "my_account_delete")
OPERATIONS = frozenset(o.name for o in document().operations if o.node["tags"][0] in _TAGS or o.name in _MINE)

_FAR = "2100-01-01T00:00:00Z"


def new_tier(connection: psycopg.Connection[Any]) -> str:
    """Make a tier that nobody has; return its name."""
    tier = f"tier_{secrets.token_hex(6)}"
    connection.execute(
        "INSERT INTO backend.entitlement_tiers (tier, is_paid, duration, max_registered_race_names, max_owned_private_games,"
        " max_pending_applications, max_active_memberships) VALUES (%s, true, '30 days', 5, 3, 10, 10)",
        [tier],
    )
    return tier


def block(connection: psycopg.Connection[Any], email: str | None = None) -> str:
    """Block an address, a new one unless told; return it."""
    email = email or new_email()
    connection.execute("INSERT INTO backend.blocked_emails (email, actor) VALUES (%s, 'test')", [email])
    return email


def _body(operation: Operation) -> Any:
    match operation.name:
        case "my_profile_update":
            return {"display_name": "Ann of Green Gables"}
        case "my_settings_update":
            return {"preferred_language": "de-AT", "time_zone": "Europe/Vienna"}
        case "user_entitlement_grant":
            return {"tier": "monthly", "reason_code": "purchase", "starts_at": "2020-01-01T00:00:00Z", "ends_at": _FAR}
        case "user_sanction_apply":
            return {"code": "game_join_block", "reason": "Two\nlines", "expires_at": _FAR}
        case "user_limit_apply":
            return {"code": "max_active_memberships", "value": 7, "reason": "A tournament", "expires_at": _FAR}
        case "user_sanction_lift" | "user_limit_clear" | "user_session_revoke_all" | "user_soft_delete":
            return {"reason": "It was somebody else"}
        case "blocked_email_create":
            return {"email": new_email(), "reason": "A disposable address"}
        case "entitlement_tier_update":
            names = ("max_registered_race_names", "max_owned_private_games", "max_pending_applications", "max_active_memberships")
            return {"is_paid": True, "duration_days": 31, **dict.fromkeys(names, 9)}
    raise AssertionError(f"say in {__name__} what a right body of {operation.name} is")


def values_of(world: World, operation: Operation, person: Person) -> Mapping[str, str]:
    """What the path of a request about `person` is made of, so that there is something to do."""
    values = {"user_id": person.user_id, "code": "game_join_block", "tier": "free", "email": ""}
    with world.connect() as connection:
        match operation.name:
            case "user_sanction_lift":
                connection.execute(
                    "SELECT sanction_apply(%s, 'game_join_block', 'a test', 'test', NULL) FROM accounts"
                    " WHERE user_id = %s AND deleted_at IS NULL",
                    [person.user_id] * 2,
                )
            case "user_limit_clear":
                values["code"] = "max_active_memberships"
                connection.execute("SELECT limit_apply(%s, %s, 7, 'a test', 'test', NULL)", [person.user_id, values["code"]])
            case "entitlement_tier_update":
                values["tier"] = new_tier(connection)
            case "blocked_email_delete":
                values["email"] = quote(block(connection, f"a/{new_email()}"), safe="")
    return values


def right(world: World, operation: Operation, person: Person, body: Any = None) -> Request:
    """A request that the operation accepts, by `person` or, in the admin group, about them."""
    from tests.contract import requests

    return requests.Request(
        operation.method,
        operation.path.format_map(values_of(world, operation, person)),
        body if body is not None or not operation.has_body else _body(operation),
        headers=requests.identity(world, operation, person),
    )


def known_values(world: World, operation: Operation) -> tuple[Mapping[str, str], Person] | None:
    """For made-up requests: what is there for the operation, and somebody else than those whom other operations need."""
    if operation.name not in OPERATIONS:
        return None
    key = (world.database.name, operation.name)
    if key not in _known:
        person = world.person()
        _known[key] = (values_of(world, operation, person), person)
    return _known[key]


_known: dict[tuple[str, str], tuple[Mapping[str, str], Person]] = {}


# -- wrong ones


def _about(change: Callable[[psycopg.Connection[Any], str], None]) -> Make:
    """A right request about somebody to whom something has happened."""

    def make(world: World, operation: Operation) -> Request:
        person = world.person()
        request = right(world, operation, person)
        with world.connect() as connection:
            change(connection, person.user_id)
        return request

    return make


def _nobody(world: World, operation: Operation) -> Request:
    person = world.person()
    request = right(world, operation, person)
    if operation.group == "user":
        return replace(request, headers={"X-User-ID": str(uuid.uuid4())})
    return replace(request, path=request.path.replace(person.user_id, str(uuid.uuid4())))


def _blocked_twice(world: World, operation: Operation) -> Request:
    with world.connect() as connection:
        return right(world, operation, world.person(), {"email": block(connection).upper()})


def _path(**values: str) -> Make:
    return lambda world, operation: replace(right(world, operation, world.person()), path=operation.path.format_map(values))


CAUSES: Mapping[str | tuple[str, str], Make] = {
    **{(name, "account_not_found"): _nobody for name in OPERATIONS},
    "conflict": _about(delete_account),
    ("blocked_email_create", "conflict"): _blocked_twice,
    "sanction_not_found": _about(
        lambda c, user_id: (c.execute("DELETE FROM backend.sanction_active WHERE user_id = %s", [user_id]), None)[1]
    ),
    "limit_not_found": _about(
        lambda c, user_id: (c.execute("DELETE FROM backend.limit_active WHERE user_id = %s", [user_id]), None)[1]
    ),
    "entitlement_tier_not_found": _path(tier="nothing"),
    "blocked_email_not_found": _path(email="nobody@example.org"),
}
