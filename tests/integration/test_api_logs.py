"""What the HTTP program writes: one JSON object a line, under the request's id and trace, and no secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from tests.postgres import Database
from tests.services import Api, leaks, line_problems, note_secret, send_code, sign_in, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def line_of(api: Api, request_id: str) -> dict[str, Any]:
    """The line about a request."""
    found = until(lambda: [line for line in api.logged("request") if line.get("request_id") == request_id])
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        (
            "GET",
            "/api/v1/user/account",
            {
                "group": "user",
                "path": "/api/v1/user/account",
                "status": 400,
                "operation": "my_account_get",
                "code": "invalid_user_id",
            },
        ),
        (
            "DELETE",
            "/api/v1/admin/blocked-emails/a%2Fb%40example.org",
            {
                "group": "admin",
                "path": "/api/v1/admin/blocked-emails/{email}",
                "status": 401,
                "operation": "blocked_email_delete",
                "code": "unauthorized",
            },
        ),
        ("GET", "/nowhere/at/all?secret=1", {"group": "none", "path": "", "status": 404, "operation": None, "code": "not_found"}),
        (
            "DELETE",
            "/api/v1/user/account",
            {"group": "none", "path": "/api/v1/user/account", "status": 405, "operation": None, "code": "method_not_allowed"},
        ),
        (
            "GET",
            "/api/v1/internal/sessions/0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49",
            {
                "group": "internal",
                "path": "/api/v1/internal/sessions/{device_session_id}",
                "status": 401,
                "operation": "session_get",
                "code": "unauthorized",
            },
        ),
    ],
)
def test_a_request_is_one_line(method: str, path: str, expected: dict[str, Any], shared_api: Api) -> None:
    answer = shared_api.client.request(method, path, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    line = line_of(shared_api, answer.headers["X-Request-ID"])
    assert {name: line[name] for name in expected} == expected
    assert line["method"] == method
    assert line["otel_trace_id"] == TRACE
    assert len(line["otel_span_id"]) == 16
    assert line["level"] == "info"
    assert line["service"] == "galaxy-backend"
    assert line["duration_ms"] >= 0
    assert "secret" not in json.dumps(line)


def test_without_a_trace_there_is_a_new_one_for_each(shared_api: Api) -> None:
    lines = [line_of(shared_api, shared_api.client.get("/nowhere").headers["X-Request-ID"]) for _ in range(2)]
    assert len({line["otel_trace_id"] for line in lines}) == 2


def test_what_is_asked_all_the_time_is_a_line_only_when_it_goes_wrong(shared_api: Api, shared_database: Database) -> None:
    person = sign_in(shared_api, shared_database)
    path = f"/api/v1/internal/sessions/{person.device_session_id}"
    ids = [
        shared_api.client.get("/healthz").headers["X-Request-ID"],
        shared_api.client.get("/readyz").headers["X-Request-ID"],
        shared_api.client.get(path, headers=shared_api.internal).headers["X-Request-ID"],
    ]
    wrong = shared_api.client.get(path).headers["X-Request-ID"]
    line_of(shared_api, wrong)
    assert not [line for line in shared_api.log_lines() if line.get("request_id") in ids]


def test_the_least_level_is_kept_to(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(database, BACKEND_LOGGING_LEVEL="debug")
    line = line_of(api, api.client.get("/healthz").headers["X-Request-ID"])
    assert line["level"] == "debug"


def test_warnings_only(start_program: Callable[..., Any], database: Database) -> None:
    from dev.cluster import free_port

    port = free_port()
    api = start_program("api", database, BACKEND_LOGGING_LEVEL="warn", BACKEND_HTTP_LISTEN_ADDR=f"127.0.0.1:{port}")

    def answered() -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{port}/nowhere").status_code == 404
        except httpx.TransportError:
            return False

    until(answered)
    assert api.log_lines() == []


@pytest.mark.parametrize(
    "evil",
    [
        'x"}\n{"ts": "forged", "msg": "forged"}',
        "a\r\nb",
        "\x1b[31mred",
        "\u2028",
        "{}",
        "%0a%0d",
        "${jndi:ldap://x}",
        "\x00",
        "\x85",
    ],
)
def test_no_input_can_forge_a_line(evil: str, shared_api: Api) -> None:
    raw = evil.encode()
    quoted = "".join(f"%{byte:02x}" for byte in raw)
    before = len(shared_api.raw_lines())
    url = httpx.URL(shared_api.url).copy_with(raw_path=f"/{quoted}?{quoted}={quoted}".encode())
    headers = {"User-Agent": quoted, "Referer": quoted, "X-Request-ID": quoted, "X-Forwarded-For": quoted, "X-User-ID": quoted}
    answer = shared_api.client.get(url, headers=headers)
    line_of(shared_api, answer.headers["X-Request-ID"])
    lines = shared_api.raw_lines()[before:]
    assert not [p for line in lines for p in line_problems(line)]
    assert "forged" not in [json.loads(line)["msg"] for line in lines]


def test_all_the_programs_own_lines_have_the_form(shared_api: Api) -> None:
    assert [problem for line in shared_api.raw_lines() for problem in line_problems(line)] == []
    assert shared_api.errors() == ""
    said = {line["msg"].split(":")[0] for line in shared_api.log_lines()}
    assert {"starting", "Listening at"} <= said, "gunicorn's lines have it too"


def test_no_line_holds_what_a_sign_in_knows(shared_api: Api, shared_database: Database) -> None:
    """Checked for every program at the end of the run; here, that the check would see it."""
    person = sign_in(shared_api, shared_database)
    send_code(shared_api, person.email)
    note_secret("123456")
    try:
        assert leaks(json.dumps({"msg": f"mail to {person.email}"})) == [person.email]
        assert leaks(json.dumps({"msg": "code 123456"})) == ["123456"]
        assert leaks(json.dumps({"a": {"b": ["x", person.public_key]}})) == [person.public_key]
        assert leaks(json.dumps({"ts": "2026-01-01T00:00:00.123456Z", "request_id": "a123456b", "msg": "pid: 123456"})) == []
        assert leaks(f"no JSON, but {person.email}") == [person.email]
        assert [line for line in shared_api.raw_lines() if person.email in line] == []
    finally:
        from tests import services

        services._secrets.discard("123456")


# -- traces on standard output


def spans(api: Api) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, api.raw_lines()) if "trace_id" in line.get("context", {})]


def test_spans_on_standard_output_are_lines_too(start_program: Callable[..., Any], database: Database) -> None:
    """Whoever reads the output line by line must be able to."""
    api = start_program("api", database, BACKEND_OTEL_TRACES_EXPORTER="stdout")
    api.wait_ready()
    answer = api.client.get("/api/v1/user/account", headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    api.stop()
    lines = api.raw_lines()
    unreadable = [line for line in lines if "is not JSON" in line_problems(line)]
    # What is there is told apart by its fields; nothing of it is asked to have the form of our logs.
    api.log.write_text("".join(f"{line}\n" for line in lines if not line_problems(line)))
    assert unreadable == []
    found = [json.loads(line) for line in lines if "parent_id" in line]
    mine = [span for span in found if TRACE in json.dumps(span["context"])]
    assert mine, "the caller's trace goes on"
    assert all(answer.headers["X-Request-ID"] in json.dumps(span["attributes"]) for span in mine), (
        "each span has the request's id"
    )
