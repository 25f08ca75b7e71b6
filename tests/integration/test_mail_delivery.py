"""From the outbox to the relay and back: the job program's mail, with real servers on both sides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from app import config as configuration
from tests.postgres import Database
from tests.services import Program, StartProgram, new_email, note_secret, travel, until
from tests.smtp_relay import Authority, FaultyRelay, Relay, Trouble, delivery, enqueue, enqueue_many, worker_environment
from workers.door import Door
from workers.tasks.mail import MailDelivery


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    return database.connect()


@pytest.fixture
def relay() -> Iterator[FaultyRelay]:
    with FaultyRelay() as relay:
        yield relay


Deliver = Callable[..., None]


@pytest.fixture
def deliver(database: Database, relay: FaultyRelay) -> Deliver:
    """Do in this process what a job or a sweep does: `deliver()` sends all that is due."""

    def run(script: Callable[[MailDelivery], Awaitable[object]] = MailDelivery.run, **variables: str) -> None:
        config = configuration.load(worker_environment(database, relay.port, **variables))

        async def session() -> None:
            door = Door(config)
            await door.open()
            try:
                await script(MailDelivery(config, door))
            finally:
                await door.close()

        asyncio.run(session())

    return run


@pytest.fixture
def worker(start_program: StartProgram, database: Database, relay: FaultyRelay) -> Callable[..., Program]:
    """Start the job program with this relay, and wait until it works."""

    def start(**environment: str) -> Program:
        variables = {"BACKEND_SMTP_PORT": str(relay.port), "BACKEND_LOGGING_LEVEL": "debug"} | environment
        program = start_program("worker", database, **variables)
        until(lambda: program.logged("working") or program.process.poll() is not None)
        assert program.process.poll() is None, program.errors()
        return program

    return start


def fields(caplog: pytest.LogCaptureFixture, message: str) -> list[dict[str, Any]]:
    return [vars(record) for record in caplog.records if record.message == message]


# -- the whole way


def test_a_code_is_mailed_and_forgotten(
    database: Database, connection: psycopg.Connection[Any], worker: Callable[..., Program], relay: FaultyRelay
) -> None:
    program = worker(BACKEND_MAIL_WORKER_INTERVAL="1h")  # so that the job alone can have done it
    email, code = new_email(), "804713"
    note_secret(code)
    with database.cluster.connect(database.name, "galaxy_api") as api:
        api.execute("SELECT api.email_code_send(jsonb_build_object('email', %s::text), %s, sha256('x'), NULL)", [email, code])
    [received] = relay.wait()
    assert (received.sender, received.recipients) == ("noreply@galaxy.example", (email,))
    assert code in received.body()
    assert code in received.body("html")
    assert code not in str(received.message["Subject"])
    row = connection.execute("SELECT delivery_id FROM backend.mail_deliveries").fetchone()
    assert row is not None
    assert received.message_id == f"<{row[0]}@galaxy.example>"

    [line] = until(lambda: program.logged("mail sent"))
    assert (line["level"], line["delivery_id"], line["outcome"], line["status"]) == ("info", str(row[0]), "sent", "sent")
    state = delivery(connection, str(row[0]))
    assert (state.status, state.body, state.outcomes) == ("sent", None, ["sent"])
    until(lambda: program.logged("job done"))
    assert program.stop() == 0
    assert program.errors() == ""
    everything = "\n".join(program.raw_lines())
    assert code not in everything
    assert "@" not in everything


def test_a_lost_wake_up_is_made_good_by_the_sweep(
    connection: psycopg.Connection[Any], worker: Callable[..., Program], relay: FaultyRelay
) -> None:
    worker(BACKEND_MAIL_WORKER_INTERVAL="100ms")
    with connection.transaction():
        enqueue(connection)
        connection.execute("UPDATE procrastinate.procrastinate_jobs SET queue_name = 'nobody'")
    relay.wait()


def test_mail_that_waited_for_a_worker_goes_out_when_one_comes(
    connection: psycopg.Connection[Any], worker: Callable[..., Program], relay: FaultyRelay
) -> None:
    enqueue(connection)
    worker(BACKEND_MAIL_WORKER_INTERVAL="1h")
    relay.wait()


def test_mail_goes_by_a_trusted_relay_with_a_login(
    connection: psycopg.Connection[Any], worker: Callable[..., Program], tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    password = "open-sesame-and-barley"
    note_secret(password)
    with Relay(tls=authority.server(), login=("galaxy", password)) as relay:
        program = worker(
            SSL_CERT_FILE=str(authority.file),
            BACKEND_SMTP_PORT=str(relay.port),
            BACKEND_SMTP_TLS_MODE="starttls",
            BACKEND_SMTP_USERNAME="galaxy",
            BACKEND_SMTP_PASSWORD=password,
        )
        enqueue(connection)
        [received] = relay.wait()
        until(lambda: program.logged("mail sent"))
    assert (received.is_encrypted, received.login) == (True, "galaxy")
    assert program.stop() == 0
    assert password not in "\n".join(program.raw_lines())


def test_mail_never_goes_in_clear_to_a_relay_that_is_not_trusted(
    connection: psycopg.Connection[Any], worker: Callable[..., Program], tmp_path: Path
) -> None:
    with Relay(tls=Authority(tmp_path).server()) as relay:
        program = worker(BACKEND_SMTP_PORT=str(relay.port), BACKEND_SMTP_TLS_MODE="starttls")
        one = enqueue(connection)
        [line] = until(lambda: program.logged("mail not sent"))
        assert (line["outcome"], line["error"]) == ("transient", "SSLCertVerificationError")
    assert relay.received == []
    assert delivery(connection, one).status == "retrying"


# -- what becomes of a mail


def test_every_answer_of_the_relay_has_its_place_in_the_outbox(
    connection: psycopg.Connection[Any], relay: FaultyRelay, deliver: Deliver
) -> None:
    everything = [enqueue(connection, str(n)) for n in range(8)]
    relay.fail("MAIL", "550 5.7.1 not you")
    relay.fail("RCPT", "450 4.2.1 later", "550 5.1.1 unknown")
    relay.fail("DATA", "451 4.3.0 later", "554 5.7.1 no")
    relay.fail("CONTENT", "452 4.3.1 full", "554 5.6.0 not this")
    deliver()
    states = [delivery(connection, one) for one in everything]
    assert [(s.status, s.attempts[0].outcome, s.attempts[0].error) for s in states] == [
        ("retrying", "transient", "550 5.7.1 not you"),
        ("retrying", "transient", "450 4.2.1 later"),
        ("dead_lettered", "permanent", "550 5.1.1 unknown"),
        ("retrying", "transient", "451 4.3.0 later"),
        ("dead_lettered", "permanent", "554 5.7.1 no"),
        ("retrying", "transient", "452 4.3.1 full"),
        ("dead_lettered", "permanent", "554 5.6.0 not this"),
        ("sent", "sent", None),
    ]
    assert [s.dead_letter for s in states if s.dead_letter] == ["550 5.1.1 unknown", "554 5.7.1 no", "554 5.6.0 not this"]
    assert not any(s.is_leased for s in states)
    travel(connection, "5 seconds")
    deliver()
    assert [delivery(connection, one).status for one in everything].count("sent") == 5
    assert len(relay.received) == len({r.message_id for r in relay.received}) == 5


@pytest.mark.parametrize("trouble", [Trouble.CLOSE, Trouble.RESET])
def test_a_mail_of_which_nobody_knows_is_sent_again_as_the_same_one(
    connection: psycopg.Connection[Any], relay: FaultyRelay, deliver: Deliver, trouble: Trouble
) -> None:
    one = enqueue(connection)
    relay.fail("CONTENT", trouble)
    deliver()
    assert delivery(connection, one).outcomes == ["outcome_unknown"]
    assert relay.received == []
    relay.fail("TAKEN", trouble)
    travel(connection, "5 seconds")
    deliver()
    travel(connection, "20 seconds")
    deliver()
    assert delivery(connection, one).status == "sent"
    assert delivery(connection, one).outcomes == ["outcome_unknown", "outcome_unknown", "sent"]
    assert [r.message_id for r in relay.received] == [f"<{one}@galaxy.example>"] * 2


def test_a_relay_that_is_away_and_comes_back(
    connection: psycopg.Connection[Any], relay: FaultyRelay, worker: Callable[..., Program]
) -> None:
    relay.stop()
    program = worker(BACKEND_MAIL_WORKER_INTERVAL="100ms")
    one = enqueue(connection)
    until(lambda: program.logged("mail not sent"))
    assert delivery(connection, one).status == "retrying"
    relay.start()
    travel(connection, "5 seconds")
    relay.wait()
    until(lambda: delivery(connection, one).status == "sent")
    assert delivery(connection, one).outcomes == ["transient", "sent"]


def test_retries_wait_longer_each_time_until_the_mail_is_a_dead_letter(
    connection: psycopg.Connection[Any], relay: FaultyRelay, deliver: Deliver, caplog: pytest.LogCaptureFixture
) -> None:
    one = enqueue(connection)
    relay.always("RCPT", "450 4.2.1 <ada@example.org>: later")
    for attempt in range(1, 9):
        deliver()
        assert relay.reached["RCPT"] == attempt
        state = delivery(connection, one)
        assert state.outcomes == ["transient"] * attempt
        if attempt < 8:
            longest = min(3600, 5 * 4 ** (attempt - 1))
            assert state.status == "retrying"
            assert longest / 2 <= state.due_in + 2
            assert state.due_in <= longest
            deliver()  # too early
            assert relay.reached["RCPT"] == attempt
            assert fields(caplog, "mail dead-lettered") == []
            travel(connection, f"{longest} seconds")
    assert state.status == "dead_lettered"
    [line] = fields(caplog, "mail dead-lettered")
    assert (line["levelno"], str(line["delivery_id"]), line["attempt_no"]) == (logging.ERROR, one, 8)
    travel(connection, "30 days")
    relay.always("RCPT", None)
    deliver()
    assert relay.received == []


def test_a_dead_letter_is_a_line_for_the_operator_without_the_address(
    connection: psycopg.Connection[Any], relay: FaultyRelay, worker: Callable[..., Program]
) -> None:
    program = worker()
    relay.fail("RCPT", b"550 5.1.1 <ada@example.org>: Recipient address rejected: User unknown\r\n")
    one = enqueue(connection)
    [line] = until(lambda: program.logged("mail dead-lettered"))
    assert (line["level"], line["delivery_id"], line["template_id"]) == ("error", one, "test.note.0")
    assert line["error"].startswith("550 5.1.1")
    assert "ada@example.org" not in "\n".join(program.raw_lines())
    assert "ada@example.org" not in str(delivery(connection, one))


def test_no_words_of_a_relay_can_end_the_program(
    connection: psycopg.Connection[Any], relay: FaultyRelay, worker: Callable[..., Program]
) -> None:
    """Postgres refuses a NUL and half a character, and neither may cost the report."""
    program = worker()
    relay.fail("RCPT", "550 Empfänger unbekannt\r\n".encode("latin-1"), b"550 \x00\r\n", b"450 \xff\xfe\x00\r\n")
    everything = [enqueue(connection, str(n)) for n in range(4)]
    relay.wait()
    until(lambda: delivery(connection, everything[-1]).status == "sent")
    statuses = [delivery(connection, one).status for one in everything]
    assert statuses == ["dead_lettered", "dead_lettered", "retrying", "sent"]
    assert program.stop() == 0
    assert program.errors() == ""


@pytest.mark.parametrize("trouble", [Trouble.STALL, Trouble.TRICKLE])
def test_a_relay_that_hangs_holds_up_a_mail_and_not_the_others(
    connection: psycopg.Connection[Any],
    relay: FaultyRelay,
    deliver: Deliver,
    trouble: Trouble,
) -> None:
    hanging, lost, fine = (enqueue(connection, str(n)) for n in range(3))
    relay.fail("RCPT", trouble)
    relay.fail("TAKEN", trouble)
    deliver(BACKEND_SMTP_TIMEOUT="300ms", BACKEND_SMTP_CONTENT_TIMEOUT="300ms")
    assert [delivery(connection, one).outcomes for one in (hanging, lost, fine)] == [["transient"], ["outcome_unknown"], ["sent"]]


def test_a_code_is_not_sent_late(
    database: Database, connection: psycopg.Connection[Any], relay: FaultyRelay, deliver: Deliver
) -> None:
    with database.cluster.connect(database.name, "galaxy_api") as api:
        api.execute("""SELECT api.email_code_send('{"email": "ada@example.org"}', '123456', sha256('x'), NULL)""")
    relay.fail("RCPT", "450 4.2.1 later")
    deliver()
    travel(connection, "10 minutes")
    deliver()
    assert relay.received == []
    assert connection.execute("SELECT status FROM backend.mail_deliveries").fetchall() == [("expired",)]
    assert connection.execute("SELECT body_text, body_html FROM backend.mail_payloads").fetchall() == [(None, None)]


def test_a_mail_that_took_every_worker_with_it_is_given_up(
    connection: psycopg.Connection[Any],
    database: Database,
    relay: FaultyRelay,
    deliver: Deliver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An attempt of which nobody ever heard counts: else such a mail would go round for ever, and the workers with it."""
    one = enqueue(connection)
    with database.cluster.connect(database.name, "galaxy_worker") as dying:
        for _ in range(8):
            assert len(dying.execute("SELECT * FROM worker.mail_claim(1, 30, 0)").fetchall()) == 1
            travel(connection, "30 seconds")
    deliver()
    state = delivery(connection, one)
    assert relay.received == []
    assert (state.status, state.outcomes) == ("dead_lettered", ["outcome_unknown"] * 8)
    [line] = fields(caplog, "mail dead-lettered")
    assert (line["levelno"], str(line["delivery_id"])) == (logging.ERROR, one)


