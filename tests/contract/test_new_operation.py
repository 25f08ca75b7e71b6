"""A new operation is a function and an entry in the document: no Python. What does not fit stops the start by name."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import yaml

from app import contract
from dev.cluster import Cluster
from tests.contract.document import document
from tests.postgres import Database
from tests.services import Api, StartProgram, session_database, simultaneously

ERROR = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
ERRORS = {str(s): {"description": "Refused.", "content": ERROR} for s in (400, 401, 403, 404, 409, 413, 415, 422, 429, 500, 503)}
THING = {"type": "object"}


def answer(status: int = 200, **headers: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"description": "Well."}
    if status != 204:
        found["content"] = {"application/json": {"schema": THING}}
    if headers:
        found["headers"] = {name.replace("_", "-"): {"schema": {"type": "string"}} for name in headers}
    return {str(status): found}


def operation(name: str, *responses: dict[str, Any], **more: Any) -> dict[str, Any]:
    merged = {k: v for r in (ERRORS, *(responses or (answer(),))) for k, v in r.items()}
    return {"operationId": name, "tags": ["things"], "responses": merged, **more}


def parameter(name: str, schema: dict[str, Any], place: str = "query", **more: Any) -> dict[str, Any]:
    return {"name": name, "in": place, "schema": schema, **more}


def body(required: bool = True, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "additionalProperties": False, "properties": properties}
    return {"required": required, "content": {"application/json": {"schema": schema}}}


PATHS: dict[str, Any] = {
    "/api/v1/user/things": {
        "post": operation(
            "thing_create",
            answer(201, Location=True),
            requestBody=body(
                name={"type": "string", "minLength": 1, "maxLength": 64},
                size={"type": "integer", "minimum": 0, "maximum": 100000},
                share={"type": "number"},
                tree={},
            ),
        ),
        "get": operation(
            "thing_list",
            parameters=[
                parameter("q", {"type": "string", "minLength": 1, "maxLength": 64}),
                parameter("status", {"type": "array", "maxItems": 5, "items": {"type": "string", "enum": ["new", "old"]}}),
                parameter("numbers", {"type": "array", "maxItems": 5, "items": {"type": "integer"}}),
                parameter("is_large", {"type": "boolean", "default": False}),
                parameter("turn", {"type": "integer", "minimum": 0, "maximum": 2147483647}),
                parameter("limit", {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}),
                parameter("exact", {"type": "string", "maxLength": 9}, required=True),
            ],
        ),
    },
    "/api/v1/user/things/{name}": {
        "get": operation(
            "thing_get",
            answer(200, ETag=True),
            {"304": {"description": "Not changed."}},
            parameters=[parameter("name", {"type": "string", "minLength": 1, "maxLength": 64}, "path", required=True)],
        ),
        "delete": operation(
            "thing_delete",
            answer(204),
            parameters=[parameter("name", {"type": "string", "minLength": 1, "maxLength": 64}, "path", required=True)],
        ),
    },
    "/api/v1/public/where": {"get": operation("where_get")},
    "/api/v1/public/refuse": {
        "post": operation("refuse", requestBody=body(how={"type": "string", "maxLength": 64}, status={"type": "integer"}))
    },
    "/api/v1/public/answer": {
        "post": operation(
            "answer_any",
            answer(202),
            requestBody=body(status={"type": "integer"}, body={"type": "string"}, location={"type": "string"}),
        )
    },
    "/api/v1/admin/things/{name}": {
        "put": operation(
            "thing_put",
            requestBody=body(required=False, note={"type": "string"}),
            parameters=[parameter("name", {"type": "string", "maxLength": 64}, "path", required=True)],
        )
    },
}

FUNCTIONS = """
SET ROLE backend_owner;

CREATE TABLE backend.things (
    name text PRIMARY KEY, size integer CONSTRAINT things_are_not_large CHECK (size < 1000),
    CONSTRAINT things_come_in_one_size EXCLUDE (size WITH =) DEFERRABLE INITIALLY DEFERRED
);
INSERT INTO backend.constraint_errors (constraint_name, status, code, message) VALUES
    ('things_pkey', 409, 'name_taken', 'There is such a thing.'),
    ('things_come_in_one_size', 422, 'size_taken', 'There is a thing of this size.');
