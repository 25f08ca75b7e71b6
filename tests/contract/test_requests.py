"""What is malformed is refused with a clear 4xx in the standard body, whatever is wrong with it."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.contract.document import Operation, document
from tests.contract.requests import Request, World, right
from tests.services import add_session, new_email

OPERATIONS = [o for o in document().operations if o.group != "probe"]
WITH_BODY = [o for o in OPERATIONS if o.has_body]
LISTS = [o for o in OPERATIONS if any("cursor" in str(p) or "Cursor" in str(p) for p in o.node.get("parameters", ()))]

SEND = document().operation("email_code_send")
CONFIRM = document().operation("email_code_confirm")


def post(world: World, content: bytes, operation: Operation = SEND, **headers: str) -> httpx.Response:
    whole = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return world.api.client.request(operation.method, operation.path, content=content, headers=whole)


def problems(answer: httpx.Response, code: str = "invalid_request") -> Any:
    """The details of a 400, which for a malformed request are what is wrong and where."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code), answer.text
    return answer.json()["error"]["details"]


# -- bodies


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_an_unknown_field_is_refused_and_named(operation: Operation, world: World) -> None:
    request = right(world, operation)
    wrong = Request(request.method, request.path, {**request.body, "surplus": 1}, headers=request.headers)
    (problem,) = problems(wrong.send(world.api))
    assert "surplus" in problem["problem"]


def fits(operation: Operation, body: dict[str, Any]) -> bool:
    return document().request_problems(operation, json.dumps(body).encode()) == []


def _properties() -> list[tuple[Operation, str]]:
    found = []
    for operation in WITH_BODY:
        schema = document().resolve(operation.node["requestBody"])["content"]["application/json"]["schema"]
        found += [(operation, name) for name in document().resolve(schema)["properties"]]
    return found


@pytest.mark.parametrize(("operation", "name"), _properties(), ids=str)
def test_a_field_of_a_wrong_type_is_refused_and_named(operation: Operation, name: str, world: World) -> None:
    request = right(world, operation)
    for value in (1, 1.5, True, None, [], {}, [request.body.get(name)], {"a": 1}, 1e308):
        wrong = Request(request.method, request.path, {**request.body, name: value}, headers=request.headers)
        if fits(operation, wrong.body):
            continue
        assert {p["path"].split(".")[0] for p in problems(wrong.send(world.api))} == {name}, value


@pytest.mark.parametrize(("operation", "name"), _properties(), ids=str)
def test_a_field_that_is_over_long_is_refused_and_named(operation: Operation, name: str, world: World) -> None:
    request = right(world, operation)
    for value in ("a" * 5000, "\u00e9" * 300, ""):
        wrong = Request(request.method, request.path, {**request.body, name: value}, headers=request.headers)
        if fits(operation, wrong.body):
            continue
        assert {p["path"] for p in problems(wrong.send(world.api))} == {name}


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_a_required_field_that_is_missing_is_refused(operation: Operation, world: World) -> None:
    schema = document().resolve(operation.node["requestBody"])["content"]["application/json"]["schema"]
    request = right(world, operation)
    for name in schema.get("required", ()):
        body = {k: v for k, v in request.body.items() if k != name}
        (problem,) = problems(Request(request.method, request.path, body, headers=request.headers).send(world.api))
        assert name in problem["problem"]


@pytest.mark.parametrize(
    "content",
    [b"null", b"[]", b'"a"', b"1", b"true", b"[{}]", b'{"email": {"email": "a@example.org"}}'],
    ids=bytes.decode,
)
def test_a_body_that_is_no_object_of_the_contract_is_refused(content: bytes, world: World) -> None:
    problems(post(world, content))


