"""What a part of the report is made of, and how figures are compared: as ratios within a round, with their spread."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

OTHERS_EVERY = 4
"""What has no bar is measured in each so many rounds: the time goes where it decides something."""


@dataclass(frozen=True)
class Reach:
    """Something that is to be reached: at least, or at most, `bar`, by the median of `figures`."""

    what: str
    figures: Sequence[float]
    bar: float
    at_most: bool = False

    @property
    def is_met(self) -> bool:
        found = statistics.median(self.figures)
        return found <= self.bar if self.at_most else found >= self.bar


@dataclass(frozen=True)
class Section:
    """A part of the report: Markdown below a title, and what of it is to be reached. `missing` says what nobody measured."""

    title: str
    lines: Sequence[str]
    reaches: Sequence[Reach] = ()
    missing: Sequence[tuple[str, str]] = ()
    """What is to be reached, and why there is no figure."""


def spread(figures: Iterable[float]) -> str:
    """Return the median, with the least and the greatest."""
    figures = list(figures)
    return f"{statistics.median(figures):.2f} ({min(figures):.2f}–{max(figures):.2f})"


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def ratios(own: Mapping[int, float], base: Mapping[int, float]) -> list[float]:
    """Compare the figures of the rounds, by their number, that measured both: all of those that measured one of them."""
    if not (own.keys() <= base.keys() or base.keys() <= own.keys()):
        raise ValueError("what was not measured in the same rounds cannot be compared")
    return [figure / base[turn] for turn, figure in own.items() if turn in base]


def turned(items: Sequence[T], turn: int) -> list[T]:
    """Return them in the order of a round, each the first in its turn."""
    start = turn % len(items)
    return [*items[start:], *items[:start]]


def of_round(barred: Sequence[T], others: Sequence[T], turn: int) -> list[T]:
    """Return what a round measures, in its order: what has a bar in every one, the others in each OTHERS_EVERY."""
    return [*turned(barred, turn), *([] if turn % OTHERS_EVERY else turned(others, turn // OTHERS_EVERY))]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table in Markdown, and the blank line after it."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)] + [""]
