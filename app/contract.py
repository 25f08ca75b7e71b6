"""The contract as the router: operations of the OpenAPI document, their validators, and the SQL calls that they name.

An operation's `operationId` is the name of the function in schema `api` that serves it. Path and query parameters become
arguments `p_<name>`, the checked identity `p_user_id` or `p_admin`, the body `p_body`; what else a function may ask for is in
CONTEXT and in `app.secrets`. The real signatures are read from the catalog, and whatever does not fit stops the start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema_rs
import psycopg
import yaml

from app import secrets
from app.database import Statement

DOCUMENT = Path(__file__).parent / "openapi" / "openapi.yaml"
PREFIX = "/api/v1/"
KEY_HEADER = "Idempotency-Key"

DRY_RUN = "dry_run"
"""The query parameter of commands that can be tried; the app sees to it, and no function is told."""

# What a command's transaction is told of its request, in this order.
SETTINGS = ("request_id", "traceparent", "source_ip")

# Arguments that a function may ask for and the app knows of any request.
CONTEXT = ("p_source_ip", "p_source_country")

_METHODS = ("get", "put", "post", "delete", "patch")

Problem = dict[str, str]


class ContractError(Exception):
    """The document and the database do not fit together."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


class Schema:
    """A compiled JSON Schema (2020-12) of the document."""

    def __init__(self, schema: Mapping[str, Any], components: Mapping[str, Any]) -> None:
        # Values are masked: a problem is shown to the caller and must never carry a secret elsewhere.
        # Only what it refers to: the validator keeps a copy of all that it is given, and there are hundreds.
        needed = {"schemas": _referred_to(schema, components.get("schemas", {}))}
        self._schema: Mapping[str, Any] = {**schema, "components": needed}
        self._validator = jsonschema_rs.Draft202012Validator(self._schema, validate_formats=True, mask="the value")

    def problems(self, value: Any, path: str = "") -> list[Problem]:
        """Return what is wrong with a value, as `{path, problem}`; nothing when it is right."""
        try:
            if self._validator.is_valid(value):
                return []
            return [
                {"path": ".".join([*([path] if path else []), *map(str, e.instance_path)]), "problem": self._problem(e)}
                for e in self._validator.iter_errors(value)
            ]
        except ValueError:
            return [{"path": path, "problem": "is nested too deeply"}]

    def _problem(self, error: jsonschema_rs.ValidationError) -> str:
        """What is wrong in words: of a pattern, what is expected (`x-expects`), not its expression."""
        match error.kind.name:
            case "pattern":
                node: Any = self._schema
                for part in list(error.schema_path)[:-1]:
                    node = node[part]
                return f"the value is not {node.get('x-expects', 'of the form that is expected')}"
            case "anyOf" | "oneOf":
                return "the value is of none of the forms that are allowed"
        return error.message


