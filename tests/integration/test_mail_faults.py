"""Mail while things break: workers killed and stopped, Postgres restarted, many workers, a relay that does all it can."""

from __future__ import annotations

import collections
import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from dev.cluster import KILLABLE, Cluster, throw_away
from tests.postgres import Database
from tests.services import Program, StartProgram, travel, until
from tests.smtp_relay import Attempt, Fault, FaultyRelay, Stage, Trouble, delivery, enqueue, enqueue_many
from workers.tasks.mail import LEASE_SECONDS


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    return database.connect()


@pytest.fixture
def relay() -> Iterator[FaultyRelay]:
    with FaultyRelay() as relay:
        yield relay


StartWorker = Callable[..., Program]


def start_worker(start: StartProgram, database: Database, relay: FaultyRelay, **environment: str) -> Program:
    variables = {"BACKEND_SMTP_PORT": str(relay.port), "BACKEND_MAIL_WORKER_INTERVAL": "100ms"} | environment
    return start("worker", database, **variables)


def working(program: Program) -> Program:
    until(lambda: program.logged("working") or program.process.poll() is not None)
    assert program.process.poll() is None, program.errors()
    return program


@pytest.fixture
def worker(start_program: StartProgram, database: Database, relay: FaultyRelay) -> StartWorker:
    """Start the job program with this relay and a quick sweep, and wait until it works."""

    def start(**environment: str) -> Program:
        return working(start_worker(start_program, database, relay, **environment))

    return start


def state_counts(connection: psycopg.Connection[Any]) -> dict[str, int]:
    return dict(connection.execute("SELECT status, count(*) FROM backend.mail_deliveries GROUP BY status").fetchall())


# -- killed


@pytest.mark.parametrize("stage, kept", [("CONTENT", 0), ("TAKEN", 1)])
def test_a_worker_killed_in_mid_send(
    connection: psycopg.Connection[Any], relay: FaultyRelay, worker: StartWorker, stage: Stage, kept: int
) -> None:
    """Whether the relay has the mail, nobody can know: it is sent again, as the same one, when the lease has run out."""
    relay.fail(stage, Trouble.STALL)
    one = enqueue(connection, "1")
    first = worker()
    relay.wait_for(stage)
    first.kill()
    second = worker()
    enqueue(connection, "2")
    # The other is at work, and leaves this one alone.
    [line] = until(lambda: second.logged("mail sent"))
    assert line["delivery_id"] != one
    assert delivery(connection, one).attempts == [Attempt(1, "outcome_unknown", None, False)]
    travel(connection, f"{LEASE_SECONDS} seconds")
    until(lambda: delivery(connection, one).status == "sent")
    assert delivery(connection, one).attempts == [Attempt(1, "outcome_unknown", None, False), Attempt(2, "sent", None, True)]
    assert [r.message_id for r in relay.received].count(f"<{one}@galaxy.example>") == kept + 1


# -- stopped


def test_a_stop_finishes_the_mail_that_has_begun_and_no_other(
    connection: psycopg.Connection[Any], relay: FaultyRelay, worker: StartWorker
) -> None:
    relay.fail("CONTENT", Trouble.STALL)
    enqueue_many(connection, 5)
    program = worker()
    relay.wait_for("CONTENT")
    program.process.send_signal(signal.SIGTERM)
    until(lambda: program.logged("stopping"))
    assert program.process.poll() is None
    relay.release()
    assert program.wait() == 0
    assert program.errors() == ""
    assert program.logged("stopped")
    assert len(relay.received) == 1
    assert relay.reached["QUIT"] == 1
    assert state_counts(connection) == {"sent": 1, "pending": 4}
    assert connection.execute("SELECT DISTINCT attempts FROM backend.mail_deliveries WHERE status = 'pending'").fetchall() == [
        (0,)
    ]
    # Nothing is left behind that another worker would have to rescue.
    assert connection.execute("SELECT count(*) FROM procrastinate.procrastinate_workers").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE status = 'doing'").fetchone() == (0,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_with_nothing_to_do_is_quick(worker: StartWorker, number: signal.Signals) -> None:
    program = worker()
    begun = time.monotonic()
    program.process.send_signal(number)
    assert program.wait() == 0
    assert time.monotonic() - begun < 25
    assert program.errors() == ""


