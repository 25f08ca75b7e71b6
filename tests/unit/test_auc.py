"""The figure that says whether times of answers can be told apart."""

from __future__ import annotations

import random

import pytest

from bench.auth_timing import auc


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.0),
        ([1.0], [1.0], 0.5),
        ([1.0, 1.0, 1.0], [1.0, 1.0], 0.5),
        ([1.0, 3.0], [2.0], 0.5),
        ([1.0, 2.0], [1.0, 3.0], 0.375),
        ([5.0], [1.0, 2.0, 5.0, 9.0], 0.625),
    ],
)
def test_it_is_how_probably_the_one_is_greater(one: list[float], other: list[float], expected: float) -> None:
    assert auc(one, other) == expected


def test_it_tells_what_differs_from_what_does_not() -> None:
    made = random.Random(4711)
    same = [[made.gauss(50.0, 5.0) for _ in range(3000)] for _ in range(2)]
    later = [made.gauss(52.5, 5.0) for _ in range(3000)]
    assert auc(*same) == pytest.approx(0.5, abs=0.03)
    # Half a deviation: the probability is that of a normal distribution at 0.5 / sqrt(2).
    assert auc(later, same[0]) == pytest.approx(0.638, abs=0.03)
    assert auc(later, same[0]) + auc(same[0], later) == pytest.approx(1.0)
