"""The document itself: that it is well-formed, says the same as the database, and keeps its own conventions."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from app import contract
from tests.contract.document import Operation, document
from tests.postgres import Database

ROOT = Path(__file__).resolve().parents[2]

SERVED = [o for o in document().operations if "x-handler" not in o.node]

CODE = re.compile(r"[a-z][a-z0-9_]*")


def comments(database: Database) -> dict[str, str]:
    with database.cluster.connect(database.name) as connection:
        rows = connection.execute(
            """
            SELECT p.proname, coalesce(obj_description(p.oid, 'pg_proc'), '') FROM pg_proc AS p
             WHERE p.pronamespace = 'api'::regnamespace
            """
        ).fetchall()
    return {str(name): str(comment) for name, comment in rows}


def commented_codes(comment: str) -> set[tuple[int, str]]:
    """What a comment says of codes: `GX404 a, b, GX409 c` for what is raised, `Returns 400 d, 403 e, f.` for what is returned."""
    found: set[tuple[int, str]] = set()
    raised = re.findall(r"GX(\d{3}) ((?:[a-z]\w*(?:, )?)+)", comment)
    returned = [
        pair
        for sentence in re.findall(r"\bReturns (\d{3} [^.]*)\.", comment)
        for pair in re.findall(r"(\d{3}) ((?:[a-z]\w*(?:, )?)+)", sentence)
    ]
    for status, codes in (*raised, *returned):
        found |= {(int(status), code) for code in re.split(r", ", codes.strip(", "))}
    return found


@pytest.mark.parametrize("operation", SERVED, ids=str)
def test_the_codes_of_an_operation_are_those_of_its_functions_comment(operation: Operation, shared_database: Database) -> None:
    said = commented_codes(comments(shared_database)[operation.name])
    listed = {(int(status), code) for status, codes in operation.node.get("x-error-codes", {}).items() for code in codes}
    generic = {(s, c) for s in operation.statuses for c in document().response(operation, s).get("x-codes", ())}
    assert listed == said - generic
    assert said <= listed | generic
    assert not listed & generic, "what every operation can answer is not listed again"


def test_every_function_of_the_door_is_an_operation_or_the_programs_own(shared_database: Database) -> None:
    ours = {
        "administrator_attempt_failed",
        "administrator_bootstrap",
        "administrator_credential",
        "administrator_used",
        "constraint_errors",
        "engine_access",
        "geo_countries_add",
        "idempotency_claim",
        "idempotency_store",
        "program_is_heard",
        "schema_changes",
        "sessions_seen",
    }
    assert set(comments(shared_database)) == {o.name for o in SERVED} | ours


@pytest.mark.parametrize("operation", SERVED, ids=str)
def test_a_tag_names_the_file_in_which_the_function_is_made(operation: Operation) -> None:
    (tag,) = operation.node["tags"]
    text = (ROOT / "db" / "deploy" / "api" / f"{tag}.sql").read_text(encoding="utf-8")
    assert f"FUNCTION api.{operation.name}(" in text


def test_a_code_has_one_status() -> None:
    statuses: dict[str, set[int]] = defaultdict(set)
    for operation in document().operations:
        for status in operation.statuses:
            for code in document().codes(operation, status):
                assert CODE.fullmatch(code)
                statuses[code].add(status)
    assert {code: found for code, found in statuses.items() if len(found) > 1} == {}


def test_codes_are_listed_only_for_statuses_that_there_are() -> None:
    for operation in document().operations:
        assert {int(s) for s in operation.node.get("x-error-codes", {})} <= set(operation.statuses), operation


def test_what_a_constraint_says_is_listed_by_some_operation(shared_database: Database) -> None:
    listed = {
        (status, code)
        for operation in document().operations
        for status in operation.statuses
        for code in document().codes(operation, status)
    }
    with shared_database.cluster.connect(shared_database.name) as connection:
        rows = connection.execute("SELECT status, code FROM backend.constraint_errors").fetchall()
    assert {(int(status), str(code)) for status, code in rows} <= listed


# -- form


def nodes(value: Any, place: str = "#") -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        yield place, value
        for name, inner in value.items():
            yield from nodes(inner, f"{place}/{name}")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from nodes(inner, f"{place}/{number}")


def test_the_document_is_openapi_3_1() -> None:
    assert document().source["openapi"].startswith("3.1.")
    assert document().source["servers"] == [{"url": "/"}]
    names = [o.name for o in document().operations]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)+|live|ready", name) for name in names)


def test_every_reference_leads_somewhere() -> None:
    for place, node in nodes(document().source):
        if "$ref" in node:
            assert document().resolve(node), place


def test_every_component_is_used() -> None:
    used = {node["$ref"] for _, node in nodes(document().source) if isinstance(node.get("$ref"), str)}
    for kind, components in document().source["components"].items():
        if kind != "securitySchemes":
            assert {f"#/components/{kind}/{name}" for name in components} <= used


def test_every_schema_compiles() -> None:
    for name, schema in document().source["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert contract.Schema(schema, document().source["components"]) is not None, name


def test_objects_are_closed_and_their_fields_are_snake_case() -> None:
    for place, node in nodes(document().source):
        if node.get("type") == "object" and "properties" in node:
            assert node.get("additionalProperties") is False, place
            assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in node["properties"]), place


def test_what_comes_in_has_an_end() -> None:
    """Whatever a caller may send is bounded: text by a length, a list, or a pattern that is; numbers on both sides."""

    def unbounded(schema: Mapping[str, Any], place: str) -> Iterator[str]:
        # What stands beside a reference counts as well.
        schema = {**document().resolve(schema), **schema}
        if schema.get("type") == "string" and not {"maxLength", "enum", "const"} & set(schema):
            pattern = schema.get("pattern", "*")
            if re.search(r"(?<!\\)[*+]|\{\d+,\}", pattern):
                yield place
        if schema.get("type") in ("integer", "number") and not {"minimum", "maximum"} <= set(schema):
            yield place
        for name, inner in schema.get("properties", {}).items():
            yield from unbounded(inner, f"{place}.{name}")
        if "items" in schema:
            if "maxItems" not in schema:
                yield f"{place}[]"
            yield from unbounded(schema["items"], f"{place}[]")

    for operation in document().operations:
        shared = document().source["paths"][operation.path].get("parameters", ())
        for parameter in (*shared, *operation.node.get("parameters", ())):
            found = document().resolve(parameter)
            assert list(unbounded(found["schema"], found["name"])) == [], operation
        if operation.has_body:
            body = document().resolve(operation.node["requestBody"])["content"]["application/json"]["schema"]
            assert list(unbounded(body, "body")) == [], operation


def test_every_example_fits() -> None:
    for operation in document().operations:
        if operation.has_body:
            content = document().resolve(operation.node["requestBody"])["content"]["application/json"]
            assert document().problems(content["schema"], content["example"]) == [], operation


def test_every_answer_with_content_has_a_schema_and_every_error_the_standard_one() -> None:
    for operation in document().operations:
        for status in operation.statuses:
            response = document().response(operation, status)
            assert response["description"], operation
            for content in response.get("content", {}).values():
                assert "schema" in content, operation
            if status >= 400 and operation.group != "probe":
                assert response["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Error"}
            assert ("content" in response) == (status not in (204, 304)), operation


def test_statuses_follow_from_what_an_operation_is() -> None:
    for operation in document().operations:
        statuses = set(operation.statuses)
        assert any(s < 300 for s in statuses)
        if operation.method != "GET":
            assert 304 not in statuses
        if 201 in statuses:
            assert "Location" in document().response(operation, 201)["headers"], operation
        for status in (s for s in statuses if s < 300):
            has_etag = "ETag" in document().response(operation, status).get("headers", {})
            assert has_etag == (304 in statuses), operation


def test_what_creates_takes_an_idempotency_key() -> None:
    """Outside the public group, which ignores it; so does what answers 200 or 202 and still must not be done twice."""
    key = {"$ref": "#/components/parameters/IdempotencyKey"}
    taking = {o.name for o in document().operations if key in o.node.get("parameters", ())}
    creating = {o.name for o in document().operations if 201 in o.statuses and o.group != "public"}
    assert taking == creating | {"identity_session_open", "admin_diplomail_broadcast"}
    for operation in document().operations:
        assert "idempotency_conflict" in document().codes(operation, 409) if operation.name in taking else True, operation


def test_what_is_shown_once_can_be_null() -> None:
    """Where an answer is repeated under a key."""
    marked = [(place, node) for place, node in nodes(document().source) if node.get("x-one-time")]
    assert {place.rsplit("/", 1)[1] for place, _ in marked} >= {"code", "token"}
    for place, node in marked:
        assert document().problems(node, None) == [], place


def test_an_operation_says_who_may_call() -> None:
    expected: dict[str, Any] = {
        "public": None,
        "user": [{"user": []}],
        "internal": [{"internal": []}, {}],
        "admin": [{"admin": []}],
        "probe": None,
    }
    for operation in document().operations:
        assert operation.node.get("security") == expected[operation.group], operation


def test_what_is_served_at_the_root_is_this_document(shared_api: Any) -> None:
    client = shared_api.client
    assert client.get("/openapi.yaml").content == (ROOT / "app" / "openapi" / "openapi.yaml").read_bytes()
    assert client.get("/openapi.json").json() == document().source


def test_every_pattern_says_in_words_what_it_expects() -> None:
    def patterns(node: Any) -> Iterator[Any]:
        if isinstance(node, dict):
            if isinstance(node.get("pattern"), str):
                yield node
            for inner in node.values():
                yield from patterns(inner)
        elif isinstance(node, list):
            for inner in node:
                yield from patterns(inner)

    found = list(patterns(document().source))
    assert found
    assert [node for node in found if not node.get("x-expects")] == []
