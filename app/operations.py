"""The responder of every operation that a SQL function serves: check the shape, find out who calls, call, pass the bytes on."""

from __future__ import annotations

import hashlib
import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import falcon
from gunicorn.http.errors import ParseException

from app import context, idempotency, identity, secrets
from app.background import Countries, SeenSessions
from app.contract import DRY_RUN, KEY_HEADER, Call, Operation, Parameter
from app.database import Calls, Database, Value
from app.errors import ApiError, ConstraintError, error_body, headers_of, internal, invalid
from app.geo import Geo

MAX_BODY_BYTES = 64 * 1024
_MAX_PARAMETERS = 50


@dataclass(frozen=True)
class Services:
    """What responders work with, made once per process."""

    database: Database
    constraints: Mapping[str, ConstraintError]
    administrators: identity.Administrators
    geo: Geo
    trusted_proxies: tuple[context.Network, ...]
    internal_token: str | None
    pepper: bytes
    seen: SeenSessions
    countries: Countries


class Reader:
    """Reads the arguments of an operation from a request, in the order of the checks: shape, then identity."""

    def __init__(self, operation: Operation, services: Services) -> None:
        self._operation = operation
        self._services = services
        self._provider = secrets.PROVIDERS[operation.secrets] if operation.secrets else None
        self._query_names = {p.name for p in operation.parameters.values() if p.place == "query"}

    def arguments(self, req: falcon.Request, path: Mapping[str, str]) -> dict[str, Value]:
        """Return the arguments by name, as Postgres takes them. Raises ApiError."""
        operation = self._operation
        arguments: dict[str, Value] = {}
        problems: list[dict[str, str]] = []
        query = _query(req.query_string)
        problems += [{"path": n, "problem": "is not a parameter"} for n in query if n not in self._query_names]
        for parameter in operation.parameters.values():
            given = [path[parameter.name]] if parameter.place == "path" else query.get(parameter.name, [])
            value, found = _parameter_value(parameter, given)
            problems += found
            arguments[f"p_{parameter.name}"] = value
        if problems:
            raise invalid(problems)
        body = self._body(req, arguments)
        arguments.update(self._identity(req))
        if self._provider is not None and body is not None:
            # Not before it is known who calls: to hash a password is work.
            arguments.update(self._provider.make(body, self._services.pepper))
            arguments["p_body"] = json.dumps(body, ensure_ascii=False).encode()
        return arguments

    def _body(self, req: falcon.Request, arguments: dict[str, Value]) -> Any:
        """Check the body and put it among the arguments; return it parsed, None where there is none."""
        operation = self._operation
        if operation.body is None:
            # Many clients send an empty object where there is nothing to say.
            if operation.method != "GET" and read_body(req).strip() not in (b"", b"{}"):
                raise invalid([{"path": "", "problem": "the operation takes no body"}])
            return None
        raw = read_body(req)
        req.context.body = raw
        if not raw and not operation.is_body_required:
            arguments["p_body"] = None
            return None
        check_content_type(req.content_type)
        body = parse_json(raw)
        problems = operation.body.problems(body)
        if not problems and self._provider is not None:
            problems = self._provider.problems(body)
        if problems:
            raise invalid(problems)
        arguments["p_body"] = raw
        return body

    def _identity(self, req: falcon.Request) -> dict[str, Value]:
        services = self._services
        match self._operation.group:
            case "user":
                return {"p_user_id": identity.user_id(req.get_header("X-User-ID")).encode()}
            case "admin":
                source = context.source_address(req.env, services.trusted_proxies)
                return {"p_admin": services.administrators.check(req.auth, source).encode()}
            case "internal":
                identity.check_internal(req.auth, services.internal_token)
        return {}

    def key(self, req: falcon.Request) -> str | None:
        """Return the Idempotency-Key, if the operation takes one and there is one. Raises ApiError 400."""
        schema = self._operation.key
        value = req.get_header(KEY_HEADER) if schema is not None else None
        if schema is not None and value is not None and (problems := schema.problems(value, KEY_HEADER)):
            raise invalid(problems)
        return value


