"""Refusals, and the one place where any database error becomes the standard error body."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import errors as pg

log = logging.getLogger("galaxy.api")


@dataclass
class ApiError(Exception):
    """A refusal with an HTTP status, a stable code for machines, a sentence for people and context."""

    # Not frozen: Python writes an exception's traceback into it. Hashed by identity, as exceptions are.
    __hash__ = Exception.__hash__

    status: int
    code: str
    message: str
    details: Any = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, request_id: str) -> bytes:
        """Return the standard error body."""
        return error_body(self.code, self.message, self.details, request_id)


@dataclass(frozen=True)
class ConstraintError:
    """What a caller is told when a constraint refuses (table backend.constraint_errors)."""

    status: int
    code: str
    message: str


def error_body(code: str, message: str, details: Any, request_id: str) -> bytes:
    """Return `{"error": {code, message, details, request_id}}` as bytes."""
    error = {"code": code, "message": message, "details": details, "request_id": request_id}
    return json.dumps({"error": error}, ensure_ascii=False).encode()


def invalid(problems: list[dict[str, str]]) -> ApiError:
    """Return the refusal of a malformed request; each problem is `{path, problem}`."""
    return ApiError(400, "invalid_request", "The request is malformed.", problems)


def unavailable() -> ApiError:
    """Return the answer to trouble that passes."""
    return ApiError(503, "unavailable", "The service cannot answer at present; try again.", headers={"Retry-After": "1"})


# What passes by itself: a timeout, a lock that others hold too long, a server that restarts or has no room.
_PASSING = (
    pg.QueryCanceled,
    pg.LockNotAvailable,
    pg.SerializationFailure,
    pg.DeadlockDetected,
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.ReadOnlySqlTransaction,
    pg.IdleInTransactionSessionTimeout,
)

# Text that Postgres cannot hold; what gets past our own checks is still the caller's.
_MALFORMED = (pg.CharacterNotInRepertoire, pg.UntranslatableCharacter)


def from_database(error: psycopg.Error, constraints: Mapping[str, ConstraintError]) -> ApiError:
    """Return what a caller is told of a database error. The error's own text may hold values, and is not logged."""
    sqlstate = error.sqlstate
    if sqlstate is not None and sqlstate.startswith("GX") and sqlstate[2:].isdigit():
        hint = error.diag.message_hint
        status = int(sqlstate[2:])
        return ApiError(
            status,
            error.diag.message_primary or "error",
            error.diag.message_detail or "",
            details := json.loads(hint) if hint else {},
            headers_of(status, details),
        )
    name = error.diag.constraint_name
    if name is not None and name in constraints:
        known = constraints[name]
        return ApiError(known.status, known.code, known.message)
    if isinstance(error, _MALFORMED):
        return invalid([{"path": "", "problem": "has text that cannot be stored"}])
    # 08: the connection; 53: no room, memory or connection left.
    if isinstance(error, _PASSING) or sqlstate is None or sqlstate[:2] in ("08", "53"):
        log.warning("database unavailable", extra={"sqlstate": sqlstate, "error": type(error).__name__})
        return unavailable()
    log.error(
        "unforeseen database error",
        extra={
            "sqlstate": sqlstate,
            "error": type(error).__name__,
            "constraint": name,
            "function": _place(error.diag.context),
        },
    )
    return internal()


def _place(context: str | None) -> str | None:
    """The functions in an error's context; its other words may quote values."""
    return ", ".join(re.findall(r"PL/pgSQL function (\S+) line \d+", context)) if context else None


def internal() -> ApiError:
    """Return the answer to what nobody foresaw: the request id and nothing else."""
    return ApiError(500, "internal", "Something went wrong on our side.")


def headers_of(status: int, details: Any) -> dict[str, str]:
    """Return the headers that a refusal of this status has to carry; `details.retry_after` is in seconds."""
    if status in (429, 503):
        after = details.get("retry_after", 1) if isinstance(details, dict) else 1
        return {"Retry-After": str(after)}
    if status == 401:
        return {"WWW-Authenticate": 'Basic realm="galaxy-admin"'}
    return {}
