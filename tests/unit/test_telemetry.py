"""The trace context that goes on from a request."""

from __future__ import annotations

import logging
import re

import pytest
from opentelemetry import trace

from app import logs, telemetry

log = logging.getLogger("galaxy.test")

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

FORM = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """The fields that lines are bound to when one is written."""
    found: list[dict[str, object]] = []

    def note(_record: logging.LogRecord) -> bool:
        found.append(dict(logs._bound.get()))
        return True

    monkeypatch.setattr(log, "filters", [note])
    return found


@pytest.mark.parametrize("flags", ["00", "01"])
def test_a_given_context_goes_on(flags: str, written: list[dict[str, object]]) -> None:
    with telemetry.span("x", f"00-{TRACE}-{SPAN}-{flags}") as span:
        assert FORM.fullmatch(span.traceparent)
        assert span.traceparent.split("-")[1] == TRACE
        log.warning("inside")
    log.warning("outside")
    assert written[0]["otel_trace_id"] == TRACE
    assert len(str(written[0]["otel_span_id"])) == 16
    assert "otel_trace_id" not in written[1]


MALFORMED = [
    None,
    "",
    "x",
    "00",
    f"00-{'0' * 32}-{SPAN}-01",
    f"00-{TRACE}-{'0' * 16}-01",
    f"ff-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}",
    f"00-{TRACE.upper()}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01\n",
    f" 00-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01",
    f"00-{TRACE}-{SPAN}-0g",
    f"00-{TRACE[:-1]}-{SPAN}-01",
]


@pytest.mark.parametrize("given", MALFORMED)
def test_without_a_good_one_there_is_a_new_one(given: str | None) -> None:
    found = set()
    for _ in range(5):
        with telemetry.span("x", given) as span:
            assert FORM.fullmatch(span.traceparent)
            found.add(span.traceparent.split("-")[1])
    assert len(found) == 5
    assert TRACE not in found


def test_a_span_inside_another_belongs_to_what_it_was_given() -> None:
    with telemetry.span("outer", None) as outer, telemetry.span("inner", outer.traceparent) as inner:
        assert inner.traceparent.split("-")[1] == outer.traceparent.split("-")[1]


def test_a_span_ends_with_what_went_wrong_inside(written: list[dict[str, object]]) -> None:
    with pytest.raises(KeyError), telemetry.span("x", None):
        raise KeyError("x")
    log.warning("outside")
    assert "otel_trace_id" not in written[0]


def test_spans_begin_and_end_in_order() -> None:
    outer = telemetry.begin("outer", None)
    inner = telemetry.begin("inner", outer.traceparent)
    inner.end()
    outer.end()
    assert not trace.get_current_span().get_span_context().is_valid
