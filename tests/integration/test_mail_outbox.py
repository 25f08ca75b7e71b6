"""The outbox as workers see it: claims, leases, reports, expiry. Each worker here is a connection with the worker's login."""

from __future__ import annotations

import contextlib
import itertools
import statistics
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.postgres import Database
from tests.services import simultaneously, travel
from tests.smtp_relay import Attempt, delivery, enqueue, enqueue_many

LEASE = 30


class Claim(NamedTuple):
    delivery_id: str
    attempt_no: int


class Worker:
    """What a worker may call."""

    def __init__(self, database: Database, **settings: int) -> None:
        options = " ".join(["-csearch_path=backend", *(f"-cbackend.{name}={value}" for name, value in settings.items())])
        self.connection = database.connect("galaxy_worker", options=options)

    def claim(self, limit: int = 1, lease: float = LEASE) -> list[Claim]:
        rows = self.connection.execute("SELECT * FROM worker.mail_claim(%s, %s, 0)", [limit, lease]).fetchall()
        return [Claim(str(row[0]), row[1]) for row in rows]

    def report(self, claim: Claim, outcome: str, error: str | None = None) -> str | None:
        row = self.connection.execute("SELECT worker.mail_report(%s, %s, %s, %s)", [*claim, outcome, error]).fetchone()
        assert row is not None
        return row[0] if row[0] is None else str(row[0])


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    return database.connect()


@pytest.fixture
def worker(database: Database) -> Worker:
    return Worker(database)


@pytest.fixture
def other(database: Database) -> Worker:
    return Worker(database)


def make_due(connection: psycopg.Connection[Any]) -> None:
    """Let every mail that waits for its next attempt have waited."""
    connection.execute("UPDATE backend.mail_deliveries SET next_attempt_at = backend.now() WHERE status = 'retrying'")


def send_code(database: Database, address: str = "ada@example.org", code: str = "123456") -> str:
    """Ask for a login code as the API does, and return its mail's delivery id."""
    with database.cluster.connect(database.name, "galaxy_api") as api:
        api.execute("SELECT api.email_code_send(jsonb_build_object('email', %s::text), %s, sha256('x'), NULL)", [address, code])
    with database.cluster.connect(database.name) as connection:
        row = connection.execute("SELECT delivery_id FROM backend.mail_deliveries ORDER BY created_at DESC LIMIT 1").fetchone()
    assert row is not None
    return str(row[0])


# -- leases


def test_a_claimed_mail_is_nobody_elses(connection: psycopg.Connection[Any], worker: Worker, other: Worker) -> None:
    one = enqueue(connection)
    assert worker.claim() == [Claim(one, 1)]
    assert other.claim() == []
    assert worker.claim() == []
    assert delivery(connection, one).attempts == [Attempt(1, "outcome_unknown", None, False)]


def test_a_lease_that_ran_out_gives_the_mail_back_and_numbers_go_on(
    connection: psycopg.Connection[Any], worker: Worker, other: Worker
) -> None:
    one = enqueue(connection)
    worker.claim()
    travel(connection, f"{LEASE - 5} seconds")
    assert other.claim() == []
    travel(connection, "5 seconds")
    assert other.claim() == [Claim(one, 2)]
    assert other.report(Claim(one, 2), "sent") == "sent"
    assert delivery(connection, one).attempts == [
        Attempt(1, "outcome_unknown", None, False),
        Attempt(2, "sent", None, True),
    ]


def test_a_late_report_moves_nothing(connection: psycopg.Connection[Any], worker: Worker, other: Worker) -> None:
    for outcome in ("transient", "permanent", "outcome_unknown"):
        one = enqueue(connection, outcome)
        [first] = worker.claim()
        travel(connection, f"{LEASE} seconds")
        [second] = other.claim()
        assert worker.report(first, outcome, "late") == "pending"
        state = delivery(connection, one)
        assert (state.status, state.is_leased, state.dead_letter) == ("pending", True, None)
        # It is kept all the same: that is what happened.
        assert state.attempts == [Attempt(1, outcome, "late", True), Attempt(2, "outcome_unknown", None, False)]
        # The one who has the mail now is not disturbed.
        assert other.report(second, "sent") == "sent"
        # What was reported once stays.
        assert worker.report(first, "permanent", "later still") == "sent"
        assert other.report(second, "permanent") == "sent"
        assert delivery(connection, one).outcomes == [outcome, "sent"]