NOT_JSON = {
    "nothing": b"",
    "a space": b" ",
    "cut off": b'{"email":',
    "single quotes": b"{'email': 'a'}",
    "two values": b"{}{}",
    "a comma too many": b'{"email": "a@example.org",}',
    "a comment": b"{} // no",
    "invalid UTF-8": b'{"email": "a\xff@example.org"}',
    "invalid UTF-8 in a name": b'{"\xc3\x28": 1}',
    "an encoded surrogate": b'{"email": "a\xed\xa0\x80@example.org"}',
    "over-long UTF-8": b'{"email": "a\xc0\x80@example.org"}',
    "UTF-16": '{"email": "a@example.org"}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"email": "a@example.org"}',
    "NUL": b'{"email": "a\\u0000@example.org"}',
    "NUL in a name": b'{"email": "a@example.org", "\\u0000": 1}',
    "NUL after a backslash": b'{"email": "a\\\\\\u0000@example.org"}',
    "a raw NUL": b'{"email": "a\0@example.org"}',
    "a raw line end": b'{"email": "a\n@example.org"}',
    "a raw tab": b'{"email": "a\t@example.org"}',
    "a lone high surrogate": b'{"email": "a\\ud800@example.org"}',
    "a lone low surrogate": b'{"email": "a\\udc00@example.org"}',
    "surrogates the wrong way round": b'{"email": "\\udc00\\ud800@example.org"}',
    "a lone surrogate in a name": b'{"email": "a@example.org", "\\ud800": 1}',
    "NaN": b'{"email": NaN}',
    "Infinity": b'{"email": Infinity}',
    "minus Infinity": b'{"email": -Infinity}',
    "a leading zero": b'{"email": 012}',
    "hexadecimal": b'{"email": 0x12}',
    "a number of 5,000 digits": b'{"email": ' + b"9" * 5000 + b"}",
}


@pytest.mark.parametrize("content", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_what_is_not_json_in_utf8_is_refused(content: bytes, world: World) -> None:
    assert problems(post(world, content), "invalid_json") == {}


def test_an_escaped_backslash_before_u0000_is_no_nul(world: World) -> None:
    (problem,) = problems(post(world, b'{"email": "a\\\\u0000@example.org"}'))
    assert problem["path"] == "email"


@pytest.mark.parametrize("number", [b"1e-400", b"9" * 400, b"1" + b"0" * 4000])
def test_a_huge_number_is_refused(number: bytes, world: World) -> None:
    (problem,) = problems(post(world, b'{"email": ' + number + b"}"))
    assert problem["path"] == "email"


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"1e99999999999999999999"])
def test_a_number_that_is_none_for_anybody_is_refused(number: bytes, world: World) -> None:
    assert problems(post(world, b'{"email": ' + number + b"}"), "invalid_json") == {}
    orders = right(world, document().operation("engine_orders_store"))
    content = b'{"turn": 0, "commands": [{"n": ' + number + b"}]}"
    headers = {**orders.headers, "Content-Type": "application/json"}
    assert problems(world.api.client.request(orders.method, orders.path, content=content, headers=headers), "invalid_json") == {}


