"""The document as the app reads it."""

from __future__ import annotations

from typing import Any

import pytest

from app import contract
from app.contract import ContractError, Schema, load_document, operations

COMPONENTS = {"schemas": {"Name": {"type": "string", "maxLength": 3}}}


def minimal(**more: Any) -> dict[str, Any]:
    operation = {"operationId": "thing_get", "responses": {"200": {"description": "Well."}}, **more}
    return {"paths": {"/api/v1/user/things/{thing_id}": {"get": operation}}, "components": COMPONENTS}


def test_every_operation_of_the_document_is_found() -> None:
    document = load_document()
    found = operations(document)
    listed = [
        node["operationId"] for item in document["paths"].values() for method, node in item.items() if method != "parameters"
    ]
    assert sorted(o.name for o in found) == sorted(listed)
    hot = [o for o in found if o.is_hot]
    assert {o.name for o in hot} == {"session_get", "session_resolve"}, "what the gateway asks on every client request"
    by_name = {o.name: o for o in found}
    send = by_name["email_code_send"]
    assert (send.method, send.group, send.secrets, send.uniform_time, send.success_status) == (
        "POST",
        "public",
        "code_make",
        0.05,
        200,
    )
    assert by_name["session_get"].has_etag
    assert not by_name["my_session_list"].has_etag
    assert not by_name["session_revoke"].is_body_required
    assert by_name["session_revoke"].route == by_name["session_revoke"].path
    assert by_name["blocked_email_delete"].route == "/api/v1/admin/blocked-emails/{email:path}"


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/api/v1/public/x", "public"),
        ("/api/v1/user/x", "user"),
        ("/api/v1/internal/x", "internal"),
        ("/api/v1/admin/x", "admin"),
        ("/healthz", "probe"),
        ("/api/v2/user/x", "probe"),
    ],
)
def test_the_group_is_in_the_path(path: str, group: str) -> None:
    document = minimal()
    document["paths"] = {path: next(iter(document["paths"].values()))}
    assert operations(document)[0].group == group


def test_references_are_followed() -> None:
    document = minimal(
        parameters=[{"$ref": "#/components/parameters/Name"}], requestBody={"$ref": "#/components/requestBodies/Thing"}
    )
    document["components"] = {
        **COMPONENTS,
        "parameters": {"Name": {"name": "name", "in": "query", "schema": {"$ref": "#/components/schemas/Name"}}},
        "requestBodies": {"Thing": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Name"}}}}},
    }
    (found,) = operations(document)
    assert found.parameters["name"].schema.problems("long") != []
    assert found.parameters["name"].type == "string"
    assert found.body is not None
    assert found.body.problems("ok") == []
    assert found.body.problems(1) != []


def test_parameters_of_a_path_are_every_methods() -> None:
    document = minimal()
    (item,) = document["paths"].values()
    item["parameters"] = [{"name": "thing_id", "in": "path", "required": True, "schema": {"type": "string"}}]
    (found,) = operations(document)
    assert found.parameters["thing_id"].is_required


def test_two_operations_of_one_name_are_refused() -> None:
    document = minimal()
    (item,) = document["paths"].values()
    document["paths"]["/other"] = item
    with pytest.raises(ContractError) as refused:
        operations(document)
    assert refused.value.problems == ["operationId thing_get is used twice"]


def test_problems_are_told_by_path_and_without_values() -> None:
    schema = Schema(
        {
            "type": "object",
            "additionalProperties": False,
            "properties": {"a": {"type": "array", "items": {"$ref": "#/components/schemas/Name"}}},
        },
        COMPONENTS,
    )
    assert schema.problems({"a": ["ok"]}) == []
    (problem,) = schema.problems({"a": ["ok", "swordfish"]}, "body")
    assert problem["path"] == "body.a.1"
    assert "swordfish" not in problem["problem"]
    (unknown,) = schema.problems({"b": "swordfish"})
    assert unknown["path"] == ""
    assert "swordfish" not in unknown["problem"]


def test_a_schema_has_what_it_refers_to_and_no_more() -> None:
    components = {
        "schemas": {
            "Tree": {
                "type": "object",
                "properties": {"leaf": {"$ref": "#/components/schemas/Leaf"}, "sub": {"$ref": "#/components/schemas/Tree"}},
            },
            "Leaf": {"type": "string", "pattern": "^a+$", "x-expects": "of the letter a"},
            "Other": {"type": "integer"},
        }
    }
    schema = Schema({"type": "array", "items": {"anyOf": [{"$ref": "#/components/schemas/Tree"}]}}, components)
    assert set(schema._schema["components"]["schemas"]) == {"Tree", "Leaf"}
    assert schema.problems([{"leaf": "aa", "sub": {"leaf": "a"}}]) == []
    assert schema.problems([{"sub": {"sub": {"leaf": "b"}}}]) == [
        {"path": "0", "problem": "the value is of none of the forms that are allowed"}
    ]
    assert Schema({"$ref": "#/components/schemas/Leaf"}, components).problems("b") == [
        {"path": "", "problem": "the value is not of the letter a"}
    ]


def test_formats_are_checked() -> None:
    schema = Schema({"type": "string", "format": "date-time"}, {})
    assert schema.problems("2026-01-01T00:00:00Z") == []
    assert schema.problems("yesterday") != []


@pytest.mark.parametrize("depth", [254, 255, 256, 300, 900])
def test_what_is_nested_deeply_is_a_problem_and_no_fault(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    assert Schema({"type": "object"}, {}).problems(value) != []
    assert Schema({"type": "object", "properties": {"a": {"type": "string"}}}, {}).problems({"a": value}) != []


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), 10**400, -(10**400), 1e308, 1e-320])
def test_huge_numbers_are_a_problem_and_no_fault(value: float) -> None:
    assert isinstance(Schema({"type": "integer", "minimum": 0, "maximum": 9}, {}).problems(value), list)
    assert Schema({"type": "string"}, {}).problems(value) != []
    assert isinstance(Schema({"type": "number"}, {}).problems(value), list)


def test_an_error_holds_every_problem() -> None:
    error = ContractError(f"problem {n}" for n in range(3))
    assert error.problems == ["problem 0", "problem 1", "problem 2"]
    assert str(error).splitlines() == error.problems


def test_the_document_is_where_the_module_says() -> None:
    assert contract.DOCUMENT.is_file()


def test_a_pattern_is_told_in_words() -> None:
    word = {"type": "string", "pattern": "^[a-z]+$", "x-expects": "lowercase letters"}
    schema = contract.Schema(
        {
            "type": "object",
            "properties": {
                "here": word,
                "there": {"$ref": "#/components/schemas/Word"},
                "either": {"oneOf": [{"$ref": "#/components/schemas/Word"}, {"type": "null"}]},
                "list": {"type": "array", "items": {"$ref": "#/components/schemas/Word"}},
            },
        },
        {"schemas": {"Word": word}},
    )
    found = {p["path"]: p["problem"] for p in schema.problems({"here": "1", "there": "1", "either": "1", "list": ["a", "1"]})}
    assert found == {
        "here": "the value is not lowercase letters",
        "there": "the value is not lowercase letters",
        "either": "the value is of none of the forms that are allowed",
        "list.1": "the value is not lowercase letters",
    }