def test_what_was_sent_after_all_is_not_sent_again(connection: psycopg.Connection[Any], worker: Worker, other: Worker) -> None:
    one = enqueue(connection)
    [first] = worker.claim()
    travel(connection, f"{LEASE} seconds")
    [second] = other.claim()
    assert worker.report(first, "sent") == "sent"
    assert other.report(second, "transient", "450 later") == "sent"
    assert delivery(connection, one).outcomes == ["sent", "transient"]
    travel(connection, "1 day")
    assert worker.claim() == []


def test_a_report_after_the_lease_counts_while_nobody_has_taken_over(connection: psycopg.Connection[Any], worker: Worker) -> None:
    enqueue(connection)
    [first] = worker.claim()
    travel(connection, "1 hour")
    assert worker.report(first, "sent") == "sent"


def test_a_report_on_what_is_not_there(worker: Worker) -> None:
    assert worker.report(Claim("00000000-0000-7000-8000-000000000000", 1), "sent") is None


def test_an_outcome_that_is_none_is_refused(connection: psycopg.Connection[Any], worker: Worker) -> None:
    one = enqueue(connection)
    [first] = worker.claim()
    with pytest.raises(psycopg.errors.CheckViolation):
        worker.report(first, "maybe")
    assert delivery(connection, one).status == "pending"


def test_what_was_cancelled_while_it_was_sent_stays_cancelled(connection: psycopg.Connection[Any], worker: Worker) -> None:
    one = enqueue(connection)
    [first] = worker.claim()
    connection.execute("UPDATE backend.mail_deliveries SET status = 'cancelled'")
    assert worker.report(first, "transient", "450") == "cancelled"
    travel(connection, "1 day")
    assert worker.claim() == []
    assert delivery(connection, one).outcomes == ["transient"]


def test_workers_that_claim_at_once_share_the_mail(database: Database, connection: psycopg.Connection[Any]) -> None:
    everything = enqueue_many(connection, 200)

    def drain(number: int) -> list[Claim]:
        one = Worker(database)
        claimed = list(itertools.chain.from_iterable(iter(lambda: one.claim(1 + number % 3), [])))
        for claim in claimed:
            assert one.report(claim, "sent") == "sent"
        return claimed

    claimed = list(itertools.chain.from_iterable(simultaneously(8, drain)))
    assert sorted(c.delivery_id for c in claimed) == sorted(everything)
    assert {c.attempt_no for c in claimed} == {1}


def test_who_waits_longest_goes_first_within_a_priority(connection: psycopg.Connection[Any], worker: Worker) -> None:
    slow = [enqueue(connection, f"slow {n}") for n in range(3)]
    urgent = enqueue(connection, "urgent", priority=100)
    assert [c.delivery_id for c in worker.claim(10)] == [urgent, *slow]


# -- retries


def test_each_wait_is_longer_and_no_two_are_alike(connection: psycopg.Connection[Any], worker: Worker) -> None:
    everything = enqueue_many(connection, 30)
    for attempt in range(1, 8):
        longest = min(3600, 5 * 4 ** (attempt - 1))
        for claim in worker.claim(100):
            assert worker.report(claim, "transient", "450 later") == "retrying"
        waits = [delivery(connection, one).due_in for one in everything]
        assert all(longest / 2 <= wait + 2 and wait <= longest for wait in waits)
        assert statistics.pstdev(waits) > longest / 50, "what failed together comes back together"
        # Not a moment early.
        assert worker.claim(100) == []
        travel(connection, f"{longest} seconds")