@pytest.mark.parametrize("depth", [10, 200, 254, 255, 256, 257, 500, 900, 1000, 5000, 30000])
@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["arrays", "objects"])
def test_deep_nesting_is_refused(depth: int, opening: bytes, world: World) -> None:
    closing = b"]" if opening == b"[" else b"}"
    depth = min(depth, 64_000 // (len(opening) + 1))
    for content in (opening * depth + closing * depth, opening * depth):
        answer = post(world, content)
        assert answer.status_code == 400, (depth, answer.text)
    inner = opening * depth + b"1" + closing * depth
    assert post(world, b'{"email": "a@example.org", "locale": ' + inner[:65000] + b"}").status_code == 400


def test_of_a_key_given_twice_the_last_counts_for_all(world: World) -> None:
    email = new_email()
    answer = post(world, json.dumps({"x": 1})[:1].encode() + f'"email": 5, "email": "{email}"'.encode() + b"}")
    assert answer.status_code == 200
    with world.connect() as connection:
        found = connection.execute(
            "SELECT email FROM auth_challenges WHERE challenge_id = %s", [answer.json()["challenge_id"]]
        ).fetchone()
    assert found == (email,)
    assert problems(post(world, f'{{"email": "{email}", "email": 5}}'.encode()))[0]["path"] == "email"


def test_problems_never_repeat_a_value(world: World) -> None:
    """A problem goes into the answer, and a value may be somebody's secret."""
    email = new_email()
    answer = post(world, json.dumps({"email": email + " and more" + "x" * 300, "locale": email}).encode())
    assert email not in answer.text
    body = world.challenge() | {"code": "12345 67"}
    assert "12345" not in post(world, json.dumps(body).encode(), CONFIRM).text


# -- how a body comes


@pytest.mark.parametrize("operation", WITH_BODY, ids=str)
def test_a_body_of_64_kib_is_read_and_one_byte_more_is_not(operation: Operation, world: World) -> None:
    request = right(world, operation)
    body = request.content
    for size, status in ((65536, min(operation.statuses)), (65537, 413), (1_000_000, 413)):
        request = right(world, operation)
        body = request.content
        padded = body[:-1] + b" " * (size - len(body)) + b"}"
        assert len(padded) == size
        headers = {**request.headers, "Content-Type": "application/json"}
        answer = world.api.client.request(request.method, request.path, content=padded, headers=headers)
        assert answer.status_code == status, size
        chunked = right(world, operation)
        parts = [chunked.content[:-1], b" " * (size - len(chunked.content)), b"}"]
        headers = {**chunked.headers, "Content-Type": "application/json"}
        answer = world.api.client.request(chunked.method, chunked.path, content=iter(parts), headers=headers)
        assert answer.status_code == status, f"{size} in chunks"


@pytest.mark.parametrize("reason", [" ", "\n", "\u200b", "\u00a0\u3164", "\u2800\ufe0f", "\U000e0041", "\u00ad \u2060"])
def test_a_reason_of_which_nothing_is_seen_is_none(reason: str, world: World) -> None:
    for name in ("user_sanction_apply", "user_sanction_lift", "user_limit_apply", "user_soft_delete", "blocked_email_create"):
        found = right(world, document().operation(name))
        answer = replace(found, body={**found.body, "reason": reason}).send(world.api)
        assert [p["path"] for p in problems(answer)] == ["reason"], name


@pytest.mark.parametrize("text", [" ", "%20%20", "+", "%E3%80%80"])
def test_a_search_for_nothing_is_refused(text: str, world: World) -> None:
    answer = world.api.client.get(f"/api/v1/admin/users?q={text}", headers=world.api.admin)
    assert [p["path"] for p in problems(answer)] == ["q"]


def test_who_sends_no_body_is_told_that_one_is_needed(world: World) -> None:
    for name in ("user_sanction_lift", "user_limit_clear", "email_code_send"):
        request = right(world, document().operation(name))
        answer = world.api.client.request(request.method, request.path, headers=request.headers)
        assert answer.status_code == 415, name
        assert answer.json()["error"]["message"].startswith("A body is needed, of application/json"), name


@pytest.mark.parametrize(
    "media_type",
    [
        "",
        "text/plain",
        "application/xml",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "json",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/json, text/plain",
        "application/problem+json",
        "application/jsonp",
        "application/json/x",
    ],
)
def test_a_body_of_another_type_is_refused(media_type: str, world: World) -> None:
    answer = world.api.client.post(SEND.path, content=b'{"email": "a@example.org"}', headers={"Content-Type": media_type})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    "media_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;Charset="UTF-8"',
        "application/json;",
        "application/json ; charset=utf-8",
    ],
)
def test_json_is_known_by_every_name_of_its_own(media_type: str, world: World) -> None:
    body = json.dumps({"email": new_email()}).encode()
    assert world.api.client.post(SEND.path, content=body, headers={"Content-Type": media_type}).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "identity, gzip"])
def test_an_encoded_body_is_refused(encoding: str, world: World) -> None:
    assert post(world, b'{"email": "a@example.org"}', Content_Encoding=encoding).status_code == 415


def test_a_body_that_may_be_absent(world: World) -> None:
    person = world.person()
    path = f"/api/v1/internal/sessions/{person.device_session_id}/revoke"
    answer = world.api.client.post(path, headers=world.api.internal)
    assert (answer.status_code, answer.json()["revoke_reason"]) == (200, "logout")
    # What was not sent has no type.
    answer = world.api.client.post(path, headers={**world.api.internal, "Content-Type": "text/plain"})
    assert answer.status_code == 200
    answer = world.api.client.post(path, content=b"{}", headers={**world.api.internal, "Content-Type": "application/json"})
    assert answer.status_code == 200


# -- parameters


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
def test_an_unknown_query_parameter_is_refused_and_named(operation: Operation, world: World) -> None:
    request = right(world, operation)
    for query in ("surplus=1", "Limit=1", "limit%5B%5D=1", "p_user_id=1", "user_id=1", "surplus", "=1", "%00=1"):
        answer = world.api.client.request(
            request.method,
            f"{request.path}?{query}",
            content=request.content,
            headers={**request.headers, "Content-Type": "application/json"},
        )
        assert problems(answer), query


def _path_parameters() -> list[tuple[Operation, str]]:
    return [(o, name) for o in OPERATIONS for name in re.findall(r"\{(\w+)\}", o.path)]


