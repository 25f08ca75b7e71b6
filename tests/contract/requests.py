"""How to ask for each operation, rightly and in every wrong way that the contract names.

`CAUSES` says for each error code of the document what brings it about; a code or status that the document gains has
to be given a cause here before `test_operations` passes again.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import httpx
import psycopg

from tests.contract import accounts, administrators, diplomail, games, identities, lobby, notifications, race_names
from tests.contract.document import Operation, document
from tests.postgres import Database
from tests.services import (
    Api,
    Person,
    add_session,
    confirmation,
    delete_account,
    new_email,
    read_code,
    sanction,
    send_code,
)


@dataclass(frozen=True)
class Request:
    """A request to an operation; `path` has its parameters filled in."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        return b"" if self.body is None else json.dumps(self.body).encode()

    def send(self, api: Api) -> httpx.Response:
        headers = dict(self.headers)
        if self.body is not None:
            headers.setdefault("Content-Type", "application/json")
        return api.client.request(self.method, self.path, params=self.query, headers=headers, content=self.content)


class World:
    """What requests are made of: an API, and people in its database."""

    def __init__(self, api: Api, database: Database) -> None:
        self.api = api
        self.database = database

    def connect(self) -> contextlib.AbstractContextManager[psycopg.Connection[Any]]:
        return self.database.borrow()

    def person(self) -> Person:
        """Somebody who is signed in, without having asked the API."""
        email = new_email()
        with self.connect() as connection:
            row = connection.execute(
                "SELECT (backend.account_create('email', %s, %s, 'en', 'UTC', NULL)).user_id", [email, email]
            ).fetchone()
            assert row is not None
            return Person(email, str(row[0]), add_session(connection, str(row[0])), "")

    def challenge(self, email: str | None = None) -> dict[str, str]:
        """The body that confirms a new challenge with the right code."""
        challenge_id = send_code(self.api, email or new_email())
        return confirmation(challenge_id, read_code(self.database, challenge_id))


# -- the right request


def _body(world: World, operation: Operation) -> Any:
    match operation.name:
        case "email_code_send":
            return {"email": new_email(), "locale": "de-AT"}
        case "email_code_confirm":
            return world.challenge()
        case "session_revoke" | "session_revoke_all":
            return {"reason": "revoked_by_admin"}
    raise AssertionError(f"say in {__name__} what a right body of {operation.name} is")


def identity(world: World, operation: Operation, person: Person) -> Mapping[str, str]:
    return {"user": person.header, "internal": world.api.internal, "admin": world.api.admin}.get(operation.group, {})


def right(world: World, operation: Operation, person: Person | None = None, body: Any = None) -> Request:
    """A request that the operation accepts, in the name of `person` where it acts for somebody."""
    person = person or world.person()
    if operation.name in games.OPERATIONS:
        return games.right(world, operation, person, body)
    if operation.name in race_names.OPERATIONS:
        return race_names.right(world, operation, person, body)
    if operation.name in administrators.OPERATIONS:
        return administrators.right(world, operation, body)
    if operation.name in identities.OPERATIONS:
        return identities.right(world, operation, person, body)
    if operation.name in accounts.OPERATIONS:
        return accounts.right(world, operation, person, body)
    if operation.name in notifications.OPERATIONS:
        return notifications.right(world, operation, person, body)
    if operation.name in diplomail.OPERATIONS:
        return diplomail.right(world, operation, person, body)
    values = {"device_session_id": person.device_session_id, "user_id": person.user_id}
    return Request(
        operation.method,
        operation.path.format_map(values),
        body if body is not None or not operation.has_body else _body(world, operation),
        headers=identity(world, operation, person),
    )


# -- wrong ones


Stall = Callable[[], contextlib.AbstractContextManager[None]]
"""A block in which a database does not answer in time."""


class Cause(NamedTuple):
    """An answer that the contract names; `code` is None where there is no error."""

    operation: Operation
    status: int
    code: str | None

    def __str__(self) -> str:
        return f"{self.operation.name}-{self.status}" + (f"-{self.code}" if self.code else "")


Make = Callable[[World, Operation], Request]


def _somebody(change: Callable[[psycopg.Connection[Any], str], None]) -> Make:
    """A right request by somebody to whom something has happened."""

    def make(world: World, operation: Operation) -> Request:
        if operation.name == "email_code_confirm":
            person = world.person()
            body = world.challenge(person.email)
        else:
            person, body = world.person(), None
        with world.connect() as connection:
            change(connection, person.user_id)
        return right(world, operation, person, body)

    return make


