"""The bar of the push stream can fail: what it must notice."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bench.push_bar import problems

A, B = 1_000_001, 1_000_002


def gateway(received: list[tuple[int, str]], streams: list[tuple[int, str]] | None = None, gaps: int = 0) -> Any:
    return SimpleNamespace(received=[(n, cursor, 0.0) for n, cursor in received], streams=streams or [(0, "c0")], gaps=gaps)


def found(*gateways: Any) -> list[str]:
    return problems(list(gateways), cast(dict[int, float], dict.fromkeys((A, B), 0.0)))


def test_what_is_right_is_no_problem() -> None:
    assert found(gateway([(A, "c1"), (B, "c2")])) == []
    # What a gateway has forgotten comes again.
    assert found(gateway([(A, "c1"), (A, "c1"), (B, "c2")], [(0, "c0"), (1, "c0")])) == []


@pytest.mark.parametrize(
    ("received", "streams", "problem"),
    [
        ([(A, "c1")], None, "lost"),
        ([(A, "c1"), (B, "c2"), (3, "c3")], None, "invented"),
        ([(A, "c2"), (B, "c1")], None, "do not grow"),
        ([(A, "c1"), (A, "c1"), (B, "c2")], None, "do not grow"),
        ([(A, "c1"), (B, "c2")], [(0, "c1")], "do not grow"),
        ([(B, "c1"), (A, "c2")], None, "wrote later"),
        ([(A, "c1"), (A, "c2"), (B, "c3")], None, "two cursors"),
    ],
)
def test_what_is_wrong_is_told(received: list[tuple[int, str]], streams: list[tuple[int, str]] | None, problem: str) -> None:
    assert any(problem in text for text in found(gateway(received, streams)))


def test_gateways_that_disagree_are_told() -> None:
    assert any("another event" in text for text in found(gateway([(A, "c1"), (B, "c2")]), gateway([(B, "c1"), (A, "c2")])))


def test_a_fresh_start_is_told() -> None:
    assert any("fresh" in text for text in found(gateway([(A, "c1"), (B, "c2")], gaps=1)))