def _referred_to(schema: Any, schemas: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named schemas that a schema refers to, and those that they refer to."""
    found: dict[str, Any] = {}
    waiting = [schema]
    while waiting:
        match waiting.pop():
            case {"$ref": str(reference), **rest}:
                name = reference.removeprefix("#/components/schemas/")
                if name not in found:
                    found[name] = schemas[name]
                    waiting.append(schemas[name])
                waiting += rest.values()
            case dict(node):
                waiting += node.values()
            case list(nodes):
                waiting += nodes
    return found


@dataclass(frozen=True)
class Parameter:
    """A path or query parameter."""

    name: str
    place: str
    type: str
    item_type: str | None
    is_required: bool
    default: Any
    schema: Schema
    holds_slashes: bool = False
    """Whether it ends the path and may hold slashes (`x-slashes`): the server decodes them before the path is taken apart."""


@dataclass(frozen=True)
class Operation:
    """An operation of the document, as the app serves it."""

    name: str
    method: str
    path: str
    group: str
    """public, user, internal, admin, or probe."""
    parameters: Mapping[str, Parameter]
    body: Schema | None
    is_body_required: bool
    success_status: int
    has_etag: bool
    is_hot: bool
    secrets: str | None
    uniform_time: float
    """Seconds: the answer leaves at the next multiple of it. 0 for at once."""
    handler: str | None
    key: Schema | None = None
    """Of the header Idempotency-Key, where it is taken."""
    one_time: tuple[tuple[str, ...], ...] = ()
    """Where in the answer there are secrets that are shown once (`x-one-time`), as paths of names; `*` is every item."""
    notes_session: bool = False
    """Whether the answer is a session that its device has just used (`x-session-seen`)."""

    @property
    def route(self) -> str:
        """The path as Falcon's router takes it."""
        route = self.path
        for parameter in self.parameters.values():
            if parameter.holds_slashes:
                route = route.replace(f"{{{parameter.name}}}", f"{{{parameter.name}:path}}")
        return route


class Call(NamedTuple):
    """How an operation calls its function: the statement, and the names of its arguments in order."""

    statement: Statement
    arguments: tuple[str, ...]
    returns_reply: bool


def load_document(path: Path = DOCUMENT) -> dict[str, Any]:
    """Read the OpenAPI document."""
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def check_handlers(all_operations: Iterable[Operation], known: Iterable[str]) -> None:
    """Raise ContractError where an operation names a handler that is not there."""
    unknown = sorted({o.handler for o in all_operations if o.handler is not None} - set(known))
    if unknown:
        raise ContractError(f"x-handler {name} is not known" for name in unknown)


def operations(document: Mapping[str, Any]) -> list[Operation]:
    """Return the operations of a document. Raises ContractError when two share a name."""
    found: list[Operation] = []
    malformed: list[str] = []
    for path, item in document["paths"].items():
        for method in (m for m in _METHODS if m in item):
            try:
                found.append(_operation(document, path, method, item[method], item.get("parameters", ())))
            except (KeyError, TypeError, ValueError) as error:
                name = item[method].get("operationId", "none")
                malformed.append(f"{method.upper()} {path} (operationId {name}) is malformed: {type(error).__name__}: {error}")
    if malformed:
        raise ContractError(malformed)
    names = [o.name for o in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise ContractError(f"operationId {name} is used twice" for name in twice)
    return found


def _resolve(document: Mapping[str, Any], node: Mapping[str, Any]) -> Mapping[str, Any]:
    while "$ref" in node:
        target: Any = document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def _operation(
    document: Mapping[str, Any], path: str, method: str, node: Mapping[str, Any], shared: Iterable[Mapping[str, Any]]
) -> Operation:
    components = document.get("components", {})
    given = [_parameter(document, _resolve(document, p)) for p in (*shared, *node.get("parameters", ()))]
    parameters = [p for p in given if p.place != "header"]
    headers = {p.name: p.schema for p in given if p.place == "header"}
    if headers.keys() - {KEY_HEADER}:
        raise ValueError(f"headers other than {KEY_HEADER} are not known")
    body = _resolve(document, node["requestBody"]) if "requestBody" in node else None
    successes = sorted(int(s) for s in node["responses"] if s.startswith("2"))
    if not successes:
        raise ValueError("it has no success")
    if node.get("x-secrets") is not None and node["x-secrets"] not in secrets.PROVIDERS:
        raise ValueError(f"x-secrets {node['x-secrets']} is not known")
    answer = _resolve(document, node["responses"][str(successes[0])])
    return Operation(
        name=node["operationId"],
        method=method.upper(),
        path=path,
        group=path.removeprefix(PREFIX).split("/")[0] if path.startswith(PREFIX) else "probe",
        parameters={p.name: p for p in parameters},
        body=Schema(body["content"]["application/json"]["schema"], components) if body else None,
        is_body_required=bool(body and body.get("required", False)),
        success_status=successes[0],
        has_etag="ETag" in answer.get("headers", {}),
        is_hot=bool(node.get("x-hot", False)),
        secrets=node.get("x-secrets"),
        uniform_time=node.get("x-uniform-time-ms", 0) / 1000,
        handler=node.get("x-handler"),
        key=headers.get(KEY_HEADER),
        one_time=tuple(_one_time(document, answer.get("content", {}).get("application/json", {}).get("schema", {}))),
        notes_session=bool(node.get("x-session-seen", False)),
    )


def _one_time(document: Mapping[str, Any], schema: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if schema.get("x-one-time"):
        yield path
        return
    schema = _resolve(document, schema)
    for name, inner in schema.get("properties", {}).items():
        yield from _one_time(document, inner, (*path, name))
    if "items" in schema:
        yield from _one_time(document, schema["items"], (*path, "*"))


def _parameter(document: Mapping[str, Any], node: Mapping[str, Any]) -> Parameter:
    schema = _resolve(document, node["schema"])
    return Parameter(
        name=node["name"],
        place=node["in"],
        type=schema.get("type", "string"),
        item_type=_resolve(document, schema["items"]).get("type", "string") if "items" in schema else None,
        is_required=node.get("required", False),
        default=schema.get("default"),
        schema=Schema(schema, document.get("components", {})),
        holds_slashes=bool(node.get("x-slashes", False)),
    )


_CATALOG = """
    SELECT p.proname::text, p.proargnames, p.proargtypes::oid[]::int8[],
           ARRAY(SELECT pg_catalog.format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY AS u (t, n) ORDER BY n),
           p.provolatile::text, p.prorettype::regtype::text, p.proretset,
           pg_catalog.has_function_privilege(p.oid, 'EXECUTE')
      FROM pg_catalog.pg_proc AS p
     WHERE p.pronamespace = 'api'::regnamespace
"""


class _Function(NamedTuple):
    name: str
    arguments: list[str] | None
    type_oids: list[int]
    type_names: list[str]
    volatility: str
    returns: str
    is_set: bool
    may_execute: bool


def bind(all_operations: Iterable[Operation], connection: psycopg.Connection[Any]) -> dict[str, Call]:
    """Return the call of each operation that a function serves, from the catalog's real signatures.

    Raises ContractError with a sentence for every function or argument that is missing or too many.
    """
    functions: dict[str, _Function] = {}
    problems: list[str] = []
    for row in connection.execute(_CATALOG).fetchall():
        function = _Function(*row)
        if function.name in functions:
            problems.append(f"function api.{function.name} is there twice: an operation must name one")
        functions[function.name] = function
    calls: dict[str, Call] = {}
    for operation in all_operations:
        if operation.handler is not None:
            continue
        candidate = functions.get(operation.name)
        where = f"{operation.method} {operation.path} (operationId {operation.name})"
        if candidate is None:
            problems.append(f"{where}: function api.{operation.name} does not exist")
            continue
        misfits = _misfits(operation, candidate)
        problems += [f"{where}: {m}" for m in misfits]
        if not misfits:
            calls[operation.name] = _call(candidate)
    if problems:
        raise ContractError(problems)
    return calls


def _given(operation: Operation) -> set[str]:
    given = {f"p_{name}" for name in operation.parameters if name != DRY_RUN}
    if operation.body is not None:
        given.add("p_body")
    if operation.group == "user":
        given.add("p_user_id")
    if operation.group == "admin":
        given.add("p_admin")
    if operation.secrets is not None:
        given |= set(secrets.PROVIDERS[operation.secrets].arguments)
    return given


def _misfits(operation: Operation, function: _Function) -> list[str]:
    arguments = set(function.arguments or ())
    given = _given(operation)
    found = [f"api.{function.name} has no argument {a}" for a in sorted(given - arguments)]
    if len(arguments - {""}) < len(function.type_oids):
        found.append(f"api.{function.name} asks for arguments without a name")
    found += [
        f"api.{function.name} asks for {a}, which nothing in the operation gives"
        for a in sorted(arguments - given - set(CONTEXT))
    ]
    if operation.group == "user" and "user_id" in operation.parameters:
        found.append("a parameter user_id would stand for the caller's identity")
    if operation.group == "admin" and "admin" in operation.parameters:
        found.append("a parameter admin would stand for the caller's identity")
    if function.returns not in ("text", "api.reply") or function.is_set:
        found.append(f"api.{function.name} returns {function.returns}, not text or api.reply")
    if not function.may_execute:
        found.append(f"this login may not execute api.{function.name}")
    if operation.method == "GET" and function.volatility == "v":
        found.append(f"api.{function.name} serves a GET and must be STABLE")
    return found


def _call(function: _Function) -> Call:
    names = tuple(function.arguments or ())
    is_read = function.volatility != "v"
    # A command first sets the request's context, in the same statement: the fences keep the order of evaluation.
    offset = 0 if is_read else len(SETTINGS)
    call = "api.{}({})".format(
        function.name,
        ", ".join(f"{n} => ${i + offset + 1}" for i, n in enumerate(names)),
    )
    source = (
        ""
        if is_read
        else " FROM (SELECT {} OFFSET 0) AS c".format(
            ", ".join(f"set_config('backend.{name}', ${i + 1}, true)" for i, name in enumerate(SETTINGS))
        )
    )
    returns_reply = function.returns == "api.reply"
    sql = (
        f"SELECT (r).status, (r).body, (r).location FROM (SELECT {call} AS r{source} OFFSET 0) AS q"  # noqa: S608
        if returns_reply
        else f"SELECT {call}{source}"
    )
    text_oid = 25
    types = (*([text_oid] * offset), *function.type_oids)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", function.name):
        raise ContractError([f"api.{function.name} is not a name of the contract's kind"])
    return Call(Statement(function.name, sql, types, is_read), names, returns_reply)
