"""The contract as tests hold every answer to it: app/openapi/openapi.yaml, read without the app's own reader."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema_rs
import yaml

PATH = Path(__file__).resolve().parents[2] / "app" / "openapi" / "openapi.yaml"

METHODS = ("get", "put", "post", "delete", "patch")

# What the shape of any answer may come to before it is known which operation was meant.
UNROUTED = frozenset({400, 404, 405, 414, 417, 431, 501})

# The shared responses whose codes go without saying where an operation documents a range.
_GENERIC = {400: "BadRequest", 404: "NotFound", 413: "TooLarge", 415: "UnsupportedMediaType"}

Headers = Mapping[str, str]


@dataclass(frozen=True)
class Operation:
    """An operation of the document; `node` is its object there."""

    name: str
    method: str
    path: str
    node: Mapping[str, Any]

    @property
    def statuses(self) -> list[int]:
        """Those given by number, and of a range, such as 4XX, those that are not an engine's but ours."""
        numbers = {int(status) for status in self.node["responses"] if status.isdigit()}
        if "4XX" in self.node["responses"]:
            numbers |= {400, *((413, 415) if self.has_body else ())}
            numbers |= {int(status) for status in self.node.get("x-error-codes", {})}
        return sorted(numbers)

    @property
    def group(self) -> str:
        return self.path.split("/")[3] if self.path.startswith("/api/v1/") else "probe"

    @property
    def has_body(self) -> bool:
        return "requestBody" in self.node

    def __str__(self) -> str:
        return self.name


