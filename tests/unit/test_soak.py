"""What `python -m bench.soak` calls growth."""

from __future__ import annotations

import pytest

from bench.soak import table

MIB = 2**20


@pytest.mark.parametrize(
    ("first", "last", "problems"),
    [
        ([100, 40], [140, 40], ["api has grown"]),
        ([100, 40], [100, 90], []),
        ([100], [100, 100, 100], []),
        ([100], [120], []),
        ([20], [50], []),
        ([0], [100], []),
    ],
)
def test_growth_is_of_the_largest_process_by_a_quarter_and_32_mib(first: list[int], last: list[int], problems: list[str]) -> None:
    samples = [{"api": [size * MIB for size in sizes]} for sizes in (first, first, first, last)]
    lines, found = table(samples)
    assert found == problems
    assert lines[1].split() == ["api", *[f"{max(first):.1f}"] * 3, f"{max(last):.1f}", str(len(last))]


def test_a_program_that_is_gone_is_told() -> None:
    here = {"api": [MIB], "push": [MIB]}
    assert table([here, here, here, {"api": [MIB]}])[1] == ["push is gone"]
