"""backend.cron_next against croniter: schedules and moments that nobody would think of, in UTC.

Where they are known to differ, the schedules are left out, for these reasons:

- a number with a step in the day of the week (`1/3`): ours goes on to 7, which is Sunday, as cronie's does; croniter
  ends it with Saturday. The step on a star is the same in both, but for `*/7`, see below;
- a range from a number to itself (`5-5`), which is all numbers to croniter, and that one to us;
- a star in a list (`1,*`): croniter takes the list for a star alone, cron looks at what the field begins with;
- croniter takes more than cron does (names as ends of a range that goes round, `fri-mon`; `L`, `#`, `?`, `H`, six
  fields, `@daily`); ours refuses them, and test_what_is_no_schedule_is_refused says so;
- what is further away than eight years and a day: ours says that it never comes. Only a 29 February that must fall on a
  certain weekday, too, is as rare as that.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from croniter import CroniterBadDateError, croniter  # type: ignore[import-untyped]
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from dev.cluster import Cluster
from tests.postgres import Database

MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
WEEKDAYS = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
HORIZON = timedelta(days=2923)


@pytest.fixture(scope="module")
def db(cluster: Cluster, template_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection for all of the module: nothing here writes."""
    database = Database(cluster, f"test_{secrets.token_hex(8)}")
    cluster.create_database(database.name, template_database)
    yield database.connect()
    database.drop()


def numbers(low: int, high: int, names: list[str], *, steps_on_numbers: bool = True) -> st.SearchStrategy[str]:
    """Return one item of a list: a number or name, a range, each perhaps with a step, or a star with one."""

    def written(number: int) -> st.SearchStrategy[str]:
        plain = [str(number), f"{number:02d}"]
        if names and number - low < len(names):
            plain += [names[number - low], names[number - low].upper()]
        return st.sampled_from(plain)

    step = st.integers(1, high - low).map(lambda n: f"/{n}")
    number = st.integers(low, high).flatmap(written)
    between = st.lists(st.integers(low, high), min_size=2, max_size=2, unique=True).map(sorted)
    span = between.flatmap(lambda ends: st.tuples(written(ends[0]), written(ends[1])).map("-".join))
    kinds = [number, span, st.tuples(st.just("*"), step).map("".join), st.tuples(span, step).map("".join)]
    if steps_on_numbers:
        kinds.append(st.tuples(number, step).map("".join))
    return st.one_of(kinds)


def field(low: int, high: int, names: list[str] | None = None, *, steps_on_numbers: bool = True) -> st.SearchStrategy[str]:
    item = numbers(low, high, names or [], steps_on_numbers=steps_on_numbers)
    return st.one_of(st.just("*"), item, st.lists(item, min_size=2, max_size=3).map(",".join))


SCHEDULES = st.tuples(
    field(0, 59), field(0, 23), field(1, 31), field(1, 12, MONTHS), field(0, 6, WEEKDAYS, steps_on_numbers=False)
).map(" ".join)
EPOCH = datetime(1980, 1, 1, tzinfo=UTC)
MOMENTS = st.integers(0, 130 * 365 * 86400 * 10**6).map(lambda n: EPOCH + timedelta(microseconds=n))


def ours(db: psycopg.Connection[Any], schedule: str, after: datetime) -> datetime | None:
    row = db.execute("SELECT cron_next(%s, %s)", (schedule, after)).fetchone()
    assert row is not None
    found: datetime | None = row[0]
    return found


def theirs(schedule: str, after: datetime) -> datetime | None:
    """Return croniter's answer, as cron has it: with a star at the beginning of either day, both are wanted."""
    try:
        found: datetime = croniter(
            schedule, after, ret_type=datetime, implement_cron_bug=True, max_years_between_matches=9
        ).get_next()
    except CroniterBadDateError:
        return None
    return found if found - after <= HORIZON else None


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=SCHEDULES, after=MOMENTS)
@example(schedule="0 0 29 2 *", after=datetime(2096, 2, 29, tzinfo=UTC))
@example(schedule="* * * * *", after=datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC))
@example(schedule="0 0 13 * fri", after=datetime(2026, 1, 1, tzinfo=UTC))
@example(schedule="0 0 */2 * mon", after=datetime(2026, 1, 5, tzinfo=UTC))
@example(schedule="0 0 1-31 * mon", after=datetime(2026, 1, 5, tzinfo=UTC))
@example(schedule="0 0 31 2 *", after=datetime(2026, 1, 5, tzinfo=UTC))
def test_the_next_moment_is_croniters(db: psycopg.Connection[Any], schedule: str, after: datetime) -> None:
    assume(len(schedule) <= 200)
    expected = theirs(schedule, after)
    found = ours(db, schedule, after)
    # At the very edge of what is looked at, a day more or less may be.
    assume(expected is None or expected - after <= HORIZON - timedelta(days=1))
    if expected is None and found is not None:
        assert found - after > HORIZON - timedelta(days=1)
    else:
        assert found == expected


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schedule=SCHEDULES, after=MOMENTS)
def test_moments_follow_each_other(db: psycopg.Connection[Any], schedule: str, after: datetime) -> None:
    """Each is after the one before, on a whole minute, and none is between what was asked and what was told."""
    first = ours(db, schedule, after)
    assume(first is not None)
    assert first is not None
    assert first > after
    assert (first.second, first.microsecond) == (0, 0)
    middle = after + (first - after) / 2
    assert ours(db, schedule, middle) == first
    assert ours(db, schedule, first - timedelta(microseconds=1)) == first
    second = ours(db, schedule, first)
    assert second is None or second > first


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rest=st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12)), after=MOMENTS)
def test_sunday_is_0_and_7(db: psycopg.Connection[Any], rest: tuple[str, ...], after: datetime) -> None:
    answers = {ours(db, " ".join([*rest, sunday]), after) for sunday in ("0", "7", "sun", "07", "0,7", "7-7")}
    assert len(answers) == 1


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from("0123456789*/,- abcdefgjlmnoprstuvwyLH#?@"), max_size=40), after=MOMENTS)
def test_what_is_no_schedule_is_refused(db: psycopg.Connection[Any], text: str, after: datetime) -> None:
    """Whatever is typed, the answer is a moment or nothing; a moment only for what croniter takes too."""
    if ours(db, text, after) is not None:
        assert croniter.is_valid(text)


@pytest.mark.parametrize(
    "schedule", ["@daily", "0 0 * * fri-mon", "0 0 L * *", "0 0 * * 1#1", "0 0 ? * *", "H H * * *", "0 0 * * * 0", "0 0 1-0 * *"]
)
def test_what_only_croniter_takes_is_refused(db: psycopg.Connection[Any], schedule: str) -> None:
    assert ours(db, schedule, datetime(2026, 1, 1, tzinfo=UTC)) is None