def test_the_last_attempt_that_passes_is_a_dead_letter(database: Database, connection: psycopg.Connection[Any]) -> None:
    worker = Worker(database, mail_max_attempts=3)
    one = enqueue(connection)
    for expected in ("retrying", "retrying", "dead_lettered"):
        make_due(connection)
        [claim] = worker.claim()
        assert worker.report(claim, "transient", "450 later") == expected
    state = delivery(connection, one)
    assert (state.status, state.dead_letter, state.outcomes) == ("dead_lettered", "450 later", ["transient"] * 3)
    travel(connection, "30 days")
    assert worker.claim() == []


def test_a_permanent_refusal_is_a_dead_letter_at_once(connection: psycopg.Connection[Any], worker: Worker) -> None:
    one = enqueue(connection)
    [claim] = worker.claim()
    assert worker.report(claim, "permanent", "550 unknown") == "dead_lettered"
    assert delivery(connection, one).dead_letter == "550 unknown"


# -- expiry and erasure


@pytest.mark.parametrize("outcome, error", [("sent", None), ("permanent", "550 unknown")])
def test_a_code_is_erased_when_its_mail_is_done_with(
    database: Database, connection: psycopg.Connection[Any], worker: Worker, outcome: str, error: str | None
) -> None:
    one = send_code(database)
    assert "123456" in (delivery(connection, one).body or "")
    [claim] = worker.claim()
    worker.report(claim, outcome, error)
    assert delivery(connection, one).body is None
    # Nothing of it is anywhere else: not in a job, not in an error.
    for table in ("backend.mail_payloads", "backend.mail_attempts", "procrastinate.procrastinate_jobs"):
        assert "123456" not in str(connection.execute(f"SELECT * FROM {table}".encode()).fetchall())


def test_what_is_no_secret_stays_to_be_read(connection: psycopg.Connection[Any], worker: Worker) -> None:
    one = enqueue(connection)
    worker.report(worker.claim()[0], "sent")
    assert delivery(connection, one).body == "Hello Ada"


def test_a_code_is_dropped_once_it_is_over(database: Database, connection: psycopg.Connection[Any], worker: Worker) -> None:
    one = send_code(database)
    worker.report(worker.claim()[0], "transient", "450 later")
    assert delivery(connection, one).body is not None
    travel(connection, "10 minutes")
    assert worker.claim() == []
    state = delivery(connection, one)
    assert (state.status, state.body, state.outcomes) == ("expired", None, ["transient"])


def test_a_code_that_is_being_sent_is_not_dropped_meanwhile(
    database: Database, connection: psycopg.Connection[Any], worker: Worker, other: Worker
) -> None:
    one = send_code(database)
    [claim] = worker.claim(lease=3600)
    travel(connection, "10 minutes")
    assert other.claim() == []
    assert delivery(connection, one).status == "pending"
    assert worker.report(claim, "sent") == "sent"


def test_a_worker_that_died_with_a_code_leaves_nothing(
    database: Database, connection: psycopg.Connection[Any], worker: Worker, other: Worker
) -> None:
    one = send_code(database)
    [claim] = worker.claim()
    travel(connection, "10 minutes")
    assert other.claim() == []
    state = delivery(connection, one)
    assert (state.status, state.body) == ("expired", None)
    # And should it live after all:
    assert worker.report(claim, "sent") == "expired"


def test_after_an_outage_every_code_that_is_over_is_dropped_soon(connection: psycopg.Connection[Any], worker: Worker) -> None:
    """A claim that finds nothing to send ends the run; what is over must not wait for as many runs as there are codes."""
    enqueue_many(connection, 50)
    connection.execute("UPDATE backend.mail_deliveries SET expires_at = backend.now()")
    assert worker.claim() == []
    assert connection.execute("SELECT DISTINCT status FROM backend.mail_deliveries").fetchall() == [("expired",)]


# -- the way in


def test_the_same_key_at_once_is_one_mail(database: Database, connection: psycopg.Connection[Any]) -> None:
    enqueue(connection, "before")

    def add(number: int) -> str:
        with database.cluster.connect(database.name, options="-csearch_path=backend") as own:
            return enqueue(own, "same", to=f"person-{number}@example.org")

    assert len(set(simultaneously(8, add))) == 1
    counts = connection.execute(
        "SELECT (SELECT count(*) FROM backend.mail_payloads), (SELECT count(*) FROM backend.mail_recipients)"
    ).fetchone()
    assert counts == (2, 2)