def test_a_stop_while_it_begins_is_as_quick(database: Database, relay: FaultyRelay, start_program: StartProgram) -> None:
    """A connection of the job queue's that is being made then must not keep the process alive."""

    def stop_at_once() -> None:
        program = start_worker(start_program, database, relay)
        until(lambda: program.logged("working"), pause=0.001)
        program.process.terminate()
        assert program.wait(10) == 0
        assert program.errors() == ""

    for _ in range(3):
        stop_at_once()


def test_a_second_signal_ends_it_at_once(connection: psycopg.Connection[Any], relay: FaultyRelay, worker: StartWorker) -> None:
    relay.fail("CONTENT", Trouble.STALL)
    one = enqueue(connection)
    program = worker()
    relay.wait_for("CONTENT")
    program.process.send_signal(signal.SIGTERM)
    until(lambda: program.logged("stopping"))
    begun = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() != 0
    assert time.monotonic() - begun < 25
    assert program.logged("stopped at once by a second signal")
    assert delivery(connection, one).outcomes == ["outcome_unknown"]


def test_a_stop_takes_no_longer_than_it_may(connection: psycopg.Connection[Any], relay: FaultyRelay, worker: StartWorker) -> None:
    """The relay would hold it up for twenty seconds; `serve` kills what takes two more than its budget."""
    relay.fail("CONTENT", Trouble.STALL)
    enqueue(connection)
    program = worker(BACKEND_SHUTDOWN_TIMEOUT="1s")
    relay.wait_for("CONTENT")
    begun = time.monotonic()
    program.process.send_signal(signal.SIGTERM)
    assert program.wait() == 0
    assert time.monotonic() - begun < 20
    assert program.logged("stopped with work unfinished")
    assert program.errors() == ""


# -- many at once


@pytest.mark.parametrize("count", [2, 4])
def test_many_workers_send_each_mail_once(
    connection: psycopg.Connection[Any], database: Database, relay: FaultyRelay, start_program: StartProgram, count: int
) -> None:
    programs = [start_worker(start_program, database, relay) for _ in range(count)]
    for program in programs:
        working(program)
    everything = enqueue_many(connection, 300)
    relay.wait(300, timeout=60)
    until(lambda: state_counts(connection) == {"sent": 300})
    sent = collections.Counter(r.message_id for r in relay.received)
    assert sent == {f"<{one}@galaxy.example>": 1 for one in everything}
    assert connection.execute("SELECT DISTINCT attempt_no, outcome FROM backend.mail_attempts").fetchall() == [(1, "sent")]
    assert all(program.logged("mail sent") for program in programs), "one worker did it all"