def _headers(**headers: str) -> Make:
    def make(world: World, operation: Operation) -> Request:
        request = right(world, operation)
        changed = {**request.headers, **{k.replace("_", "-"): v for k, v in headers.items()}}
        return replace(request, headers={k: v for k, v in changed.items() if v})

    return make


def _query(**query: str) -> Make:
    return lambda world, operation: replace(right(world, operation), query=query)


def _path(**values: str) -> Make:
    def make(world: World, operation: Operation) -> Request:
        given = {
            "device_session_id": str(uuid.uuid4()),
            "user_id": str(uuid.uuid4()),
            "provider": "telegram",
            **values,
        }
        return replace(right(world, operation), path=operation.path.format_map(given))

    return make


def _raw_body(content: bytes) -> Make:
    def make(world: World, operation: Operation) -> Request:
        class Raw(Request):
            @property
            def content(self) -> bytes:
                return content

        found = right(world, operation)
        return Raw(found.method, found.path, found.body, found.query, found.headers)

    return make


def _unauthorized(world: World, operation: Operation) -> Request:
    return replace(right(world, operation), headers={})


def _unknown_account(world: World, operation: Operation) -> Request:
    if operation.group == "user":
        return _headers(X_User_ID=str(uuid.uuid4()))(world, operation)
    return _path()(world, operation)


def _blocked_address(world: World, operation: Operation) -> Request:
    email = new_email()
    with world.connect() as connection:
        connection.execute("INSERT INTO backend.blocked_emails (email, actor) VALUES (%s, 'test')", [email])
    return right(world, operation, body={"email": email})


def _unknown_challenge(world: World, operation: Operation) -> Request:
    return right(world, operation, body=confirmation(str(uuid.uuid4()), "123456"))


# By code, for whatever operation names it; or by operation and code, where it takes something of its own.
CAUSES: Mapping[str | tuple[str, str], Make] = {
    "invalid_request": _query(surplus="1"),
    "invalid_json": _raw_body(b'{"a":'),
    "invalid_user_id": _headers(X_User_ID="somebody"),
    "invalid_cursor": _query(cursor="00"),
    "unauthorized": _unauthorized,
    "account_not_found": _unknown_account,
    "account_deleted": _somebody(delete_account),
    "account_blocked": _somebody(lambda c, user_id: sanction(c, user_id, "permanent_block")),
    "sanctioned": _somebody(lambda c, user_id: sanction(c, user_id, "login_block")),
    "session_not_found": _path(),
    "email_blocked": _blocked_address,
    "invalid_code": _unknown_challenge,
    "body_too_large": _raw_body(b'{"a": "' + b"a" * 65536 + b'"}'),
    "unsupported_media_type": _headers(Content_Type="text/plain"),
    **games.CAUSES,
    **race_names.CAUSES,
    **lobby.CAUSES,
    **administrators.causes(right),
    **identities.CAUSES,
    **accounts.CAUSES,
    **notifications.CAUSES,
    **diplomail.CAUSES,
}

# What answers with these is tried while the database stalls.
STALLED = ("unavailable", None)
# And with this while the queue of the engines is full.
BUSY = "runtime_busy"


def documented() -> list[Cause]:
    """Every answer that the document promises: operation, status, and each code that it can have there."""
    found: list[Cause] = []
    for operation in document().operations:
        for status in operation.statuses:
            if status < 400 or operation.group == "probe":
                found.append(Cause(operation, status, None))
                continue
            codes = document().codes(operation, status)
            if operation.group != "user":
                codes -= {"invalid_user_id"}
            if not operation.has_body:
                codes -= {"invalid_json"}
            # No path of ours leads nowhere once it is an operation's.
            codes -= {"not_found"}
            codes -= {code for name, code in games.UNREACHABLE if name == operation.name}
            found += [Cause(operation, status, code) for code in sorted(codes)]
    return found


def make_of(cause: Cause) -> Make | None:
    """How to bring an answer about; None for a stalled database and a full queue."""
    if cause.code in (*STALLED, BUSY) and cause.status == 503:
        return None
    if cause.code is None:
        return right
    found = CAUSES.get((cause.operation.name, cause.code)) or CAUSES.get(cause.code)
    assert found is not None, f"nothing in {__name__} brings about {cause}"
    return found