def test_nothing_is_sent_of_what_was_rolled_back(connection: psycopg.Connection[Any], worker: Worker) -> None:
    with connection.transaction(force_rollback=True):
        enqueue(connection)
        assert worker.claim() == []
    assert worker.claim() == []
    assert connection.execute("SELECT count(*) FROM procrastinate.procrastinate_jobs").fetchone() == (0,)


EVIL_NAMES = [
    "Ada\r\nBcc: eve@example.org",
    "Ada\nBcc: eve@example.org",
    "Ada\x0bBcc:\x1ceve@example.org",
    "Ada\x85Bcc: eve@example.org",
    "Ada\u2028Bcc: eve@example.org",
    "Ada\u2029Bcc: eve@example.org",
    "x" * 1000,
]


def test_a_value_keeps_the_subject_one_line(connection: psycopg.Connection[Any]) -> None:
    for key, name in enumerate(EVIL_NAMES):
        enqueue(connection, str(key), values={"name": name})
    subjects = [row[0] for row in connection.execute("SELECT subject FROM backend.mail_payloads").fetchall()]
    assert len(subjects) == len(EVIL_NAMES)
    assert {subject[:11] for subject in subjects} == {"A note for "}
    assert [s for s in subjects if len(s.splitlines()) != 1 or len(s) > 500] == []


def test_a_value_is_shown_by_the_html_and_not_run(connection: psycopg.Connection[Any]) -> None:
    enqueue(connection, values={"name": "<script>alert('1 & \"2\"')</script>{{name}}"})
    row = connection.execute("SELECT body_html, body_text FROM backend.mail_payloads").fetchone()
    assert row == (
        "<p>Hello &lt;script&gt;alert(&#39;1 &amp; &quot;2&quot;&#39;)&lt;/script&gt;{{name}}</p>",
        "Hello <script>alert('1 & \"2\"')</script>{{name}}",
    )


EVIL_ADDRESSES = [
    "e@example.org\r\nBcc:x@y.z",
    "e e@example.org",
    "e@example.org>\r\nDATA",
    "",
    "eve",
    "@",
    "eve@",
    "@y.z",
    "e@y,x@y.z",
]


def test_an_address_that_is_none_is_refused(connection: psycopg.Connection[Any]) -> None:
    taken = []
    for key, address in enumerate(EVIL_ADDRESSES):
        with contextlib.suppress(psycopg.errors.CheckViolation):
            enqueue(connection, str(key), to=address)
            taken.append(address)
    assert taken == []
    assert connection.execute("SELECT count(*) FROM backend.mail_deliveries").fetchone() == (0,)


def test_a_mail_to_nobody_is_refused(connection: psycopg.Connection[Any]) -> None:
    enqueue(connection)
    with pytest.raises(psycopg.Error), connection.transaction():
        connection.execute("SELECT backend.mail_enqueue('test.note.0', 'nobody', '{}', '{\"name\": \"x\"}')")
        raise psycopg.Rollback  # it was taken, and must not stay


def test_a_value_that_is_missing_is_refused(connection: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue):
        enqueue(connection, values={})


def test_a_claim_costs_little_while_much_waits(connection: psycopg.Connection[Any], worker: Worker) -> None:
    """Ten times the mail must not make a claim ten times as dear: all of it would take a hundred times as long."""

    def buffers() -> float:
        plan = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM worker.mail_claim(1, 30, 0)"
        row = worker.connection.execute(plan).fetchone()
        assert row is not None
        return float(row[0][0]["Plan"]["Shared Hit Blocks"] + row[0][0]["Plan"]["Shared Read Blocks"])

    def grow(total: int) -> None:
        enqueue_many(connection, total)
        connection.execute("UPDATE backend.mail_deliveries SET expires_at = backend.now() + interval '10 minutes'")
        connection.execute("VACUUM ANALYZE backend.mail_deliveries")

    grow(100)
    worker.claim()
    small = buffers()
    grow(2000)
    worker.claim()
    assert buffers() < small * 4
