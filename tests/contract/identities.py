"""How to ask for the operations of ways in and of bearer tokens, rightly and wrongly, and under a key: a part of `requests`."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.contract.document import Operation
from tests.services import Person, delete_account, new_email, note_secret

if TYPE_CHECKING:
    from tests.contract.requests import Make, Request, World

OPERATIONS = frozenset({"session_resolve", "identity_session_open", "identity_link", "identity_unlink"})


def new_token() -> str:
    """Return a token as the contract has them; nobody's."""
    token = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    note_secret(token)
    return token


def new_subject() -> str:
    """Return a Telegram id that nobody has."""
    return str(10**9 + secrets.randbelow(10**15))


def add_token_session(world: World, user_id: str) -> str:
    """Open a session of a person with a bearer token, past the API; return the token."""
    token = new_token()
    with world.connect() as connection:
        connection.execute(
            "INSERT INTO device_sessions (user_id, kind, token_hash) VALUES (%s, 'token', %s)",
            [user_id, hashlib.sha256(token.encode()).digest()],
        )
    return token


def add_telegram(world: World, user_id: str) -> str:
    """Give a person a second way in, past the API, unless they are gone; return its subject."""
    subject = new_subject()
    with world.connect() as connection:
        connection.execute(
            "INSERT INTO identities (provider, subject, user_id)"
            " SELECT 'telegram', %s, user_id FROM accounts WHERE user_id = %s AND deleted_at IS NULL"
            " ON CONFLICT (user_id, provider) DO UPDATE SET subject = excluded.subject",
            [subject, user_id],
        )
    return subject


def right(world: World, operation: Operation, person: Person, body: Any = None) -> Request:
    """A request that the operation accepts, about `person`."""
    from tests.contract import requests

    match operation.name:
        case "session_resolve":
            made: Any = {"token": add_token_session(world, person.user_id)}
        case "identity_session_open":
            made = {"subject": add_telegram(world, person.user_id), "display_name": "Ann", "time_zone": "Europe/Berlin"}
        case "identity_link":
            made = {"provider": "telegram", "subject": new_subject()}
        case _:
            made = None
            add_telegram(world, person.user_id)
    return requests.Request(
        operation.method,
        operation.path.format_map({"user_id": person.user_id, "provider": "telegram"}),
        body if body is not None else made,
        headers=requests.identity(world, operation, person),
    )


def _blocked(world: World, operation: Operation) -> Request:
    email = new_email()
    with world.connect() as connection:
        connection.execute("INSERT INTO backend.blocked_emails (email, actor) VALUES (%s, 'test')", [email])
    return right(world, operation, world.person(), {"provider": "email", "subject": email})


def _taken(world: World, operation: Operation) -> Request:
    subject = add_telegram(world, world.person().user_id)
    return right(world, operation, world.person(), {"provider": "telegram", "subject": subject})


def _a_second_one(world: World, operation: Operation) -> Request:
    return right(world, operation, world.person(), {"provider": "email", "subject": new_email()})


def _gone(world: World, operation: Operation) -> Request:
    person = world.person()
    with world.connect() as connection:
        delete_account(connection, person.user_id)
    return right(world, operation, person)


def _the_only_one(provider: str) -> Make:
    def make(world: World, operation: Operation) -> Request:
        person = world.person()
        path = operation.path.format_map({"user_id": person.user_id, "provider": provider})
        return replace(right(world, operation, world.person()), path=path)

    return make


def _key_of_another_request(world: World, operation: Operation) -> Request:
    from tests.contract import requests

    person = world.person()
    key = {"Idempotency-Key": secrets.token_hex(8)}
    first = requests.right(world, operation, person)
    answer = replace(first, headers={**first.headers, **key}).send(world.api)
    assert answer.status_code < 300, answer.text
    second = requests.right(world, operation, person)
    if (second.path, second.body) == (first.path, first.body):
        # To another, then.
        second = requests.right(world, operation, world.person())
    return replace(second, headers={**second.headers, **key})


CAUSES: Mapping[str | tuple[str, str], Make] = {
    ("session_resolve", "session_not_found"): lambda world, operation: right(
        world, operation, world.person(), {"token": new_token()}
    ),
    ("identity_link", "email_blocked"): _blocked,
    ("identity_link", "conflict"): _a_second_one,
    ("identity_unlink", "conflict"): _gone,
    "identity_taken": _taken,
    "identity_not_found": _the_only_one("telegram"),
    "last_identity": _the_only_one("email"),
    "idempotency_conflict": _key_of_another_request,
}