def test_nothing_is_lost_and_nothing_is_sent_twice_unknown_whatever_a_relay_does(
    connection: psycopg.Connection[Any], database: Database, relay: FaultyRelay, start_program: StartProgram
) -> None:
    """Four workers and a thousand mails for each. The relay stalls, closes and resets at every stage, before and after it has
    taken a mail, and refuses for now and for good."""
    chance = random.Random(20261121)
    faults: dict[Stage, list[Fault]] = {
        "CONNECT": ["421 4.3.2 busy", Trouble.CLOSE, Trouble.RESET, Trouble.STALL],
        "EHLO": [Trouble.CLOSE],
        "MAIL": ["451 4.3.0 later", "550 5.7.1 not you", Trouble.RESET],
        "RCPT": ["450 4.2.1 later", "550 5.1.1 unknown", "421 4.3.2 bye", Trouble.CLOSE, Trouble.STALL, b"\xff\x00\r\n"],
        "DATA": ["451 4.3.0 later", Trouble.RESET],
        "CONTENT": ["452 4.3.1 full", "554 5.6.0 no", Trouble.CLOSE, Trouble.RESET],
        "TAKEN": [Trouble.CLOSE, Trouble.RESET, Trouble.STALL, b"what?\r\n"],
        "RSET": [Trouble.CLOSE],
    }
    relay.plan = lambda stage: chance.choice(faults[stage]) if stage in faults and chance.random() < 0.03 else None
    everything = enqueue_many(connection, 4_000)
    finished = threading.Event()

    def hurry() -> None:
        # Not the clock: it would take leases away from those who work.
        with database.cluster.connect(database.name) as own:
            while not finished.wait(0.05):
                own.execute(
                    """
                    UPDATE backend.mail_deliveries SET next_attempt_at = backend.now()
                     WHERE status = 'retrying' AND lease_until IS NULL
                    """
                )

    hurrying = threading.Thread(target=hurry)
    hurrying.start()
    try:
        hasty = {"BACKEND_SMTP_TIMEOUT": "500ms", "BACKEND_SMTP_CONTENT_TIMEOUT": "500ms"}
        programs = [start_worker(start_program, database, relay, **hasty) for _ in range(4)]
        until(lambda: not {"pending", "retrying"} & state_counts(connection).keys(), timeout=500, pause=0.5)
    finally:
        finished.set()
        hurrying.join()
    assert [p.stop() for p in programs] == [0] * 4
    assert "".join(p.errors() for p in programs) == ""

    taken = collections.Counter(r.message_id for r in relay.received)
    twice = 0
    for one in everything:
        state = delivery(connection, one)
        times = taken[f"<{one}@galaxy.example>"]
        unknown = state.outcomes.count("outcome_unknown")
        twice += times > 1
        assert [a.number for a in state.attempts] == list(range(1, len(state.attempts) + 1))
        assert all(a.is_reported for a in state.attempts)
        if state.status == "sent":
            assert state.outcomes[-1] == "sent"
            assert 1 <= times <= 1 + unknown
        else:
            assert state.status == "dead_lettered"
            assert times <= unknown
    assert twice > 0, "this run has not met what it is for"
    assert set(taken) <= {f"<{one}@galaxy.example>" for one in everything}


# -- Postgres goes and comes back


@contextlib.contextmanager
def own_cluster() -> Iterator[Database]:
    """A database in a cluster that may be stopped; its invariants hold in the end."""
    with throw_away(KILLABLE) as cluster:
        cluster.create_database("galaxy")
        cluster.sqitch("galaxy", "deploy")
        yield Database(cluster, "galaxy")
        with cluster.connect("galaxy") as connection:
            assert connection.execute("SELECT * FROM backend.invariants").fetchall() == []


def enqueue_in(cluster: Cluster, key: str) -> str:
    with cluster.connect("galaxy", options="-csearch_path=backend") as connection:
        return enqueue(connection, key)


def read_in(cluster: Cluster, one: str) -> list[str]:
    with cluster.connect("galaxy") as connection:
        return delivery(connection, one).outcomes


def troubles(program: Program) -> list[dict[str, Any]]:
    return [line for line in program.log_lines() if line["level"] == "warn" and line["caller"].startswith("galaxy.worker")]


def test_postgres_restarted_while_a_worker_works(relay: FaultyRelay, start_program: StartProgram) -> None:
    with own_cluster() as database:
        cluster = database.cluster
        # The sweep is out of the way: jobs alone must go on.
        hasty = {"BACKEND_MAIL_WORKER_INTERVAL": "1h", "BACKEND_POSTGRES_OPERATION_TIMEOUT": "1s"}
        program = working(start_worker(start_program, database, relay, **hasty))
        enqueue_in(cluster, "before")
        relay.wait(1)
        cluster.restart()
        enqueue_in(cluster, "after a restart")
        relay.wait(2)
        cluster.crash()
        cluster.start()
        enqueue_in(cluster, "after a crash")
        relay.wait(3)

        # In the middle of a mail: the relay takes it while there is no database to say so to.
        relay.fail("TAKEN", Trouble.STALL)
        one = enqueue_in(cluster, "in the middle")
        relay.wait_for("TAKEN", 4)
        cluster.stop()
        before = len(troubles(program))
        relay.release()
        until(lambda: len(troubles(program)) > before)
        cluster.start()
        until(lambda: read_in(cluster, one) == ["sent"])
        assert len(relay.received) == 4

        # And told to stop while it is away:
        cluster.stop()
        begun = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - begun < 25
        assert program.errors() == ""
        cluster.start()
    assert len({r.message_id for r in relay.received}) == 4