class Document:
    """A document and what it says of requests and answers."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        self.source = source
        self.operations = [
            Operation(item[method]["operationId"], method.upper(), path, item[method])
            for path, item in source["paths"].items()
            for method in METHODS
            if method in item
        ]
        self._patterns = [(re.compile(re.sub(r"\\\{[^/]*\\\}", "[^/]+", re.escape(path))), path) for path in source["paths"]]
        self._validators: dict[int, jsonschema_rs.Draft202012Validator] = {}

    def operation(self, name: str) -> Operation:
        return next(o for o in self.operations if o.name == name)

    def find(self, method: str, path: str) -> Operation | None:
        """The operation that a request means, by method and path; None for none."""
        found = [template for pattern, template in self._patterns if pattern.fullmatch(path)]
        # A literal segment is meant before a variable one.
        template = min(found, key=lambda t: t.count("{"), default=None)
        return next((o for o in self.operations if o.path == template and o.method == method), None)

    def resolve(self, node: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in node:
            target: Any = self.source
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            node = target
        return node

    def response(self, operation: Operation, status: int) -> Mapping[str, Any]:
        responses = operation.node["responses"]
        return self.resolve(responses.get(str(status)) or responses[f"{status // 100}XX"])

    def range_codes(self, operation: Operation, status: int) -> set[str]:
        """The error codes that may come with any status of the range that this one is in."""
        node = operation.node["responses"].get(f"{status // 100}XX")
        return set() if node is None else set(self.resolve(node).get("x-codes", ()))

    def codes(self, operation: Operation, status: int) -> set[str]:
        """The error codes that an operation may answer with: its own, and those of the shared response."""
        own = operation.node.get("x-error-codes", {}).get(str(status), ())
        if str(status) in operation.node["responses"]:
            return {*own, *self.response(operation, status).get("x-codes", ())}
        # Of a range, the first status stands for all of them.
        of_range = self.range_codes(operation, status) if status % 100 == 0 else ()
        generic = _GENERIC.get(status)
        shared = self.source["components"]["responses"][generic]["x-codes"] if generic else ()
        return {*own, *of_range, *shared}

    def problems(self, schema: Mapping[str, Any], value: Any) -> list[str]:
        """What is wrong with a value by a schema of this document."""
        validator = self._validators.get(id(schema))
        if validator is None:
            validator = jsonschema_rs.Draft202012Validator(
                {**schema, "components": self.source["components"]}, validate_formats=True
            )
            self._validators[id(schema)] = validator
        return [f"{'.'.join(map(str, e.instance_path))}: {e.message}" for e in validator.iter_errors(value)]

    def request_problems(self, operation: Operation, body: bytes) -> list[str]:
        """What is wrong with a request's body by the document."""
        node = self.resolve(operation.node.get("requestBody", {}))
        if not body and not node.get("required", False):
            return []
        return self.problems(node["content"]["application/json"]["schema"], json.loads(body))

    def answer_problems(self, method: str, path: str, status: int, headers: Headers, body: bytes) -> Iterator[str]:
        """What is wrong with an answer: its status, headers and body, by what the document says of the request."""
        request_id = headers.get("X-Request-ID", "")
        if not re.fullmatch(r"[A-Za-z0-9_.-]{8,128}", request_id):
            yield f"X-Request-ID is {request_id!r}"
        operation = self.find(method, path)
        if operation is None:
            yield from self._unrouted_problems(method, status, headers, body)
            return
        if status not in operation.statuses and not self.range_codes(operation, status):
            yield f"{operation.name} answers {status}, which is not documented: {body[:300]!r}"
            return
        response = self.response(operation, status)
        for name in response.get("headers", {}):
            if name not in headers and not (name == "Location" and "X-Dry-Run" in headers):
                yield f"{operation.name} answers {status} without the header {name}"
        if "content" not in response:
            if body:
                yield f"{operation.name} answers {status} with a body: {body[:300]!r}"
            return
        ((media_type, content),) = response["content"].items()
        if headers.get("Content-Type", "").partition(";")[0] != media_type:
            yield f"{operation.name} answers {status} as {headers.get('Content-Type')}, not {media_type}"
        if media_type != "application/json":
            return
        value = json.loads(body)
        yield from (f"{operation.name} answers {status}, and {p}" for p in self.problems(content["schema"], value))
        if "error" in value:
            yield from self._error_problems(value["error"], status, headers)
            code = value["error"]["code"]
            if code not in self.codes(operation, status) | self.range_codes(operation, status):
                yield f"{operation.name} answers {status} {code}, which is not documented"

    def _unrouted_problems(self, method: str, status: int, headers: Headers, body: bytes) -> Iterator[str]:
        if status == 200 and method == "OPTIONS":
            if "Allow" not in headers and "Access-Control-Allow-Origin" not in headers:
                yield "OPTIONS is answered without Allow"
            return
        if status not in UNROUTED:
            yield f"{status} is no answer to what no operation serves: {body[:300]!r}"
        if status == 405 and not headers.get("Allow"):
            yield "405 without Allow"
        if method == "HEAD":
            return
        if headers.get("Content-Type", "").partition(";")[0] != "application/json":
            yield f"an error as {headers.get('Content-Type')}"
            return
        value = json.loads(body)
        yield from self.problems(self.source["components"]["schemas"]["Error"], value)
        if "error" in value:
            yield from self._error_problems(value["error"], status, headers)

    @staticmethod
    def _error_problems(error: Mapping[str, Any], status: int, headers: Headers) -> Iterator[str]:
        if error.get("request_id") != headers.get("X-Request-ID"):
            yield "the error's request_id is not that of the header"
        if status in (429, 503) and not headers.get("Retry-After", "").isdigit():
            yield f"{status} without Retry-After"
        if status == 401 and not headers.get("WWW-Authenticate"):
            yield "401 without WWW-Authenticate"
        if status == 500:
            yield f"a 500: {error}"
        if not error.get("message"):
            yield "an error without a message"


@functools.cache
def document() -> Document:
    """The contract."""
    return Document(yaml.safe_load(PATH.read_text(encoding="utf-8")))


def basic(user: str, password: str) -> dict[str, str]:
    """The header of an administrator."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
