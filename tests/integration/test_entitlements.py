"""What tier is in force, against a model: whatever is granted in whichever order, and whenever the job runs."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dev.cluster import Cluster
from tests.postgres import Database

DAYS = 40


class Grant(NamedTuple):
    """Made on a day, of a tier, from a day to a day, or for ever."""

    made: int
    tier: str
    starts: int
    lasts: int | None

    @property
    def ends(self) -> int:
        return 10**6 if self.lasts is None else self.starts + self.lasts


GRANTS = st.lists(
    st.builds(
        Grant,
        st.integers(0, DAYS),
        st.sampled_from(["free", "monthly", "yearly", "permanent"]),
        st.integers(0, DAYS),
        st.one_of(st.none(), st.integers(1, DAYS)),
    ),
    max_size=6,
)


def in_force(grants: list[Grant], day: int) -> tuple[str, int, int | None]:
    """The newest that has begun and not ended, else free; since it began, or what hid it has ended; and to when."""
    made = [g for g in grants if g.made <= day]
    begun = [(n, g) for n, g in enumerate(made) if g.starts <= day < g.ends]
    number, grant = max(begun, default=(-1, Grant(0, "free", 0, None)))
    since = max([grant.starts, *(g.ends for g in made[number + 1 :] if g.ends <= day)])
    return grant.tier, since, None if grant.lasts is None else grant.ends


@pytest.fixture(scope="module")
def db(cluster: Cluster, template_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection for all of the module: what an example writes, it takes back."""
    database = Database(cluster, f"test_{secrets.token_hex(8)}")
    cluster.create_database(database.name, template_database)
    yield database.connect()
    database.drop()


def one(db: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = db.execute(query, parameters).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(grants=GRANTS, settled=st.sets(st.integers(0, 2 * DAYS)))
@example(grants=[Grant(0, "yearly", 20, 30), Grant(0, "monthly", 0, 6)], settled={8, 23})
@example(grants=[Grant(0, "permanent", 0, None), Grant(0, "free", 0, 20), Grant(0, "monthly", 0, 10)], settled={12})
def test_what_is_in_force_never_depends_on_when_the_job_ran(
    grants: list[Grant], settled: set[int], db: psycopg.Connection[Any]
) -> None:
    # One that is over before it is made is refused; one of a tier that lasts so long has an end.
    possible = [g for g in grants if g.ends > g.made and (g.lasts or g.tier in ("free", "permanent"))]
    valid = sorted(possible, key=lambda g: g.made)
    with db.transaction(force_rollback=True):
        began: datetime = one(db, "SELECT transaction_timestamp()")
        user_id = one(db, "SELECT (account_create('telegram', 'ann', NULL, NULL, 'UTC', NULL)).user_id")
        for day in range(2 * DAYS + 1):
            db.execute("UPDATE clock SET clock_offset = %s", [timedelta(days=day)])
            for grant in (g for g in valid if g.made == day):
                starts, ends = (began + timedelta(days=d) for d in (grant.starts, min(grant.ends, 1000)))
                db.execute(
                    "SELECT entitlement_grant(%s, %s, 'root', 'x', %s, %s)",
                    [user_id, grant.tier, starts, None if grant.lasts is None else ends],
                )
            if day in settled:
                db.execute("SELECT entitlement_settle(%s)", [user_id])
            tier, since, until = one(db, "SELECT tier, starts_at, ends_at FROM entitlement_in_force(%s)", user_id)
            found = (tier, (since - began).days, None if until is None else (until - began).days)
            assert found == in_force(valid, day), f"day {day}"
            if day in settled:
                snapshot = one(db, "SELECT tier, ends_at, changes_at > now() OR changes_at IS NULL FROM entitlement_snapshots")
                assert snapshot == (tier, until, True)
                assert db.execute("SELECT * FROM invariants_accounts").fetchall() == []
