"""What the benchmarks' report says of figures: their middle, their spread, and whether they reach what they should."""

from __future__ import annotations

import pytest

from bench import report
from bench.section import OTHERS_EVERY, Reach, Section, of_round, ratios, spread, turned


@pytest.mark.parametrize(
    ("figures", "bar", "at_most", "is_met"),
    [
        ([0.1, 0.9, 0.95], 0.9, False, True),
        ([0.1, 0.89, 5.0], 0.9, False, False),
        ([1.0, 5.0, 9.0], 5, True, True),
        ([1.0, 5.1, 9.0], 5, True, False),
    ],
)
def test_the_median_decides(figures: list[float], bar: float, at_most: bool, is_met: bool) -> None:
    assert Reach("it", figures, bar, at_most=at_most).is_met is is_met


def test_figures_are_compared_round_by_round() -> None:
    assert ratios({0: 2.0, 4: 9.0}, {0: 1.0, 1: 5.0, 4: 3.0}) == [2.0, 3.0]
    assert ratios({0: 1.0, 1: 5.0, 4: 3.0}, {0: 2.0, 4: 6.0}) == [0.5, 0.5]
    with pytest.raises(ValueError):
        ratios({0: 1.0, 1: 5.0}, {1: 2.0, 2: 6.0})


def test_a_spread_has_the_least_and_the_greatest() -> None:
    assert spread([3.0, 1.0, 2.5]) == "2.50 (1.00–3.00)"


def test_everything_comes_first_in_some_round() -> None:
    assert [turned("abc", turn) for turn in range(4)] == [list("abc"), list("bca"), list("cab"), list("abc")]


def test_what_has_a_bar_is_measured_in_every_round_and_the_others_in_some() -> None:
    assert OTHERS_EVERY == 4
    found = [of_round("ab", "cd", turn) for turn in range(5)]
    assert found == [list("abcd"), list("ba"), list("ab"), list("ba"), list("abdc")]


def test_the_report_ends_with_what_was_to_be_reached() -> None:
    met = Reach("quick", [2.0], 1.7)
    missed = Reach("late", [6.0], 5, at_most=True)
    text = report.write([Section("One", ["a line"], [met, missed], [("other", "nobody has it")])], postgres="15")
    assert "## One\n\na line\n" in text
    assert text.rpartition("## Reach")[2].split("\n")[4:] == [
        "| quick | at least 1.7 | 2.00 (2.00–2.00) | yes |",
        "| late | at most 5 | 6.00 (6.00–6.00) | no |",
        "| other |  | nobody has it | not measured |",
        "",
    ]


def test_without_aims_there_is_no_such_table() -> None:
    assert "## Reach" not in report.write([Section("One", ["a line"])], postgres="15")
