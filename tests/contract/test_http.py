"""HTTP itself: what is no proper request, what comes too slowly, and what a path or a method may be."""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from tests.contract.document import document
from tests.contract.requests import World
from tests.contract.wire import Answer, Wire
from tests.postgres import Database
from tests.services import Api, new_email, until

REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{8,128}")


Connect = Callable[..., Wire]


@pytest.fixture
def connect(shared_api: Api) -> Iterator[Connect]:
    """Open connections; they are closed after the test."""
    with contextlib.ExitStack() as stack:

        def opened(api: Api = shared_api, timeout: float = 10) -> Wire:
            wire = Wire(api.address, timeout)
            stack.callback(wire.close)
            return wire

        yield opened


def is_standard(answer: Answer) -> None:
    """An error in the standard body, under an id that the header has too."""
    assert answer.headers["Content-Type"] == "application/json"
    error = json.loads(answer.body)
    assert document().problems(document().source["components"]["schemas"]["Error"], error) == []
    assert error["error"]["request_id"] == answer.headers["X-Request-ID"]
    assert REQUEST_ID.fullmatch(answer.headers["X-Request-ID"])


POST = b"POST /api/v1/public/auth/send-email-code HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


# -- what is no request


GARBAGE: dict[str, tuple[bytes, int]] = {
    "no HTTP": (b"hello\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "another version": (b"GET /healthz HTTP/3.1\r\nHost: x\r\n\r\n", 400),
    "no version": (b"GET /healthz\r\n\r\n", 400),
    "a small method": (b"get /healthz HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "no path": (b"GET  HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "a space in the path": (b"GET /health z HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "raw bytes in the path": (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "NUL in the path": (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
    "bare line feeds": (b"GET /healthz HTTP/1.1\nHost: x\n\n", 400),
    "a space before the colon": (b"GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n", 400),
    "no colon": (b"GET /healthz HTTP/1.1\r\nHost\r\n\r\n", 400),
    "a folded header": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n 2\r\n\r\n", 400),
    "NUL in a header": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: 1\x002\r\n\r\n", 400),
    "a bare carriage return in a header": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: 1\r2\r\n\r\n", 400),
    "two hosts": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
    "two types": (POST + b"Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}", 400),
    "a long line": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    "a long header": (GET + b"X-A: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "many headers": (GET + b"X-A: a\r\n" * 150 + b"\r\n", 431),
    "an expectation": (GET + b"Expect: wonders\r\n\r\n", 417),
}


@pytest.mark.parametrize(("data", "status"), GARBAGE.values(), ids=GARBAGE.keys())
def test_what_is_no_request_is_refused_in_the_standard_body(data: bytes, status: int, connect: Connect) -> None:
    wire = connect().send(data)
    answer = wire.answer()
    is_standard(answer)
    assert answer.status == status
    assert answer.headers["Connection"] == "close"
    assert wire.read() == b"", "nothing that comes after it is taken for a request"


# The first four bytes of a body that is read wrongly would be the next request.
SMUGGLING: dict[str, bytes] = {
    "both": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
    "both the other way round": b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
    "two lengths": b"Content-Length: 4\r\nContent-Length: 5\r\n",
    "one length twice": b"Content-Length: 4\r\nContent-Length: 4\r\n",
    "a list of lengths": b"Content-Length: 4, 4\r\n",
    "a signed length": b"Content-Length: +4\r\n",
    "a negative length": b"Content-Length: -4\r\n",
    "a hexadecimal length": b"Content-Length: 0x4\r\n",
    "a length in words": b"Content-Length: four\r\n",
    "no length": b"Content-Length:\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n",
    "identity": b"Transfer-Encoding: identity\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n",
    "a vertical tab": b"Transfer-Encoding:\x0bchunked\r\n",
    "an empty coding": b"Transfer-Encoding:\r\n",
    "quoted": b'Transfer-Encoding: "chunked"\r\n',
    "a space before the colon": b"Transfer-Encoding : chunked\r\n",
    "with an underscore": b"Transfer_Encoding: chunked\r\nContent-Length: x\r\n",
}


@pytest.mark.parametrize("headers", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_a_request_whose_length_is_in_doubt_is_refused_and_the_connection_closed(headers: bytes, connect: Connect) -> None:
    wire = connect().send(POST + headers + b"\r\n0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = wire.answer()
    is_standard(answer)
    assert answer.status in (400, 501)
    assert wire.read() == b""


def test_old_http_has_no_chunks(connect: Connect) -> None:
    wire = connect().send(b"POST /api/v1/public/auth/send-email-code HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
    assert wire.answer().status in (400, 501)


CHUNKS: dict[str, bytes] = {
    "no number": b"zz\r\n{}\r\n0\r\n\r\n",
    "a negative number": b"-1\r\n{}\r\n0\r\n\r\n",
    "a number without end": b"f" * 9000,
    "no line end after it": b"2\r\n{}xx0\r\n\r\n",
    "a bad extension": b"2;\x00\r\n{}\r\n0\r\n\r\n",
    "a forbidden trailer": b"2\r\n{}\r\n0\r\nContent-Length: 3\r\n\r\n",
    "a trailer without a colon": b"2\r\n{}\r\n0\r\nhello\r\n\r\n",
}


@pytest.mark.parametrize("body", CHUNKS.values(), ids=CHUNKS.keys())
def test_a_malformed_chunk_is_the_callers_fault(body: bytes, connect: Connect) -> None:
    wire = connect().send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body)
    answer = wire.answer()
    is_standard(answer)
    assert answer.status == 400
    assert wire.read() == b""


def test_a_body_in_chunks_is_read(connect: Connect) -> None:
    body = json.dumps({"email": new_email()}).encode()
    chunks = b"".join(b"%x;note=1\r\n%s\r\n" % (len(p), p) for p in (body[:3], body[3:20], body[20:]))
    answer = connect().send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\nX-Sum: 1\r\n\r\n").answer()
    assert answer.status == 200


@pytest.mark.parametrize("rest", [b"", b"{", b"{}"], ids=["nothing", "a byte", "two bytes"])
def test_what_was_cut_off_is_not_done(rest: bytes, world: World, connect: Connect) -> None:
    """Whoever hangs up within a body has not asked for anything, not even where the body may be absent."""
    person = world.person()
    path = f"/api/v1/internal/sessions/{person.device_session_id}/revoke"
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {world.api.internal['Authorization']}\r\n"
    wire = connect().send(head.encode() + b"Content-Type: application/json\r\nContent-Length: 20\r\n\r\n" + rest).finish()
    answered = wire.read()
    assert b" 500 " not in answered.split(b"\r\n")[0]
    session = world.api.client.get(path.removesuffix("/revoke"), headers=world.api.internal).json()
    assert session["status"] == "active", "a request of which only a part came was carried out"


@pytest.mark.parametrize("rest", [b"", b"5\r\n{}", b"2\r\n{}\r\n"], ids=["nothing", "half a chunk", "no end"])
def test_chunks_that_were_cut_off_are_nobodys_fault(rest: bytes, connect: Connect) -> None:
    answered = connect().send(POST + b"Transfer-Encoding: chunked\r\n\r\n" + rest).finish().read()
    assert b" 500 " not in answered.split(b"\r\n")[0]


# -- what is slow


def test_a_request_that_comes_too_slowly_is_cut_off(start_api: Callable[..., Api], database: Database, connect: Connect) -> None:
    """Nothing, a part of the head, a part of the body, or all of it drop by drop: none holds a thread for ever."""
    api = start_api(database, BACKEND_HTTP_READ_TIMEOUT="500ms", BACKEND_HTTP_WRITE_TIMEOUT="2s", BACKEND_HTTP_THREADS="6")
    started = time.monotonic()
    stuck = {
        "half a line": connect(api).send(b"GET /heal"),
        "half a head": connect(api).send(GET),
        "half a body": connect(api).send(POST + b"Content-Length: 20\r\n\r\n{"),
        "half a chunk": connect(api).send(POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{"),
    }
    for what, wire in stuck.items():
        answered = wire.read()
        # Nothing at all, or that it is the caller's fault.
        assert answered == b"" or answered.startswith(b"HTTP/1.1 4"), (what, answered)
    assert time.monotonic() - started < 20

    drip = connect(api)
    cut_off = 0.0
    started = time.monotonic()
    for byte in GET + b"X-A: " + b"a" * 200:
        try:
            drip.send(bytes([byte]))
        except OSError:
            cut_off = time.monotonic() - started
            break
        time.sleep(0.05)
    assert 0 < cut_off < 30
    # Nobody's fault, so nothing that an operator must look at.
    assert [line for line in api.log_lines() if line["level"] == "error"] == []
    assert api.client.get("/healthz").status_code == 200


def test_those_who_say_nothing_keep_nobody_else_waiting(
    start_api: Callable[..., Api], database: Database, connect: Connect
) -> None:
    api = start_api(database)
    for _ in range(20):
        connect(api)
    time.sleep(0.3)
    started = time.monotonic()
    assert api.client.get("/healthz").status_code == 200
    assert time.monotonic() - started < 15


# -- what is quick


def test_several_requests_on_one_connection(connect: Connect) -> None:
    wire = connect().send(GET + b"\r\n" + b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n" + GET + b"Connection: close\r\n\r\n")
    answers = [wire.answer() for _ in range(3)]
    assert [a.status for a in answers] == [200, 404, 200]
    assert len({a.headers["X-Request-ID"] for a in answers}) == 3
    assert wire.read() == b""


def test_a_body_that_nobody_reads_is_not_taken_for_the_next_request(connect: Connect) -> None:
    inner = b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n"
    wire = connect().send(GET + b"Content-Length: %d\r\n\r\n" % len(inner) + inner + GET + b"Connection: close\r\n\r\n")
    assert [wire.answer().status for _ in range(2)] == [200, 200]
    assert wire.read() == b""


_UNREAD = {
    "announced as too large": (POST + b"Content-Length: 1000000\r\n\r\n", 413, "close"),
    "too large, with more to come": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n10001\r\n" + b" " * 0x10001 + b"\r\n",
        413,
        "close",
    ),
    "chunks that nobody reads": (GET + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 200, "close"),
    "a few bytes that nobody reads": (GET + b"Content-Length: 2\r\n\r\n{}", 200, "keep-alive"),
}


@pytest.mark.parametrize("name", _UNREAD)
def test_whether_the_connection_stays_after_a_body_is_told(name: str, connect: Connect) -> None:
    """A client that was told that it stays would send its next request to nobody."""
    request, status, connection = _UNREAD[name]
    wire = connect().send(request)
    answer = wire.answer()
    assert (answer.status, answer.headers["Connection"]) == (status, connection)
    if connection == "close":
        assert wire.read() == b""
    else:
        assert wire.send(GET + b"\r\n").answer().status == 200


def test_a_request_in_pieces(connect: Connect) -> None:
    wire = connect()
    for piece in (b"GET /he", b"althz HTT", b"P/1.1\r", b"\nHost: x\r\n", b"\r", b"\n"):
        wire.send(piece)
        time.sleep(0.02)
    assert wire.answer().status == 200


def test_old_http_is_answered(connect: Connect) -> None:
    wire = connect().send(b"GET /healthz HTTP/1.0\r\n\r\n")
    assert wire.answer().status == 200
    assert wire.read() == b""


def test_a_large_body_is_announced_first(connect: Connect) -> None:
    body = json.dumps({"email": new_email()}).encode()
    wire = connect().send(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
    assert wire.answer().status == 100
    assert wire.send(body).answer().status == 200


# -- paths and methods


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/nowhere",
        "/healthz/",
        "/Healthz",
        "/healthz%00",
        "/healthz;a=1",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/user/account",
        "/api/v1/user/account/",
        "/api/v1/user//account",
        "//healthz",
        "///healthz",
        "//api/v1/user/account",
        "/./healthz",
        "/api/v1/user/../../../healthz",
        "/api%2Fv1%2Fuser%2Faccount%2F",
        "/%2Fhealthz",
        "/\\healthz",
        "/api/v1/user/account%20",
        "/api/v1/user/account%0a",
    ],
)
def test_an_unknown_path_is_not_found(path: str, connect: Connect) -> None:
    answer = connect().send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).answer()
    assert answer.status == 404
    is_standard(answer)
    assert json.loads(answer.body)["error"]["code"] == "not_found"


def test_a_path_may_be_written_with_percents_or_in_full(connect: Connect) -> None:
    for path in ("/health%7A", "/%68ealthz", "http://x/healthz", "/healthz?", "/healthz?a=1#b"):
        assert connect().send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()).answer().status == 200, path


METHODS = ["GET", "PUT", "POST", "DELETE", "PATCH", "TRACE", "CONNECT", "PROPFIND", "FOO"]


@pytest.mark.parametrize("path", sorted({o.path for o in document().operations}))
def test_a_wrong_method_is_refused_with_the_right_ones(path: str, connect: Connect) -> None:
    allowed = {o.method for o in document().operations if o.path == path}
    asked = re.sub(r"\{\w+\}", "00000000-0000-7000-8000-000000000000", path)
    for method in METHODS:
        if method in allowed:
            continue
        answer = connect().send(f"{method} {asked} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()).answer()
        is_standard(answer)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (405, "method_not_allowed"), method
        assert {m.strip() for m in answer.headers["Allow"].split(",")} - {"OPTIONS", "HEAD"} == allowed


def test_options_says_what_is_allowed(connect: Connect) -> None:
    answer = connect().send(b"OPTIONS /api/v1/user/account HTTP/1.1\r\nHost: x\r\n\r\n").answer()
    assert (answer.status, answer.body) == (200, b"")
    assert "GET" in answer.headers["Allow"]
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


def test_head_is_get_without_the_body(world: World, connect: Connect) -> None:
    """RFC 9110: a server must know GET and HEAD."""
    person = world.person()
    head = f"/api/v1/user/account HTTP/1.1\r\nHost: x\r\nX-User-ID: {person.user_id}\r\n\r\n".encode()
    wire = connect()
    full = wire.send(b"GET " + head).answer()
    bare = wire.send(b"HEAD " + head).answer("HEAD")
    assert (bare.status, bare.headers["ETag"], bare.headers["Content-Length"]) == (200, full.headers["ETag"], str(len(full.body)))
    assert wire.send(b"HEAD /nowhere HTTP/1.1\r\nHost: x\r\n\r\n").answer("HEAD").status == 404
    assert wire.send(GET + b"\r\n").answer().status == 200, "the connection is still in step"


# -- ids of requests


@pytest.mark.parametrize("given", ["abcdefgh", "A" * 128, "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49", "a.b_c-d.e", "--------"])
def test_a_good_request_id_is_taken(given: str, shared_api: Api) -> None:
    for path in ("/healthz", "/nowhere", "/api/v1/user/account"):
        assert shared_api.client.get(path, headers={"X-Request-ID": given}).headers["X-Request-ID"] == given


@pytest.mark.parametrize(
    "given",
    ["", "abcdefg", "A" * 129, "abcdefgh ijkl", "abcd/efgh", "abcdefgh\u00e9", "abcdefgh,abcdefgh", 'abc"defgh', "{abcdefgh}"],
)
def test_a_bad_request_id_is_replaced(given: str, shared_api: Api) -> None:
    for path in ("/healthz", "/nowhere", "/api/v1/user/account"):
        answer = shared_api.client.get(path, headers={b"X-Request-ID": given.encode()})
        found = answer.headers["X-Request-ID"]
        assert found != given
        assert REQUEST_ID.fullmatch(found)
    twice = shared_api.client.get("/healthz", headers=[("X-Request-ID", "abcdefgh"), ("X-Request-ID", "ijklmnop")])
    assert REQUEST_ID.fullmatch(twice.headers["X-Request-ID"])


# -- what browsers ask


def test_origins_that_are_configured_are_told_so_and_no_others(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(database, BACKEND_CORS_ALLOWED_ORIGINS="http://localhost:3000,https://example.org")
    ask = {"Access-Control-Request-Method": "PATCH", "Access-Control-Request-Headers": "x-user-id, content-type"}
    for origin in ("http://localhost:3000", "https://example.org"):
        preflight = api.client.options("/api/v1/user/account", headers={"Origin": origin, **ask})
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == origin
        assert "GET" in preflight.headers["Access-Control-Allow-Methods"]
        assert "content-type" in preflight.headers["Access-Control-Allow-Headers"].lower()
        answer = api.client.get("/api/v1/user/account", headers={"Origin": origin})
        assert answer.status_code == 400
        assert answer.headers["Access-Control-Allow-Origin"] == origin
        assert "x-request-id" in answer.headers["Access-Control-Expose-Headers"].lower()
    for origin in ("http://localhost:3001", "null", "https://example.org.evil.test", "http://example.org"):
        assert "Access-Control-Allow-Origin" not in api.client.get("/healthz", headers={"Origin": origin}).headers
        refused = api.client.options("/api/v1/user/account", headers={"Origin": origin, **ask})
        assert "Access-Control-Allow-Origin" not in refused.headers


def test_without_configured_origins_nobody_is_told_anything(shared_api: Api) -> None:
    answer = shared_api.client.get("/healthz", headers={"Origin": "http://localhost:3000"})
    assert not [name for name in answer.headers if name.lower().startswith("access-control-")]


# -- a client that goes away


def test_clients_that_go_away_leave_no_trace_of_a_fault(
    start_api: Callable[..., Api], database: Database, connect: Connect
) -> None:
    api = start_api(database)
    for _ in range(5):
        connect(api).send(POST + b"Content-Length: 30\r\n\r\n{").close()
        connect(api).send(GET + b"\r\n").close()
        connect(api).send(b"GET /").close()
        connect(api).close()
    until(lambda: api.client.get("/healthz").status_code == 200)
    time.sleep(0.3)
    assert [line for line in api.log_lines() if line["level"] == "error"] == []


@pytest.mark.parametrize(
    "last",
    [b"nonsense\r\n\r\n", GET + b"Connection: close\r\n\r\n", b"GET /healthz HTTP/1.0\r\n\r\n"],
    ids=["refused", "closed", "old"],
)
def test_those_who_do_not_hang_up_keep_nobody_else_waiting(last: bytes, shared_api: Api, connect: Connect) -> None:
    """After the last answer of a connection the server waits a little for the caller to close it, but not in its loop."""
    for _ in range(3):
        connect().send(last).answer()
    started = time.monotonic()
    with shared_api.new_client() as client:
        assert client.get("/healthz").status_code == 200
    assert time.monotonic() - started < 5
