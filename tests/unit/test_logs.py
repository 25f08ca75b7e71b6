"""Log lines."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext

from app import logs
from tests.services import line_problems

log = logging.getLogger("galaxy.test")

QUIET = ("psycopg", "httpx", "httpcore", "docker", "urllib3")


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Configure logging as a program does; call it for the lines so far."""
    written = io.StringIO()
    monkeypatch.setattr(sys, "stdout", written)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in ("procrastinate", *QUIET)}
    logs.configure("galaxy-test", "info")

    def read() -> list[dict[str, Any]]:
        raw = [line for line in written.getvalue().split("\n") if line]
        assert [p for line in raw for p in line_problems(line)] == []
        return [json.loads(line) for line in raw]

    yield read
    root.handlers[:], root.level = before[0], before[1]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_a_line_has_what_every_line_has(lines: Any) -> None:
    log.info("something happened", extra={"count": 3, "nested": {"a": [1]}})
    (line,) = lines()
    assert line["msg"] == "something happened"
    assert (line["level"], line["service"], line["count"], line["nested"]) == ("info", "galaxy-test", 3, {"a": [1]})
    assert line["caller"].startswith("galaxy.test:test_a_line_has_what_every_line_has:")


def test_levels_have_our_names(lines: Any) -> None:
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL):
        log.log(level, "x")
    assert [line["level"] for line in lines()] == ["info", "warn", "error", "error"]


def test_what_is_bound_is_in_every_line_inside(lines: Any) -> None:
    with logs.bind(request_id="outer", task="a"):
        log.info("1")
        with logs.bind(request_id="inner"):
            log.info("2")
        log.info("3")
    log.info("4")
    found = [(line.get("request_id"), line.get("task")) for line in lines()]
    assert found == [("outer", "a"), ("inner", "a"), ("outer", "a"), (None, None)]


def test_what_is_bound_is_another_threads_own(lines: Any) -> None:
    def other() -> None:
        with logs.bind(request_id="other"):
            log.info("other")

    with logs.bind(request_id="mine"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        log.info("mine")
    assert [line["request_id"] for line in lines()] == ["other", "mine"]


def test_the_trace_is_told(lines: Any) -> None:
    context = SpanContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, is_remote=False)
    with trace.use_span(NonRecordingSpan(context)):
        log.info("x")
    line = lines()[-1]
    assert (line["otel_trace_id"], line["otel_span_id"]) == ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


@pytest.mark.parametrize("evil", ['"}\n{"msg": "forged"}', "\r\n", "\x00\x1b[31m", "\u2028\u2029\x85", "ä😀"])
def test_a_line_stays_one_line(evil: str, lines: Any) -> None:
    log.info("message %s", evil, extra={"field": evil, "list": [evil]})
    (line,) = lines()
    assert line["msg"] == f"message {evil}"
    assert (line["field"], line["list"]) == (evil, [evil])


def test_an_exception_is_a_field(lines: Any) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed")
    (line,) = lines()
    assert line["level"] == "error"
    assert "ValueError: two\nlines" in line["exception"]


def test_what_is_not_json_is_told_as_text(lines: Any) -> None:
    log.info("x", extra={"thing": {1, 2}.__class__, "moment": object})
    assert "set" in lines()[0]["thing"]


def test_those_who_say_too_much_are_quiet(lines: Any) -> None:
    for name in QUIET:
        logging.getLogger(name).info("a secret")
    logging.getLogger("procrastinate").error("a secret")
    assert lines() == []


def test_a_second_configuration_replaces_the_first(lines: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (handler,) = (h for h in logging.getLogger().handlers if isinstance(h.formatter, logs.JsonFormatter))
    assert isinstance(handler, logging.StreamHandler)
    # pytest has put its own there since the fixture ran.
    monkeypatch.setattr(sys, "stdout", handler.stream)
    logs.configure("galaxy-test", "info")
    logs.configure("galaxy-test", "info")
    log.info("once")
    assert len(lines()) == 1