NO_IDS = [
    "%00",
    "%ff",
    "%0a",
    "a%0a",
    "%20",
    "%7B%7D",
    "'--",
    "1;drop",
    "%F0%9F%98%80",
    "a" * 300,
    "%C3%28",
    "..%20",
    "-",
    "0192f0c47b1a7c3e8a550f6d1c2b3a49",
    "%7B0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49%7D",
    "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49%0a",
    "urn:uuid:0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49",
]


@pytest.mark.parametrize(("operation", "name"), _path_parameters(), ids=str)
def test_a_malformed_id_in_the_path_is_refused_and_named(operation: Operation, name: str, world: World) -> None:
    request = right(world, operation)
    others = {
        **dict.fromkeys(re.findall(r"\{(\w+)\}", operation.path), "00000000-0000-7000-8000-000000000000"),
        "turn": "0",
        "provider": "email",
    }
    others["code"] = "login_block" if "sanctions" in operation.path else "max_active_memberships"
    for value in NO_IDS:
        if name == "tier" and re.fullmatch(r"[a-z][a-z0-9_]{0,62}", value):
            continue
        if name == "username" and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", value):
            continue
        path = operation.path.format_map({**others, name: value})
        url = httpx.URL(world.api.url).copy_with(raw_path=path.encode())
        url = url.copy_merge_params(request.query) if request.query else url
        answer = world.api.client.request(request.method, url, headers=request.headers)
        assert {p["path"] for p in problems(answer)} == {name}, value


def test_an_id_may_be_written_in_either_case(world: World) -> None:
    person = world.person()
    path = f"/api/v1/internal/sessions/{person.device_session_id.upper()}"
    answer = world.api.client.get(path, headers=world.api.internal)
    assert answer.json()["device_session_id"] == person.device_session_id


NO_LIMITS = (
    "0",
    "-1",
    "201",
    "1000000000000000000000",
    "1.0",
    "1e1",
    "",
    "a",
    "0x10",
    "+5",
    "%2B5",
    "1_0",
    "%D9%A3",
    "%00",
    "true",
    "null",
    "%EF%BC%91",
)


@pytest.mark.parametrize("operation", LISTS, ids=str)
def test_a_limit_out_of_range_is_refused_and_not_clamped(operation: Operation, world: World) -> None:
    request = right(world, operation)
    for limit in NO_LIMITS:
        answer = world.api.client.get(f"{request.path}?limit={limit}", headers=request.headers)
        assert {p["path"] for p in problems(answer)} == {"limit"}, limit


@pytest.mark.parametrize("operation", LISTS, ids=str)
def test_a_repeated_parameter_is_refused(operation: Operation, world: World) -> None:
    request = right(world, operation)
    for query in ("limit=1&limit=1", "limit=1&limit=2", "limit=&limit=1"):
        answer = world.api.client.get(f"{request.path}?{query}", headers=request.headers)
        assert {p["path"] for p in problems(answer)} == {"limit"}


@pytest.mark.parametrize("query", ["cursor=%ff", "a=1&" * 60, "%ff=1", "limit=%ff"], ids=["value", "many", "name", "number"])
def test_a_malformed_query_is_refused(query: str, world: World) -> None:
    answer = world.api.client.get(f"/api/v1/user/account/sessions?{query}", headers=world.person().header)
    assert problems(answer)


@pytest.mark.parametrize("operation", LISTS, ids=str)
@pytest.mark.parametrize("limit", ["1", "200", "007"])
def test_a_limit_in_range_is_kept_to(operation: Operation, limit: str, world: World) -> None:
    request = right(world, operation)
    answer = world.api.client.get(f"{request.path}?limit={limit}", headers=request.headers)
    assert answer.status_code == 200
    assert len(answer.json()["items"]) <= int(limit)


# -- pages


def forged(list_name: str, key: str) -> str:
    """A cursor as the database makes them: its form is no secret."""
    return (hashlib.md5(f"{list_name}:{key}".encode(), usedforsecurity=False).hexdigest()[:8] + key).encode().hex()


def sessions(world: World, user: dict[str, str], **query: Any) -> httpx.Response:
    return world.api.client.get("/api/v1/user/account/sessions", headers=user, params=query)


def test_pages_hold_everything_once_and_newest_first(world: World) -> None:
    person = world.person()
    with world.connect() as connection:
        ids = [person.device_session_id] + [add_session(connection, person.user_id) for _ in range(6)]
        found: list[str] = []
        cursor: dict[str, str] = {}
        pages = 0
        while True:
            page = sessions(world, person.header, limit=3, **cursor).json()
            found += [item["device_session_id"] for item in page["items"]]
            pages += 1
            if page["next_cursor"] is None:
                break
            cursor = {"cursor": page["next_cursor"]}
            # One more while the pages are turned: it is in none of those to come.
            add_session(connection, person.user_id)
    assert found == ids[::-1]
    assert pages == 3