# -- runs


def test_a_wake_up_while_a_run_says_goodbye_is_not_lost(
    connection: psycopg.Connection[Any], relay: FaultyRelay, deliver: Deliver
) -> None:
    """A job ends at once when a run goes on already; then that run must see the mail that the job was for."""

    async def script(mail: MailDelivery) -> None:
        relay.fail("QUIT", Trouble.STALL)
        run = asyncio.create_task(mail.run())
        await asyncio.to_thread(relay.wait_for, "QUIT")
        enqueue(connection, "2")
        await mail.run()
        relay.release()
        await run

    enqueue(connection, "1")
    deliver(script)
    assert len(relay.received) == 2


def test_two_runs_at_once_are_one(connection: psycopg.Connection[Any], relay: FaultyRelay, deliver: Deliver) -> None:
    async def script(mail: MailDelivery) -> None:
        await asyncio.gather(*(mail.run() for _ in range(5)))

    enqueue_many(connection, 20)
    deliver(script)
    assert relay.connections == 1
    assert len({r.message_id for r in relay.received}) == len(relay.received) == 20


def test_after_a_stop_no_run_begins(connection: psycopg.Connection[Any], relay: FaultyRelay, deliver: Deliver) -> None:
    async def script(mail: MailDelivery) -> None:
        mail.stop()
        await mail.run()
        await mail.idle()

    one = enqueue(connection)
    deliver(script)
    assert delivery(connection, one).attempts == []


