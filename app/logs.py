"""JSON lines on standard output.

Each line has `ts` (RFC 3339, UTC), `level`, `caller`, `service`, `msg`, then whatever was bound with `bind` (request_id, …),
the current trace (`otel_trace_id`, `otel_span_id`), and the `extra=` of the call. No code, token, key, password or full
e-mail address may be passed to a log call; a test reads every line that the suite writes to hold us to that.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from opentelemetry import trace

_bound: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar(
    "log_fields",
    default=MappingProxyType({}),
)

# What a LogRecord has by itself; all else on it came through `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "error": logging.ERROR}


def push(**fields: object) -> contextvars.Token[Mapping[str, object]]:
    """Add fields to every line logged from here on in this thread or task; `pop` what it returns."""
    return _bound.set({**_bound.get(), **fields})


def pop(pushed: contextvars.Token[Mapping[str, object]]) -> None:
    """Take away what `push` has added, in the same thread or task."""
    _bound.reset(pushed)


def bound() -> Mapping[str, object]:
    """Return what lines are bound to now."""
    return _bound.get()


@contextlib.contextmanager
def bind(**fields: object) -> Iterator[None]:
    """Add fields to every line logged inside the block."""
    pushed = push(**fields)
    try:
        yield
    finally:
        pop(pushed)


class JsonFormatter(logging.Formatter):
    """One JSON object per record; control characters are escaped by JSON, so no input can forge a line."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "ts": moment.isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": {"WARNING": "warn", "CRITICAL": "error"}.get(record.levelname, record.levelname.lower()),
            "caller": f"{record.name}:{record.funcName}:{record.lineno}",
            "service": self._service,
            "msg": record.getMessage(),
        }
        line.update(_bound.get())
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["otel_trace_id"] = trace.format_trace_id(span.trace_id)
            line["otel_span_id"] = trace.format_span_id(span.span_id)
        line.update({k: v for k, v in vars(record).items() if k not in _STANDARD})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(service: str, level: str) -> None:
    """Send the root logger to standard output as JSON lines; `level` is debug, info, warn or error."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_LEVELS[level])
    for name in ("psycopg", "httpx", "httpcore", "docker", "urllib3"):
        logging.getLogger(name).setLevel(max(_LEVELS[level], logging.WARNING))
    # Procrastinate writes a job's arguments and a failure's whole text into its lines; the job program has lines of its own.
    logging.getLogger("procrastinate").setLevel(logging.CRITICAL)