class Responder:
    """Serves one operation with one call of one function."""

    def __init__(self, operation: Operation, call: Call, services: Services) -> None:
        self._operation = operation
        self._call = call
        self._services = services
        self._reader = Reader(operation, services)

    def __call__(self, req: falcon.Request, resp: falcon.Response, **path: str) -> None:
        """Falcon's responder. Raises ApiError."""
        if self._operation.uniform_time == 0:
            self._answer(req, resp, path)
            return
        started = time.monotonic()
        try:
            self._answer(req, resp, path)
        finally:
            # How long it took must not tell what was found.
            elapsed = time.monotonic() - started
            time.sleep(-elapsed % self._operation.uniform_time)

    def _answer(self, req: falcon.Request, resp: falcon.Response, path: Mapping[str, str]) -> None:
        key = self._reader.key(req)
        arguments = self._reader.arguments(req, path)
        parameters = self._parameters(req, arguments, self._call.arguments)
        if arguments.get(f"p_{DRY_RUN}") == b"true":
            self._try(req, resp, parameters)
            return
        if key is not None:
            self._reply(req, resp, self._once(req, key, path, arguments, parameters))
            return
        columns = self._services.database.call(self._operation.name, parameters)
        if self._operation.notes_session and columns[0] is not None:
            self._services.seen.note(path.get("device_session_id", "").lower() or json.loads(columns[0])["device_session_id"])
        if self._call.returns_reply:
            self._reply(req, resp, columns)
            return
        resp.status = _status(self._operation.success_status)
        self._send(req, resp, columns[0])

    def _try(self, req: falcon.Request, resp: falcon.Response, parameters: list[Value]) -> None:
        """Do the command and undo it: the answer is the same, but for what leads to what is not there."""
        # Also on what is raised from here on.
        resp.set_header("X-Dry-Run", "true")

        def work(call: Calls) -> list[Value]:
            return self._with_status(call(self._operation.name, parameters))

        # A refusal that is returned has left something behind, which must stay: whoever tries codes is counted.
        status, body, _ = self._services.database.transaction(work, is_undone=lambda c: c[0] is not None and int(c[0]) < 400)
        self._reply(req, resp, [status, idempotency.without(body, self._operation.one_time), None])

    def _with_status(self, columns: list[Value]) -> list[Value]:
        return columns if self._call.returns_reply else [str(self._operation.success_status).encode(), columns[0], None]

    def _once(
        self, req: falcon.Request, key: str, path: Mapping[str, str], arguments: Mapping[str, Value], parameters: list[Value]
    ) -> list[Value]:
        """Do what was not done under this key before; return status, body and location."""
        operation = self._operation
        request = idempotency.Request(
            group=operation.group,
            caller=self._caller(arguments),
            operation=operation.name,
            key=key,
            digest=idempotency.digest(
                self._services.pepper, [sorted(path.items()), req.query_string], req.context.body, arguments.get("p_body")
            ),
        )

        def work(call: Calls) -> list[Value]:
            def command() -> list[Value]:
                return self._with_status(call(operation.name, parameters))

            return idempotency.once(call, request, command, operation.one_time)

        return self._services.database.transaction(work)

    def _caller(self, arguments: Mapping[str, Value]) -> bytes:
        match self._operation.group:
            case "user":
                # One person, in whichever case the id is written.
                return (arguments["p_user_id"] or b"").lower()
            case "admin":
                return arguments["p_admin"] or b""
        return b"internal"

    def _parameters(self, req: falcon.Request, arguments: Mapping[str, Value], names: tuple[str, ...]) -> list[Value]:
        values: list[Value] = []
        if not self._call.statement.is_read:
            values += [req.context.request_id.encode(), req.context.traceparent.encode(), (self._source(req) or "").encode()]
        for name in names:
            if name in arguments:
                values.append(arguments[name])
                continue
            address = self._source(req)
            found = address if name == "p_source_ip" else self._services.geo.country(address)
            values.append(found.encode() if found else None)
        return values

    def _source(self, req: falcon.Request) -> str | None:
        return context.source_address(req.env, self._services.trusted_proxies)

    def _reply(self, req: falcon.Request, resp: falcon.Response, columns: list[Value]) -> None:
        status, body, location = columns
        if status is None:
            raise internal()
        code = int(status)
        resp.status = _status(code)
        if code >= 400:
            # A refusal that had to leave something behind: returned, not raised, and told like any other.
            refusal = json.loads(body or b"{}")
            resp.data = error_body(refusal["code"], refusal["message"], refusal.get("details", {}), req.context.request_id)
            resp.content_type = falcon.MEDIA_JSON
            for name, value in headers_of(code, refusal.get("details")).items():
                resp.set_header(name, value)
            req.context.code = refusal["code"]
            return
        if location is not None:
            place = location.decode()
            if not place.isascii() or not place.isprintable():
                raise internal()
            resp.set_header("Location", place)
        self._send(req, resp, body)

    def _send(self, req: falcon.Request, resp: falcon.Response, body: Value) -> None:
        if body is None:
            return
        if self._operation.has_etag:
            etag = '"' + hashlib.blake2b(body, digest_size=16).hexdigest() + '"'
            resp.set_header("ETag", etag)
            if _matches(req.get_header("If-None-Match"), etag):
                resp.status = falcon.HTTP_304
                return
        resp.content_type = falcon.MEDIA_JSON
        resp.data = body


