"""What a request under a key is recognised by, and what is kept of its answer."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from app import idempotency
from app.contract import load_document, operations
from app.database import Value
from app.idempotency import digest, once, without

REQUEST = idempotency.Request("user", b"ann", "thing_create", "k", b"\0" * 32)


def test_the_order_of_fields_means_nothing_and_all_else_something() -> None:
    first = digest(b"p", ["x", ""], b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2}')
    assert len(first) == 32
    assert digest(b"p", ["x", ""], b'{"b":2,"a":1}', b'{"b":2,"a":1}') == first
    others = [
        digest(b"q", ["x", ""], b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2}'),
        digest(b"p", ["y", ""], b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2}'),
        digest(b"p", ["x", "c=1"], b'{"a": 1, "b": 2}', b'{"a": 1, "b": 2}'),
        digest(b"p", ["x", ""], b'{"a": 1, "b": 3}', b'{"a": 1, "b": 3}'),
        digest(b"p", ["x", ""], b"", None),
    ]
    assert len({first, *others}) == 6


def test_a_secret_that_the_database_does_not_get_counts_too() -> None:
    made = {digest(b"p", [], json.dumps({"a": 1, "password": p}).encode(), b'{"a": 1}') for p in ("one", "two")}
    assert len({*made, digest(b"p", [], b'{"a": 1}', b'{"a": 1}')}) == 3


def test_what_is_shown_once_is_kept_as_null() -> None:
    body = b'{"code": "c", "a": {"token": "t", "b": 1}, "items": [{"token": "t"}, {"n": 1}]}'
    kept = json.loads(without(body, [("code",), ("a", "token"), ("items", "*", "token"), ("not", "there")]) or b"")
    assert kept == {"code": None, "a": {"token": None, "b": 1}, "items": [{"token": None}, {"n": 1}]}
    assert without(body, []) is body
    assert without(None, [("code",)]) is None


def test_the_document_says_what_is_shown_once() -> None:
    found = {o.name: o.one_time for o in operations(load_document()) if o.one_time}
    code = (("code",),)
    assert found == {"invite_create": code, "admin_invite_create": code, "identity_session_open": (("token",),)}


@pytest.mark.parametrize(
    ("known", "answer", "expected"),
    [
        ([b"201", b"{}", b"/x"], None, ["idempotency_claim"]),
        ([None, None, None], [b"201", b"{}", b"/x"], ["idempotency_claim", "command", "idempotency_store"]),
        ([None, None, None], [b"403", b"{}", None], ["idempotency_claim", "command"]),
        ([None, None, None], [None, None, None], ["idempotency_claim", "command"]),
    ],
    ids=["known", "done", "refused", "no answer"],
)
def test_a_refusal_is_not_kept_and_what_is_known_is_not_done(
    known: list[Value], answer: list[Value] | None, expected: list[str]
) -> None:
    called: list[str] = []

    def call(name: str, parameters: Sequence[Value]) -> list[Value]:
        called.append(name)
        assert parameters
        return known if name == "idempotency_claim" else [None]

    def command() -> list[Value]:
        called.append("command")
        assert answer is not None
        return answer

    assert once(call, REQUEST, command, ()) == (answer or known)
    assert called == expected