def test_a_run_with_nothing_to_send_does_not_knock(relay: FaultyRelay, deliver: Deliver) -> None:
    deliver()
    assert relay.connections == 0


# -- where it comes from


def test_each_line_about_a_mail_has_the_request_that_caused_it(
    connection: psycopg.Connection[Any], worker: Callable[..., Program], relay: FaultyRelay
) -> None:
    """One run sends the mail of many requests, and a sweep any of it."""
    caused = {
        enqueue(
            connection,
            f"{number}",
            request_id=f"request-{number}",
            traceparent=f"00-{number:032x}-{number:016x}-01",
        ): number
        for number in range(1, 4)
    }
    program = worker()
    relay.wait(3)
    lines = until(lambda: len(found := program.logged("mail sent")) == 3 and found)
    assert lines
    assert {line["delivery_id"]: (line["request_id"], line["otel_trace_id"]) for line in lines} == {
        one: (f"request-{number}", f"{number:032x}") for one, number in caused.items()
    }


def test_a_job_has_the_request_that_deferred_it(
    connection: psycopg.Connection[Any], worker: Callable[..., Program], relay: FaultyRelay
) -> None:
    enqueue(connection, request_id="request-1", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
    program = worker()
    [line] = until(lambda: program.logged("job done"))
    assert (line["request_id"], line["task"], line["outcome"]) == ("request-1", "mail_deliver", "succeeded")
    assert line["otel_trace_id"] == "0af7651916cd43dd8448eb211c80319c"