CREATE SEQUENCE backend.tries;

CREATE FUNCTION api.thing_create(p_user_id uuid, p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO things (name, size) VALUES (p_body ->> 'name', (p_body ->> 'size')::integer);
    RETURN ROW(
        201, json_build_object('name', p_body ->> 'name', 'by', p_user_id)::text, '/api/v1/user/things/' || (p_body ->> 'name')
    )::api.reply;
END; $$;

CREATE FUNCTION api.thing_list(
    p_exact text, p_user_id uuid, p_q text, p_status text[], p_numbers integer[], p_is_large boolean,
    p_turn integer, p_limit integer
) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
BEGIN
    RETURN json_build_object(
        'q', p_q, 'status', p_status, 'numbers', p_numbers, 'is_large', p_is_large, 'turn', p_turn,
        'limit', p_limit, 'exact', p_exact, 'user_id', p_user_id)::text;
END; $$;

CREATE FUNCTION api.thing_get(p_user_id uuid, p_name text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
BEGIN
    RETURN json_build_object('name', p_name, 'letters', length(p_name), 'special', 'ä€😀' || chr(8232))::text;
END; $$;

CREATE FUNCTION api.thing_delete(p_user_id uuid, p_name text) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM things WHERE name = p_name;
    RETURN NULL;
END; $$;

CREATE FUNCTION api.thing_put(p_admin text, p_name text, p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
BEGIN
    RETURN json_build_object(
        'admin', p_admin, 'name', p_name, 'body', p_body, 'request_id', request_id(), 'traceparent', traceparent())::text;
END; $$;

CREATE FUNCTION api.where_get(p_source_ip inet, p_source_country text) RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
BEGIN
    RETURN json_build_object('ip', host(p_source_ip), 'country', p_source_country)::text;
END; $$;

CREATE FUNCTION api.refuse(p_body jsonb) RETURNS text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = backend, procrastinate, pg_catalog, pg_temp AS $$
DECLARE
    v_try bigint := nextval('tries');
BEGIN
    CASE p_body ->> 'how'
        WHEN 'fail' THEN
            PERFORM fail((p_body ->> 'status')::integer, 'too_bad', 'A sentence for people.', '{"from": "here", "allowed": [1]}');
        WHEN 'bare' THEN RAISE EXCEPTION USING ERRCODE = 'GX418', MESSAGE = 'teapot';
        WHEN 'serialization' THEN
            IF v_try < (p_body ->> 'status')::bigint THEN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END IF;
        WHEN 'deadlock' THEN
            IF v_try < (p_body ->> 'status')::bigint THEN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END IF;
        WHEN 'unforeseen' THEN RAISE EXCEPTION 'the secret is swordfish' USING DETAIL = 'swordfish', HINT = 'swordfish';
        WHEN 'division' THEN PERFORM 1 / 0;
        WHEN 'json' THEN PERFORM ('{"a": sword' || 'fish}')::jsonb;
        WHEN 'value' THEN PERFORM (p_body ->> 'how')::uuid;
        WHEN 'table' THEN PERFORM * FROM public.swordfish;
        WHEN 'sleep' THEN PERFORM pg_sleep(60);
        ELSE PERFORM job_defer('mail', 'test_job', '{"a": 1}');
             PERFORM push_session_invalidation(gen_random_uuid(), NULL, 'logout');
    END CASE;
    RETURN json_build_object('tries', v_try)::text;
END; $$;

CREATE FUNCTION api.answer_any(p_body jsonb) RETURNS api.reply
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
BEGIN
    RETURN ROW((p_body ->> 'status')::integer, p_body ->> 'body', p_body ->> 'location')::api.reply;
END; $$;
"""


def extended(paths: dict[str, Any]) -> dict[str, Any]:
    whole = copy.deepcopy(dict(document().source))
    whole["paths"] |= paths
    return whole


def run(starter: StartProgram, directory: Path, database: Database, paths: dict[str, Any], **environment: str) -> Api:
    """Start the HTTP program with a document that has more paths."""
    file = directory / "openapi.yaml"
    file.write_text(yaml.safe_dump(extended(paths), allow_unicode=True), encoding="utf-8")
    command = [sys.executable, "-m", "tests.contract.runner", str(file)]
    program = starter.run("api", command, starter.environment(database, **environment))
    assert isinstance(program, Api)
    return program


@pytest.fixture(scope="session")
def things_database(cluster: Cluster, template_database: str) -> Iterator[Database]:
    with session_database(cluster, template_database, "things") as database:
        with cluster.connect(database.name) as connection:
            # Before the API gives up.
            connection.execute(f"ALTER DATABASE {database.name} SET deadlock_timeout = '50ms'")
            connection.execute(FUNCTIONS)
        yield database


@pytest.fixture(scope="session")
def things(things_database: Database, session_starter: StartProgram, tmp_path_factory: pytest.TempPathFactory) -> Api:
    """The HTTP program with the operations above."""
    api = run(session_starter, tmp_path_factory.mktemp("things"), things_database, PATHS, BACKEND_POSTGRES_OPERATION_TIMEOUT="1s")
    return api.wait_ready()


@pytest.fixture
def client(things: Api) -> Iterator[httpx.Client]:
    # What the program answers now is not in the contract, so nothing holds it to that.
    with httpx.Client(base_url=things.url, timeout=30, headers={"X-User-ID": "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49"}) as made:
        yield made


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# -- what goes in


def test_it_is_served_and_documented(things: Api, client: httpx.Client) -> None:
    assert "/api/v1/user/things" in client.get("/openapi.json").json()["paths"]
    assert client.get("/api/v1/user/account").status_code == 404, "the rest is there as well"
    allowed = client.delete("/api/v1/user/things").headers["Allow"].split(",")
    assert {method.strip() for method in allowed} - {"HEAD", "OPTIONS"} == {"GET", "POST"}


def test_parameters_arrive_as_what_they_are(client: httpx.Client) -> None:
    plain = client.get("/api/v1/user/things", params={"exact": ""}).json()
    assert plain == {
        "q": None,
        "status": None,
        "numbers": None,
        "is_large": False,
        "turn": None,
        "limit": 50,
        "exact": "",
        "user_id": "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49",
    }
    query = "q=%C3%A4+%26%3D%25%27%22%5C&status=new&status=old&numbers=1&numbers=-2&is_large=true&turn=2147483647&limit=1&exact=x"
    assert client.get(f"/api/v1/user/things?{query}").json() == {
        "q": "ä &=%'\"\\",
        "status": ["new", "old"],
        "numbers": [1, -2],
        "is_large": True,
        "turn": 2147483647,
        "limit": 1,
        "exact": "x",
        "user_id": "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49",
    }


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("", "exact"),
        ("exact=a&exact=a", "exact"),
        ("exact=0123456789", "exact"),
        ("exact=a&is_large=1", "is_large"),
        ("exact=a&is_large=True", "is_large"),
        ("exact=a&turn=2147483648", "turn"),
        ("exact=a&turn=-1", "turn"),
        ("exact=a&status=other", "status"),
        ("exact=a&status=new,old", "status"),
        ("exact=a" + "&status=new" * 6, "status"),
        ("exact=a&numbers=x", "numbers"),
        ("exact=a&q=", "q"),
        ("exact=a%00b", "exact"),
        ("exact=%00", "exact"),
        ("exact=a&q=a%00b", "q"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(query: str, path: str, client: httpx.Client) -> None:
    response = client.get(f"/api/v1/user/things?{query}")
    assert error(response) == (400, "invalid_request"), response.text
    assert response.json()["error"]["details"][0]["path"].split(".")[0] == path


@pytest.mark.parametrize(
    "name", ["ä€😀", "a b", "a+b", "%", "a%b", "'; DROP TABLE things; --", "{}", "\\", "NULL", "\u2028", "e\u0301"]
)
def test_a_path_parameter_is_decoded_once(name: str, client: httpx.Client) -> None:
    url = httpx.URL(str(client.base_url)).copy_with(
        raw_path=b"/api/v1/user/things/" + "".join(f"%{b:02x}" for b in name.encode()).encode()
    )
    assert client.get(url).json()["name"] == name


@pytest.mark.parametrize("name", ["%00", "a%00b", "%ff", "%c3%28", "%ed%a0%80"])
def test_a_path_parameter_that_is_no_text_is_refused(name: str, client: httpx.Client) -> None:
    url = httpx.URL(str(client.base_url)).copy_with(raw_path=f"/api/v1/user/things/{name}".encode())
    response = client.get(url)
    assert error(response) in ((400, "invalid_request"), (404, "not_found")), response.text


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b'{"name": "n1", "size": 2147483648}', 400),
        (b'{"name": "n2", "size": 1e400}', 400),
        (b'{"name": "n3", "size": 1.2e1}', 201),
        (b'{"name": "n4", "size": ' + b"9" * 400 + b"}", 400),
        (b'{"name": "n5", "size": 1.5}', 400),
        (b'{"name": "n6", "share": 1e400}', 400),
        (b'{"name": "n7", "share": 1e-400}', 201),
        (b'{"name": "n8", "share": 1E+99999}', 400),
        (b'{"name": "n9", "share": 1e131073}', 400),
        (b'{"name": "n10", "tree": ' + b"[" * 150 + b"]" * 150 + b"}", 201),
        (b'{"name": "n11", "tree": {"\\ud83d\\ude00": "\\u001f\\u2028"}}', 201),
        (b'{"name": "n12", "tree": {"a": 1, "a": 2}}', 201),
    ],
)
def test_numbers_and_trees_never_end_in_a_fault(content: bytes, status: int, client: httpx.Client) -> None:
    """What the document lets through, Postgres must be able to take; 1e400 is none of its numbers."""
    response = client.post("/api/v1/user/things", content=content, headers={"Content-Type": "application/json"})
    assert response.status_code < 500, response.text
    if status == 201:
        assert response.status_code == 201, response.text


def test_who_asks_from_where(client: httpx.Client) -> None:
    def where(*hops: str) -> dict[str, Any]:
        found: dict[str, Any] = client.get("/api/v1/public/where", headers=[("X-Forwarded-For", hop) for hop in hops]).json()
        return found

    assert where() == {"ip": "127.0.0.1", "country": None}
    assert where("192.0.2.1") == {"ip": "192.0.2.1", "country": "DE"}
    assert where("198.51.100.1, 192.0.2.1") == {"ip": "192.0.2.1", "country": "DE"}, (
        "what is beyond an untrusted hop may be a lie"
    )
    assert where("198.51.100.1", "10.0.0.1") == {"ip": "198.51.100.1", "country": "US"}, "one header or two is the same"
    assert where("2001:db8::1") == {"ip": "2001:db8::1", "country": "DE"}
    assert where("::ffff:192.0.2.1") == {"ip": "192.0.2.1", "country": "DE"}
    assert where("nonsense") == {"ip": "127.0.0.1", "country": None}
    assert where("192.0.2.1, nonsense, 10.0.0.1") == {"ip": "10.0.0.1", "country": None}
    assert where("2001:db8::1%eth0")["ip"] in ("127.0.0.1", "2001:db8::1")
    assert where("192.0.2.1:80")["ip"] in ("127.0.0.1", "192.0.2.1")
    assert where("")["ip"] == "127.0.0.1"


# -- what comes out


def test_a_creation_says_where(client: httpx.Client) -> None:
    response = client.post("/api/v1/user/things", json={"name": "first", "size": 1})
    assert (response.status_code, response.headers["Location"]) == (201, "/api/v1/user/things/first")
    assert response.json() == {"name": "first", "by": "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49"}


def test_a_read_has_an_etag_over_its_bytes(client: httpx.Client) -> None:
    first = client.get("/api/v1/user/things/a")
    assert first.headers["Content-Type"] == "application/json"
    assert first.json()["special"] == "ä€😀\u2028"
    assert client.get("/api/v1/user/things/a").headers["ETag"] == first.headers["ETag"]
    assert client.get("/api/v1/user/things/b").headers["ETag"] != first.headers["ETag"]
    again = client.get("/api/v1/user/things/a", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_an_answer_of_nothing_is_empty(client: httpx.Client) -> None:
    response = client.delete("/api/v1/user/things/none")
    assert (response.status_code, response.content) == (204, b"")
    assert "Content-Type" not in response.headers


def test_the_context_goes_with_a_command(things: Api, client: httpx.Client) -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    headers = {**things.admin, "X-Request-ID": "request-0001", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    found = client.put("/api/v1/admin/things/x", headers=headers).json()
    assert (found["admin"], found["name"], found["body"], found["request_id"]) == ("root", "x", None, "request-0001")
    assert found["traceparent"].split("-")[1] == trace
    again = client.put("/api/v1/admin/things/x", headers=things.admin, json={"note": "n"}).json()
    assert again["body"] == {"note": "n"}
    assert again["request_id"] != "request-0001", "nothing of a request stays on its connection"
    assert again["traceparent"].split("-")[1] != trace


def test_the_context_goes_into_jobs_and_events(client: httpx.Client, things_database: Database) -> None:
    trace = "5bf92f3577b34da6a3ce929d0e0e4736"
    headers = {"X-Request-ID": "request-0002", "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    assert client.post("/api/v1/public/refuse", json={"how": "not"}, headers=headers).status_code == 200
    with things_database.cluster.connect(things_database.name) as connection:
        job = connection.execute("SELECT args FROM procrastinate.procrastinate_jobs WHERE task_name = 'test_job'").fetchone()
        event = connection.execute(
            "SELECT request_id, trace_id FROM backend.push_pending WHERE request_id = 'request-0002'"
        ).fetchone()
    assert job is not None
    assert job[0]["context"]["request_id"] == "request-0002"
    assert job[0]["context"]["traceparent"].split("-")[1] == trace
    assert event == ("request-0002", trace)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "00",
        "nonsense",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "x" * 5000,
    ],
)
def test_a_trace_that_is_none_is_replaced(given: str, things: Api, client: httpx.Client) -> None:
    found = client.put("/api/v1/admin/things/x", headers={**things.admin, "traceparent": given}).json()["traceparent"]
    version, trace, span, flags = found.split("-")
    assert (version, len(trace), len(span), len(flags)) == ("00", 32, 16, 2)
    assert trace.strip("0") != "" != span.strip("0")
    assert trace != "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 502, 503, 504])
def test_a_refusal_of_the_database_is_told(status: int, client: httpx.Client) -> None:
    response = client.post("/api/v1/public/refuse", json={"how": "fail", "status": status})
    assert response.status_code == status
    assert response.json()["error"] == {
        "code": "too_bad",
        "message": "A sentence for people.",
        "details": {"from": "here", "allowed": [1]},
        "request_id": response.headers["X-Request-ID"],
    }
    if status in (429, 503):
        assert int(response.headers["Retry-After"]) > 0


def test_a_refusal_without_context_has_empty_details(client: httpx.Client) -> None:
    response = client.post("/api/v1/public/refuse", json={"how": "bare"})
    assert response.status_code == 418
    assert response.json()["error"]["details"] == {}


@pytest.mark.parametrize("status", [400, 403, 409, 429, 503])
def test_a_refusal_that_was_returned_is_told_alike(status: int, client: httpx.Client) -> None:
    given = json.dumps({"code": "too_bad", "message": "A sentence.", "details": {"a": 1}})
    response = client.post("/api/v1/public/answer", json={"status": status, "body": given})
    assert error(response) == (status, "too_bad")
    assert response.json()["error"]["request_id"] == response.headers["X-Request-ID"]
    if status in (429, 503):
        assert int(response.headers["Retry-After"]) > 0


def test_an_answer_without_a_status_is_a_fault(client: httpx.Client) -> None:
    assert error(client.post("/api/v1/public/answer", json={"body": "{}"})) == (500, "internal")


def test_an_answer_may_go_on_in_a_job(client: httpx.Client) -> None:
    response = client.post("/api/v1/public/answer", json={"status": 202, "body": '{"a": 1}'})
    assert (response.status_code, response.content) == (202, b'{"a": 1}')


def test_a_place_that_would_break_the_answer_is_our_fault(things: Api, client: httpx.Client) -> None:
    """A line end in a Location must not begin another header, nor be told as if the caller had done wrong."""
    response = client.post("/api/v1/public/answer", json={"status": 201, "body": "{}", "location": "/a\r\nX-Evil: 1"})
    assert "X-Evil" not in response.headers
    assert error(response) == (500, "internal")


def test_constraints_are_told_by_their_names(client: httpx.Client) -> None:
    assert client.post("/api/v1/user/things", json={"name": "one", "size": 77}).status_code == 201
    assert error(client.post("/api/v1/user/things", json={"name": "one", "size": 78})) == (409, "name_taken")
    # Only at the commit.
    assert error(client.post("/api/v1/user/things", json={"name": "two", "size": 77})) == (422, "size_taken")
    # One that is not listed is a fault of ours.
    assert error(client.post("/api/v1/user/things", json={"name": "three", "size": 1000})) == (500, "internal")


@pytest.mark.parametrize("how", ["unforeseen", "division", "table"])
def test_what_was_not_foreseen_says_nothing(how: str, client: httpx.Client) -> None:
    response = client.post("/api/v1/public/refuse", json={"how": how})
    assert response.json()["error"] == {
        "code": "internal",
        "message": "Something went wrong on our side.",
        "details": {},
        "request_id": response.headers["X-Request-ID"],
    }


def test_what_takes_too_long_is_unavailable(client: httpx.Client) -> None:
    response = client.post("/api/v1/public/refuse", json={"how": "sleep"})
    assert error(response) == (503, "unavailable")
    assert response.headers["Retry-After"] == "1"


# -- what is tried again


@pytest.mark.parametrize("how", ["serialization", "deadlock"])
def test_what_is_nobodys_fault_is_tried_three_times_again(how: str, client: httpx.Client, things_database: Database) -> None:
    with things_database.cluster.connect(things_database.name) as connection:
        connection.execute("ALTER SEQUENCE backend.tries RESTART")
        assert client.post("/api/v1/public/refuse", json={"how": how, "status": 4}).json() == {"tries": 4}
        connection.execute("ALTER SEQUENCE backend.tries RESTART")
        assert error(client.post("/api/v1/public/refuse", json={"how": how, "status": 100})) == (503, "unavailable")
        assert connection.execute("SELECT last_value FROM backend.tries").fetchone() == (4,)


def test_a_real_deadlock_harms_nobody(client: httpx.Client, things: Api, things_database: Database) -> None:
    """Two who lock the same two things in opposite orders both succeed."""
    del client
    with things_database.cluster.connect(things_database.name) as connection:
        connection.execute(
            """
            SET ROLE backend_owner;
            CREATE OR REPLACE FUNCTION api.thing_delete(p_user_id uuid, p_name text) RETURNS text
            LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = backend, pg_catalog, pg_temp AS $$
            BEGIN
                PERFORM pg_advisory_xact_lock(length(p_name));
                PERFORM pg_sleep(0.2);
                PERFORM pg_advisory_xact_lock(3 - length(p_name));
                RETURN NULL;
            END; $$;
            """
        )
    with httpx.Client(base_url=things.url, timeout=30, headers={"X-User-ID": "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49"}) as asking:
        found = simultaneously(2, lambda n: asking.delete("/api/v1/user/things/" + "a" * (n + 1)).status_code)
    assert found == [204, 204]


# -- what does not fit


Change = Callable[[dict[str, Any]], None]


def refused(things_database: Database, change: Change | None = None, sql: str = "") -> list[str]:
    """What is wrong with the document after a change, or with the database after some SQL that is rolled back."""
    paths = copy.deepcopy(PATHS)
    if change is not None:
        change(paths)
    with things_database.cluster.connect(things_database.name) as connection, connection.transaction(force_rollback=True):
        connection.execute(sql or "SELECT 1")
        connection.execute("SET LOCAL SESSION AUTHORIZATION galaxy_api")
        try:
            contract.bind(contract.operations(extended(paths)), connection)
        except contract.ContractError as problem:
            return problem.problems
    return []


def test_what_fits_is_taken(things_database: Database) -> None:
    assert refused(things_database) == []


WHERE = "GET /api/v1/public/where (operationId where_get)"

SIGNATURES: dict[str, tuple[str, str]] = {
    "a missing function": ("DROP FUNCTION api.where_get(inet, text)", f"{WHERE}: function api.where_get does not exist"),
    "a missing argument": (
        "DROP FUNCTION api.thing_get(uuid, text); CREATE FUNCTION api.thing_get(p_user_id uuid) RETURNS text"
        " LANGUAGE sql STABLE RETURN 'x'; GRANT EXECUTE ON FUNCTION api.thing_get(uuid) TO backend_api",
        "GET /api/v1/user/things/{name} (operationId thing_get): api.thing_get has no argument p_name",
    ),
    "no identity": (
        "DROP FUNCTION api.thing_get(uuid, text); CREATE FUNCTION api.thing_get(p_name text) RETURNS text"
        " LANGUAGE sql STABLE RETURN 'x'; GRANT EXECUTE ON FUNCTION api.thing_get(text) TO backend_api",
        "GET /api/v1/user/things/{name} (operationId thing_get): api.thing_get has no argument p_user_id",
    ),
    "an argument too many": (
        "DROP FUNCTION api.where_get(inet, text); CREATE FUNCTION api.where_get(p_source_ip inet, p_other text) RETURNS text"
        " LANGUAGE sql STABLE RETURN 'x'; GRANT EXECUTE ON FUNCTION api.where_get(inet, text) TO backend_api",
        f"{WHERE}: api.where_get asks for p_other, which nothing in the operation gives",
    ),
    "an identity that nobody checked": (
        "DROP FUNCTION api.where_get(inet, text); CREATE FUNCTION api.where_get(p_user_id uuid) RETURNS text"
        " LANGUAGE sql STABLE RETURN 'x'; GRANT EXECUTE ON FUNCTION api.where_get(uuid) TO backend_api",
        f"{WHERE}: api.where_get asks for p_user_id, which nothing in the operation gives",
    ),
    "an argument without a name": (
        "DROP FUNCTION api.where_get(inet, text); CREATE FUNCTION api.where_get(inet) RETURNS text"
        " LANGUAGE sql STABLE RETURN 'x'; GRANT EXECUTE ON FUNCTION api.where_get(inet) TO backend_api",
        f"{WHERE}: api.where_get asks for",
    ),
    "a function that is there twice": (
        "CREATE FUNCTION api.where_get() RETURNS text LANGUAGE sql STABLE RETURN 'x'",
        "function api.where_get is there twice",
    ),
    "a GET that writes": (
        "ALTER FUNCTION api.where_get(inet, text) VOLATILE",
        f"{WHERE}: api.where_get serves a GET and must be STABLE",
    ),
    "no right to execute": (
        "REVOKE EXECUTE ON FUNCTION api.where_get(inet, text) FROM backend_api",
        f"{WHERE}: this login may not execute api.where_get",
    ),
    "another type of answer": (
        "DROP FUNCTION api.where_get(inet, text); CREATE FUNCTION api.where_get(p_source_ip inet) RETURNS integer"
        " LANGUAGE sql STABLE RETURN 1; GRANT EXECUTE ON FUNCTION api.where_get(inet) TO backend_api",
        f"{WHERE}: api.where_get returns integer, not text or api.reply",
    ),
    "many answers": (
        "DROP FUNCTION api.where_get(inet, text); CREATE FUNCTION api.where_get(p_source_ip inet) RETURNS SETOF text"
        " LANGUAGE sql STABLE AS 'SELECT 1::text'; GRANT EXECUTE ON FUNCTION api.where_get(inet) TO backend_api",
        f"{WHERE}: api.where_get returns",
    ),
}


@pytest.mark.parametrize(("sql", "message"), SIGNATURES.values(), ids=SIGNATURES.keys())
def test_a_function_that_does_not_fit_is_named(sql: str, message: str, things_database: Database) -> None:
    found = refused(things_database, sql=sql)
    assert any(problem.startswith(message) for problem in found), found


def _move(paths: dict[str, Any], source: str, target: str) -> None:
    paths[target] = paths.pop(source)


CHANGES: dict[str, tuple[Change, str]] = {
    "a name that is used twice": (
        lambda p: p["/api/v1/public/where"]["get"].update(operationId="live"),
        "operationId live is used twice",
    ),
    "a parameter that no argument takes": (
        lambda p: p["/api/v1/public/where"]["get"].update(parameters=[parameter("more", {"type": "string", "maxLength": 9})]),
        f"{WHERE}: api.where_get has no argument p_more",
    ),
    "a parameter in the place of the identity": (
        lambda p: p["/api/v1/user/things/{name}"]["get"]["parameters"].append(
            parameter("user_id", {"type": "string", "maxLength": 9})
        ),
        "GET /api/v1/user/things/{name} (operationId thing_get): a parameter user_id would stand for the caller's identity",
    ),
    "a parameter in the place of the administrator": (
        lambda p: p["/api/v1/admin/things/{name}"]["put"]["parameters"].append(
            parameter("admin", {"type": "string", "maxLength": 9})
        ),
        "PUT /api/v1/admin/things/{name} (operationId thing_put): a parameter admin would stand for the caller's identity",
    ),
    "a body that nobody takes": (
        lambda p: p["/api/v1/user/things/{name}"]["delete"].update(requestBody=body()),
        "DELETE /api/v1/user/things/{name} (operationId thing_delete): api.thing_delete has no argument p_body",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES.keys())
def test_an_operation_that_does_not_fit_is_named(change: Change, message: str, things_database: Database) -> None:
    assert message in refused(things_database, change)


MALFORMED: dict[str, tuple[Change, str]] = {
    "no operationId": (lambda p: p["/api/v1/public/where"]["get"].pop("operationId"), "/api/v1/public/where"),
    "unknown secrets": (lambda p: p["/api/v1/public/refuse"]["post"].update({"x-secrets": "magic"}), "magic"),
    "a path parameter that is not described": (
        lambda p: p["/api/v1/user/things/{name}"]["get"].pop("parameters"),
        "asks for p_name",
    ),
    "no success": (lambda p: p["/api/v1/public/where"]["get"].update(responses={"400": ERRORS["400"]}), "where_get"),
}


@pytest.mark.parametrize(("change", "name"), MALFORMED.values(), ids=MALFORMED.keys())
def test_a_document_that_is_malformed_is_refused_with_a_sentence(change: Change, name: str, things_database: Database) -> None:
    found = refused(things_database, change)
    assert any(name in problem for problem in found), found


def test_every_problem_is_told_at_once_and_stops_the_start(
    database: Database, start_program: StartProgram, tmp_path: Path
) -> None:
    """The program itself: exit status 78, and a line for each problem on standard error and in the log."""
    with database.connect() as connection:
        connection.execute("DROP FUNCTION api.session_get(uuid)")
        connection.execute("REVOKE EXECUTE ON FUNCTION api.my_account_get(uuid) FROM backend_api")
        connection.execute("ALTER FUNCTION api.administrator_get(text, text) VOLATILE")
    program = run(start_program, tmp_path, database, {"/api/v1/public/where": PATHS["/api/v1/public/where"]})
    assert program.wait() == 78
    lines = program.errors().splitlines()
    assert len(lines) == 4
    for name in ("session_get", "my_account_get", "administrator_get", "where_get"):
        assert any(f"(operationId {name})" in line for line in lines), name
    assert [line["reason"] for line in program.logged("refusing to start")] == lines


def test_an_unknown_handler_stops_the_start(database: Database, start_program: StartProgram, tmp_path: Path) -> None:
    path = {"/somewhere": {"get": operation("somewhere", **{"x-handler": "magic"})}}
    program = run(start_program, tmp_path, database, path)
    assert program.wait() == 78
    assert "magic" in program.errors()


def test_what_an_unforeseen_error_says_stays_out_of_the_log(things: Api, client: httpx.Client) -> None:
    """It may hold values of the request; its kind and its place are enough to find it."""
    # Postgres quotes JSON that it cannot read in the context of the error.
    for how in ("json", "unforeseen", "value"):
        assert error(client.post("/api/v1/public/refuse", json={"how": how})) == (500, "internal")
    lines = things.logged("unforeseen database error")
    assert lines[-1]["sqlstate"] == "22P02"
    assert lines[-2]["sqlstate"] == "P0001"
    for line in lines[-3:]:
        assert line["request_id"]
        assert "refuse" in json.dumps(line), "the function is named"
        assert "swordfish" not in json.dumps(line)
        assert '\\"value' not in json.dumps(line)


def test_the_connection_of_bind_is_the_doors_own(things_database: Database) -> None:
    """What `refused` does above is what the program does at its start."""
    with psycopg.connect(things_database.dsn("galaxy_api").replace("&search_path=backend", ""), autocommit=True) as connection:
        calls = contract.bind(contract.operations(extended(PATHS)), connection)
    assert calls["thing_create"].returns_reply
    assert not calls["thing_create"].statement.is_read
    assert calls["thing_list"].statement.is_read