def _status(code: int) -> str:
    return str(falcon.code_to_http_status(code))


def _matches(header: str | None, etag: str) -> bool:
    """Whether If-None-Match names the tag (RFC 9110: compared weakly)."""
    if header is None:
        return False
    if header.strip() == "*":
        return True
    return etag in (tag.strip().removeprefix("W/") for tag in header.split(","))


def check_content_type(content_type: str | None) -> None:
    """Raise ApiError 415 for anything but application/json in UTF-8."""
    if content_type is None:
        raise ApiError(415, "unsupported_media_type", "A body is needed, of application/json in UTF-8, and a Content-Type.")
    media, _, options = (content_type or "").partition(";")
    charset = re.sub(r"\s|\"", "", options.lower())
    if media.strip().lower() != "application/json" or charset not in ("", "charset=utf-8"):
        raise ApiError(415, "unsupported_media_type", "The body must be application/json in UTF-8.")


def read_body(req: falcon.Request) -> bytes:
    """Return the request's body. Raises ApiError 413 over 64 KiB, 415 for one that is encoded."""
    if req.get_header("Content-Encoding", default="identity").lower() != "identity":
        raise ApiError(415, "unsupported_media_type", "The body must not be encoded.")
    too_large = ApiError(413, "body_too_large", f"The body must not be over {MAX_BODY_BYTES} bytes.")
    if (req.content_length or 0) > MAX_BODY_BYTES:
        raise too_large
    try:
        # One byte more than is allowed: a body in chunks does not say its length.
        raw: bytes = req.env["wsgi.input"].read(MAX_BODY_BYTES + 1)
    except (ParseException, OSError):
        raise invalid([{"path": "", "problem": "the body is malformed, or ends early"}]) from None
    if len(raw) > MAX_BODY_BYTES:
        raise too_large
    # Whoever was cut off within a body has not asked for anything.
    if len(raw) < (req.content_length or 0):
        raise invalid([{"path": "", "problem": "the body ends early"}])
    return raw


def parse_json(raw: bytes) -> Any:
    """Return JSON that Postgres can hold as well. Raises ApiError 400 invalid_json."""
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_refuse, parse_float=_finite)
        # Half a surrogate pair and NUL are JSON, and no text; only an escape can bring them in.
        if b"\\u" in raw and "\\u0000" in json.dumps(value).replace("\\\\", ""):
            raise ValueError("NUL")
        if b"\\u" in raw:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):
        raise ApiError(400, "invalid_json", "The body is not JSON in UTF-8.") from None
    return value


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise ValueError(number)
    return value


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _query(text: str) -> dict[str, list[str]]:
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise invalid([{"path": "", "problem": "the query string is malformed"}]) from None
    values: dict[str, list[str]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return values


def _parameter_value(parameter: Parameter, given: list[str]) -> tuple[Value, list[dict[str, str]]]:
    """The value of a parameter as Postgres takes it, and what is wrong with it."""
    name = parameter.name
    # NUL is no text for Postgres; the other is what a path's bytes become that are not UTF-8.
    if any("\0" in text or "\ufffd" in text for text in given):
        return None, [{"path": name, "problem": "is not text"}]
    if not given:
        if parameter.is_required:
            return None, [{"path": name, "problem": "is required"}]
        return _encode(parameter.default), []
    if parameter.type == "array":
        values = [_typed(parameter.item_type or "string", text) for text in given]
        return _encode(values), parameter.schema.problems(values, name)
    if len(given) > 1:
        return None, [{"path": name, "problem": "is given more than once"}]
    value = _typed(parameter.type, given[0])
    problems = parameter.schema.problems(value, name)
    return (None if problems else _encode(value)), problems


def _typed(kind: str, text: str) -> Any:
    """Text as the type of its schema; left as text, for the schema to refuse, where it is not of that type."""
    if kind == "integer" and re.fullmatch(r"-?[0-9]{1,18}", text, re.ASCII):
        return int(text)
    if kind == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


def _encode(value: Any) -> Value:
    if value is None:
        return None
    if isinstance(value, bool):
        return b"true" if value else b"false"
    if isinstance(value, list):
        quoted = ('"' + str(v).replace("\\", "\\\\").replace('"', '\\"') + '"' for v in value)
        return ("{" + ",".join(quoted) + "}").encode()
    return str(value).encode()
