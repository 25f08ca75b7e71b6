"""The job queue's life beside Procrastinate: jobs of dead workers, what is purged, what must not be and is told."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.postgres import Database
from tests.services import Program, StartProgram, simultaneously, travel, until
from tests.smtp_relay import FaultyRelay, Trouble, delivery, enqueue, worker_environment
from workers.tasks.mail import LEASE_SECONDS

# The job program itself, except that every sweep comes round ten times a second.
HASTY = """
import os, sys
from app import config
from workers import loops, main
main.every = lambda interval, name, sweep, **more: loops.every(0.1, name, sweep, **more)
sys.exit(main.main(config.load(os.environ)))
"""


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    return database.connect(options="-csearch_path=backend,procrastinate")


@pytest.fixture
def relay() -> Iterator[FaultyRelay]:
    with FaultyRelay() as relay:
        yield relay


@pytest.fixture
def hasty(database: Database, relay: FaultyRelay, tmp_path: Path) -> Iterator[Callable[[], Program]]:
    """Start a job program whose sweeps come round quickly."""
    started: list[Program] = []

    def start() -> Program:
        environment = worker_environment(database, relay.port, BACKEND_LOGGING_LEVEL="debug")
        started.append(Program([sys.executable, "-c", HASTY], environment, tmp_path / "hasty.log"))
        return started[-1]

    yield start
    for program in started:
        program.close()
        program.check_lines()
        assert program.errors() == ""


def value(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def add_worker(connection: psycopg.Connection[Any], seconds_ago: float) -> int:
    """Make a worker that was heard of so long ago."""
    query = "INSERT INTO procrastinate_workers (last_heartbeat) VALUES (now() - make_interval(secs => %s)) RETURNING id"
    return int(value(connection, query, seconds_ago))


def add_job(connection: psycopg.Connection[Any], worker: int | None, attempts: int = 0, task: str = "mail_deliver") -> int:
    """Make a job that a worker does, or did when it died; without one, when its row has gone too."""
    # As it would be: deferred, then fetched.
    with connection.transaction():
        job = value(connection, "SELECT backend.job_defer('mail', %s)", task)
        connection.execute(
            "UPDATE procrastinate_jobs SET status = 'doing', worker_id = %s, attempts = %s WHERE id = %s",
            [worker, attempts, job],
        )
    return int(job)


def job_state(connection: psycopg.Connection[Any], job: int) -> tuple[str, int]:
    row = connection.execute("SELECT status::text, attempts FROM procrastinate_jobs WHERE id = %s", [job]).fetchone()
    assert row is not None
    return row[0], row[1]


# -- dead workers


def test_jobs_of_the_dead_run_again_and_those_of_the_living_do_not(
    connection: psycopg.Connection[Any], hasty: Callable[[], Program]
) -> None:
    dead, living = add_worker(connection, 31), add_worker(connection, 0)
    left, orphan, busy = (add_job(connection, worker) for worker in (dead, None, living))
    deadly = add_job(connection, dead, attempts=10)
    program = hasty()
    until(lambda: [job_state(connection, job) for job in (left, orphan)] == [("succeeded", 2)] * 2)
    until(lambda: job_state(connection, deadly)[0] == "failed")
    assert job_state(connection, busy) == ("doing", 0)
    until(lambda: len(program.logged("job of a dead worker")) >= 3)
    lines = program.logged("job of a dead worker")
    assert sorted((line["job_id"], line["level"], line["is_given_up"]) for line in lines) == [
        (left, "warn", False),
        (orphan, "warn", False),
        (deadly, "error", True),
    ]


def test_a_worker_killed_in_mid_job(
    connection: psycopg.Connection[Any],
    database: Database,
    relay: FaultyRelay,
    start_program: StartProgram,
    hasty: Callable[[], Program],
) -> None:
    relay.fail("CONTENT", Trouble.STALL)
    # Its sweep is slow, so that it is the job that sends.
    first = start_program("worker", database, BACKEND_SMTP_PORT=str(relay.port), BACKEND_MAIL_WORKER_INTERVAL="1h")
    one = enqueue(connection)
    relay.wait_for("CONTENT")
    job = value(connection, "SELECT id FROM procrastinate_jobs")
    first.kill()
    assert job_state(connection, job) == ("doing", 0)
    connection.execute("UPDATE procrastinate_workers SET last_heartbeat = now() - interval '31 seconds'")
    second = hasty()
    until(lambda: job_state(connection, job) == ("succeeded", 2))
    assert [line["job_id"] for line in second.logged("job of a dead worker")] == [job]
    # The mail's own lease still lasts.
    assert delivery(connection, one).outcomes == ["outcome_unknown"]
    travel(connection, f"{LEASE_SECONDS} seconds")
    until(lambda: delivery(connection, one).status == "sent")


def test_two_rescuers_at_once_rescue_once(database: Database, connection: psycopg.Connection[Any]) -> None:
    dead = add_worker(connection, 31)
    jobs = {add_job(connection, dead) for _ in range(3)}
    rescue = "SELECT job_id FROM worker.jobs_rescue(30)"
    first, second = (database.connect("galaxy_worker") for _ in range(2))
    with first.transaction():
        assert {row[0] for row in first.execute(rescue)} == jobs
        # It waits for nobody.
        assert second.execute(rescue).fetchall() == []
    assert second.execute(rescue).fetchall() == []
    assert {job_state(connection, job) for job in jobs} == {("todo", 1)}


def test_a_job_that_runs_again_already_is_not_taken_back(database: Database, connection: psycopg.Connection[Any]) -> None:
    dead = add_worker(connection, 31)
    jobs = sorted(add_job(connection, dead) for _ in range(40))

    def rescue(number: int) -> list[int]:
        with database.cluster.connect(database.name, "galaxy_worker", options="-csearch_path=procrastinate") as own:
            found = [row[0] for row in own.execute("SELECT job_id FROM worker.jobs_rescue(30)")]
            # What is rescued is fetched at once, by a worker that lives.
            fresh = value(own, "SELECT worker_id FROM procrastinate_register_worker_v1()")
            for _ in range(5):
                own.execute("SELECT procrastinate_fetch_job_v2(ARRAY['mail'], %s)", [fresh])
            return found + [row[0] for row in own.execute("SELECT job_id FROM worker.jobs_rescue(30)")]

    assert sorted(itertools.chain.from_iterable(simultaneously(8, rescue))) == jobs
    assert {job_state(connection, job)[1] for job in jobs} == {1}


def test_a_worker_that_others_took_for_dead_goes_on(
    connection: psycopg.Connection[Any], database: Database, relay: FaultyRelay, start_program: StartProgram
) -> None:
    """Suspended for a while, say. Its row is gone, and with it its right to fetch jobs: it must get another."""
    program = start_program("worker", database, BACKEND_SMTP_PORT=str(relay.port), BACKEND_MAIL_WORKER_INTERVAL="1h")
    enqueue(connection, "1")
    relay.wait(1)
    connection.execute("DELETE FROM procrastinate_workers")
    enqueue(connection, "2")
    relay.wait(2)
    assert program.process.poll() is None


# -- retention


def make_old(connection: psycopg.Connection[Any], *jobs: int) -> None:
    connection.execute("UPDATE procrastinate_events SET at = at - interval '25 hours' WHERE job_id = ANY(%s)", [list(jobs)])


def finish(connection: psycopg.Connection[Any], status: str) -> int:
    job = add_job(connection, None)
    connection.execute("SELECT procrastinate_finish_job_v1(%s, %s::procrastinate_job_status, false)", [job, status])
    return job


def test_jobs_that_ended_go_after_a_day(database: Database, connection: psycopg.Connection[Any]) -> None:
    old = [finish(connection, status) for status in ("succeeded", "failed", "aborted", "succeeded", "succeeded")]
    waiting = value(connection, "SELECT backend.job_defer('mail', 'mail_deliver')")
    running = add_job(connection, add_worker(connection, 0))
    make_old(connection, *old, waiting, running)
    fresh = finish(connection, "succeeded")
    worker = database.connect("galaxy_worker")
    assert [value(worker, "SELECT worker.jobs_purge(3)") for _ in range(3)] == [3, 2, 0]
    assert sorted(row[0] for row in connection.execute("SELECT id FROM procrastinate_jobs")) == [waiting, running, fresh]
    assert value(connection, "SELECT count(*) FROM procrastinate_events WHERE job_id = ANY(%s)", old) == 0


def test_the_program_purges_by_itself(
    database: Database, connection: psycopg.Connection[Any], hasty: Callable[[], Program]
) -> None:
    jobs = [finish(connection, "succeeded") for _ in range(3)]
    make_old(connection, *jobs)
    with database.cluster.connect(database.name, "galaxy_api") as api:
        api.execute("""SELECT api.email_code_send('{"email": "ada@example.org"}', '123456', sha256('x'), NULL)""")
        api.execute("SELECT api.administrator_attempt_failed('nobody', NULL)")
    assert value(connection, "SELECT count(*) FROM backend.auth_budgets") > 0
    travel(connection, "2 days")
    hasty()
    until(lambda: value(connection, "SELECT count(*) FROM backend.auth_challenges") == 0)
    until(lambda: value(connection, "SELECT count(*) FROM backend.auth_budgets") == 0)
    until(lambda: value(connection, "SELECT count(*) FROM backend.admin_attempts") == 0)
    until(lambda: value(connection, "SELECT count(*) FROM procrastinate_jobs WHERE id = ANY(%s)", jobs) == 0)


def test_a_purge_goes_on_until_nothing_is_left(connection: psycopg.Connection[Any], hasty: Callable[[], Program]) -> None:
    """More than one batch."""
    connection.execute("SELECT backend.job_defer('mail', 'mail_deliver') FROM generate_series(1, 1100)")
    connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    connection.execute("UPDATE procrastinate_jobs SET status = 'succeeded'")
    connection.execute("UPDATE procrastinate_events SET at = at - interval '25 hours'")
    program = hasty()
    until(lambda: value(connection, "SELECT count(*) FROM procrastinate_jobs") == 0)
    assert [line["rows"] for line in program.logged("purged") if line["function"] == "jobs_purge"] == [1000, 100]


# -- invariants


def test_a_violation_is_a_line_for_the_operator(connection: psycopg.Connection[Any], hasty: Callable[[], Program]) -> None:
    one = enqueue(connection)
    connection.execute("UPDATE backend.mail_deliveries SET status = 'cancelled'")
    program = hasty()
    until(lambda: program.logged("working"))
    assert program.logged("invariant violated") == []
    taken = connection.execute("DELETE FROM backend.mail_recipients RETURNING delivery_id, address").fetchall()
    line = until(lambda: program.logged("invariant violated"))[0]
    assert (line["level"], line["invariant"], line["object_id"]) == ("error", "mail_without_a_recipient", one)
    assert line["details"] == "test.note.0"
    connection.execute("INSERT INTO backend.mail_recipients (delivery_id, address) VALUES (%s, %s)", taken[0])
