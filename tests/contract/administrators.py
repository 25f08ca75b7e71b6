"""How to ask for the operations of administrators and their log, rightly and wrongly: a part of `requests`."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.contract.document import Operation, document
from tests.services import ADMIN, fresh_secret

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

OPERATIONS = frozenset(o.name for o in document().operations if o.node["tags"][0] in ("administrators", "audit"))


def new_name() -> str:
    """A name that no administrator has."""
    return f"admin-{secrets.token_hex(6)}"


def new_address() -> str:
    """An address from which nobody has asked for anything."""
    return str(ipaddress.IPv6Address((0x20010DB8 << 96) + (secrets.randbits(32) << 64) + 1))


def add(world: World, name: str) -> str:
    """Make an administrator past the API: with the first one's password, which nobody needs to hash again."""
    with world.connect() as connection:
        connection.execute(
            """
            INSERT INTO admin_accounts (username, password_hash)
            SELECT %s, password_hash FROM admin_accounts WHERE username = %s
            """,
            [name, ADMIN],
        )
    return name


def _body(operation: Operation) -> Any:
    match operation.name:
        case "administrator_create":
            return {"username": new_name(), "password": fresh_secret()}
        case "administrator_reset_password":
            return {"password": fresh_secret()}
    raise AssertionError(f"say in {__name__} what a right body of {operation.name} is")


def right(world: World, operation: Operation, body: Any = None) -> Request:
    """A request that the operation accepts. It is never about the administrator in whose name it is."""
    from tests.contract.requests import Request

    is_about_one = "{username}" in operation.path
    return Request(
        operation.method,
        operation.path.format(username=add(world, new_name())) if is_about_one else operation.path,
        body if body is not None or not operation.has_body else _body(operation),
        headers=world.api.admin,
    )


def _nobody(world: World, operation: Operation) -> Request:
    return replace(right(world, operation), path=operation.path.format(username=new_name()))


def _twice(world: World, operation: Operation) -> Request:
    return right(world, operation, {"username": add(world, new_name()), "password": fresh_secret()})


def _guessed(make: Callable[[World, Operation], Request]) -> Make:
    """A right request, from where too many wrong passwords came."""

    def guessed(world: World, operation: Operation) -> Request:
        request, address = make(world, operation), new_address()
        with world.connect() as connection:
            connection.execute("SELECT api.administrator_attempt_failed(%s, %s) FROM generate_series(1, 10)", [ADMIN, address])
        return replace(request, headers={**request.headers, "X-Forwarded-For": address})

    return guessed


def _last(world: World, operation: Operation) -> Request:
    """The last administrator would disable themself: the others are disabled for as long as it takes to be refused."""
    from tests.contract.requests import Request

    class Alone(Request):
        def send(self, api: Any) -> Any:
            with world.connect() as connection:
                rows = connection.execute(
                    """
                    UPDATE admin_accounts SET disabled_at = now() WHERE disabled_at IS NULL AND username <> %s RETURNING username
                    """,
                    [ADMIN],
                ).fetchall()
                try:
                    return super().send(api)
                finally:
                    connection.execute(
                        "UPDATE admin_accounts SET disabled_at = NULL WHERE username = ANY (%s)", [[row[0] for row in rows]]
                    )

    return Alone(operation.method, operation.path.format(username=ADMIN), headers=world.api.admin)


def causes(right_of_any: Make) -> Mapping[str | tuple[str, str], Make]:
    """What brings about each code; `right_of_any` makes a right request to any operation."""
    return {
        "administrator_not_found": _nobody,
        "administrator_exists": _twice,
        "last_administrator": _last,
        "too_many_attempts": _guessed(right_of_any),
    }


def known_values(world: World, operation: Operation) -> Mapping[str, str]:
    """For a made-up request: somebody to disable, or to give a password, who is not the one that asks."""
    return {"username": add(world, new_name())} if operation.name in OPERATIONS and "{username}" in operation.path else {}