def test_a_cursor_from_elsewhere_is_refused(world: World) -> None:
    person, other = world.person(), world.person()
    with world.connect() as connection:
        add_session(connection, person.user_id)
        connection.execute(
            """
            INSERT INTO admin_accounts (username, password_hash)
            SELECT 'zoe', password_hash FROM admin_accounts LIMIT 1 ON CONFLICT DO NOTHING
            """
        )
    mine = sessions(world, person.header, limit=1).json()["next_cursor"]
    admins = world.api.client.get("/api/v1/admin/admin-accounts", params={"limit": 1}, headers=world.api.admin).json()[
        "next_cursor"
    ]
    assert sessions(world, person.header, cursor=mine).status_code == 200
    problems_of = [
        sessions(world, other.header, cursor=mine),
        sessions(world, person.header, cursor=admins),
        world.api.client.get("/api/v1/admin/admin-accounts", params={"cursor": mine}, headers=world.api.admin),
    ]
    for answer in problems_of:
        assert problems(answer, "invalid_cursor") == {}


MALFORMED = ["0", "00", "zz", "AAAA", "abc-_", "ff" * 20, "30" * 8, "-", "_" * 1200, "7f" * 600]


@pytest.mark.parametrize("cursor", MALFORMED, ids=lambda c: c[:8])
def test_a_malformed_cursor_is_refused(cursor: str, world: World) -> None:
    assert problems(sessions(world, world.person().header, cursor=cursor), "invalid_cursor") == {}


@pytest.mark.parametrize("cursor", ["", "a" * 1201, "a b", "a%00", "\u00e9", "a+b", "a=b", "../x"])
def test_what_can_be_no_cursor_is_refused(cursor: str, world: World) -> None:
    assert {p["path"] for p in problems(sessions(world, world.person().header, cursor=cursor))} == {"cursor"}


@pytest.mark.parametrize("key", ["", "zzz", "0192f0c4", "'; --", "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a4g", "null"])
def test_a_cursor_that_was_made_up_is_refused(key: str, world: World) -> None:
    person = world.person()
    answer = sessions(world, person.header, cursor=forged(f"my_session_list:{person.user_id}", key))
    assert problems(answer, "invalid_cursor") == {}


# -- identity


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o.group == "user"], ids=str)
def test_the_callers_id_must_be_a_uuid(operation: Operation, world: World) -> None:
    person = world.person()
    request = right(world, operation, person)

    def ask(*headers: tuple[str, str | bytes]) -> httpx.Response:
        content_type: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),) if operation.has_body else ()
        whole = [
            (name.encode(), value if isinstance(value, bytes) else value.encode()) for name, value in (*headers, *content_type)
        ]
        return world.api.client.request(
            request.method, request.path, params=request.query, content=request.content, headers=whole
        )

    for value in (
        "",
        "somebody",
        person.user_id[:-1],
        f"{{{person.user_id}}}",
        person.user_id.replace("-", ""),
        f"{person.user_id}, {person.user_id}",
        f"{person.user_id}\u00e9",
        f"'{person.user_id}",
        "0" * 300,
    ):
        assert problems(ask(("X-User-ID", value.encode())), "invalid_user_id") == {}, value
    assert problems(ask(), "invalid_user_id") == {}
    twice = ask(("X-User-ID", person.user_id), ("X-User-ID", person.user_id))
    assert problems(twice, "invalid_user_id") == {}
    # The same header for WSGI, but not the one that the gateway checks.
    assert problems(ask(("X_User_ID", person.user_id)), "invalid_user_id") == {}


def test_the_shape_is_looked_at_before_the_identity(world: World) -> None:
    """The order of checks: shape, identity, object."""
    client = world.api.client
    assert problems(client.get("/api/v1/user/account/sessions?limit=0"))
    assert problems(client.get("/api/v1/admin/admin-accounts?limit=0"))
    assert problems(client.get("/api/v1/internal/sessions/x"))
    unknown = "/api/v1/internal/sessions/00000000-0000-7000-8000-000000000000"
    assert client.get(unknown).status_code == 401
    assert client.get(unknown, headers=world.api.internal).status_code == 404
