"""Commands that create, done once under a key: claim, the command and the keeping of its answer are one transaction."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from app.database import Calls, Statement, Value

_TEXT, _BYTEA, _INTEGER = 25, 17, 23
_CLAIM = Statement(
    "idempotency_claim",
    "SELECT (r).status, (r).body, (r).location FROM (SELECT api.idempotency_claim($1, $2, $3, $4, $5) AS r OFFSET 0) AS q",
    (_TEXT, _TEXT, _TEXT, _TEXT, _BYTEA),
    False,
)
_STORE = Statement(
    "idempotency_store",
    "SELECT api.idempotency_store($1, $2, $3, $4, $5, $6, $7)",
    (_TEXT, _TEXT, _TEXT, _BYTEA, _INTEGER, _TEXT, _TEXT),
    False,
)
STATEMENTS = (_CLAIM, _STORE)


class Request(NamedTuple):
    """A request under a key."""

    group: str
    caller: bytes
    operation: str
    key: str
    digest: bytes
    """Of all that makes it another request (`digest`)."""


def digest(pepper: bytes, place: object, raw: bytes, without_secrets: Value) -> bytes:
    """Return what a request is recognised by: HMAC-SHA-256 of where it goes (path and query) and of its body.

    The order of fields and the spaces between them do not matter. `without_secrets` is the body as the database gets it; what
    was taken out of it, a password perhaps, is hashed slowly before: what is stored must not be easier to try out than the
    hash that is kept of it.
    """
    body = json.loads(raw) if raw else None
    kept = json.loads(without_secrets) if without_secrets else None
    taken = {n: v for n, v in body.items() if n not in kept} if isinstance(body, dict) and isinstance(kept, dict) else {}
    slow = hashlib.scrypt(_canonical(taken), salt=b"idempotency" + pepper, n=1 << 14, r=8, p=1).hex() if taken else None
    return hmac.digest(pepper, b"idempotency\0" + _canonical([place, kept, slow]), hashlib.sha256)


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def once(call: Calls, request: Request, command: Callable[[], list[Value]], one_time: Iterable[tuple[str, ...]]) -> list[Value]:
    """Return the answer (status, body, location) that was kept, or do the command and keep its answer; in a transaction.

    A second caller with the key waits for the first. Refusals are not kept. Raises psycopg.Error, GX409 idempotency_conflict
    where the key was used for another request.
    """
    operation, key = request.operation.encode(), request.key.encode()
    hashed = b"\\x" + request.digest.hex().encode()
    known = call(_CLAIM.name, [request.group.encode(), request.caller, operation, key, hashed])
    if known[0] is not None:
        return known
    status, body, location = command()
    if status is not None and int(status) < 300:
        call(_STORE.name, [request.caller, operation, key, hashed, status, without(body, one_time), location])
    return [status, body, location]


def without(body: Value, one_time: Iterable[tuple[str, ...]]) -> Value:
    """Return an answer's body with null for the secrets at the paths given."""
    paths = list(one_time)
    if body is None or not paths:
        return body
    value = json.loads(body)
    for path in paths:
        _erase(value, path)
    return json.dumps(value, ensure_ascii=False).encode()


def _erase(value: Any, path: tuple[str, ...]) -> None:
    name, *rest = path
    if isinstance(value, list) and name == "*":
        for item in value:
            _erase(item, tuple(rest))
    elif isinstance(value, Mapping) and name in value:
        if rest:
            _erase(value[name], tuple(rest))
        else:
            value[name] = None  # type: ignore[index]
