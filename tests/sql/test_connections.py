"""What pgTAP cannot show, since it needs commits, several connections or NOTIFY."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic, sleep
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.postgres import Database

KEY = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="
AT_ONCE = 12


def all_at_once(database: Database, login: str, call: Callable[[psycopg.Connection[Any], int], Any]) -> list[Any]:
    """Run `call(connection, number)` on so many connections at the same moment and return the answers."""
    start = threading.Barrier(AT_ONCE)
    connections = [database.connect(login) for _ in range(AT_ONCE)]

    def run(number: int) -> Any:
        start.wait()
        return call(connections[number], number)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(run, range(AT_ONCE)))


def one(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def send_code(connection: psycopg.Connection[Any], email: str, code: str = "123456") -> UUID:
    return UUID(
        one(
            connection,
            "SELECT api.email_code_send(%s, %s, sha256(%s), NULL)::json ->> 'challenge_id'",
            Jsonb({"email": email}),
            code,
            code.encode(),
        )
    )


def confirm(connection: psycopg.Connection[Any], challenge: UUID, code: str = "123456") -> int:
    body = {"challenge_id": str(challenge), "code": code, "client_public_key": KEY, "time_zone": "UTC"}
    status: int = one(
        connection, "SELECT (api.email_code_confirm(%s, sha256(%s), NULL, NULL)).status", Jsonb(body), code.encode()
    )
    return status


def wait_until_blocked(connection: psycopg.Connection[Any], pid: int, limit: float = 10) -> None:
    """Wait until the backend `pid` waits for a lock."""
    until = monotonic() + limit
    while not one(connection, "SELECT cardinality(pg_blocking_pids(%s)) > 0", pid):
        assert monotonic() < until, "nobody waits"
        sleep(0.01)


# Signing in


def test_the_throttle_counts_those_who_ask_at_once(database: Database) -> None:
    all_at_once(database, "galaxy_api", lambda connection, _: send_code(connection, "ann@example.org"))
    admin = database.connect()
    assert one(admin, "SELECT count(*), sum(requests) FROM auth_challenges") == (3, AT_ONCE)
    assert one(admin, "SELECT count(*) FROM mail_deliveries") == 3


def test_of_wrong_codes_at_once_five_are_compared(database: Database) -> None:
    challenge = send_code(database.connect("galaxy_api"), "ann@example.org")
    statuses = all_at_once(database, "galaxy_api", lambda connection, _: confirm(connection, challenge, "000000"))
    assert set(statuses) == {400}
    assert one(database.connect(), "SELECT attempts FROM auth_challenges") == 5
    assert confirm(database.connect("galaxy_api"), challenge) == 400


def test_of_right_codes_at_once_one_opens_a_session(database: Database) -> None:
    challenge = send_code(database.connect("galaxy_api"), "ann@example.org")
    statuses = all_at_once(database, "galaxy_api", lambda connection, _: confirm(connection, challenge))
    assert sorted(statuses) == [200] + [400] * (AT_ONCE - 1)
    assert one(database.connect(), "SELECT count(*) FROM device_sessions") == 1


def test_first_sign_ins_at_once_make_one_account(database: Database) -> None:
    api = database.connect("galaxy_api")
    challenges = [send_code(api, "ann@example.org") for _ in range(3)]
    statuses = all_at_once(database, "galaxy_api", lambda connection, number: confirm(connection, challenges[number % 3]))
    assert statuses.count(200) == 3
    assert one(database.connect(), "SELECT count(DISTINCT user_id), count(*) FROM device_sessions") == (1, 3)


SANCTION = """
WITH r AS (
    INSERT INTO sanction_records (user_id, code, action, reason, actor) VALUES (%s, '{}', 'apply', 'x', 'root') RETURNING *)
INSERT INTO sanction_active (user_id, code, sanction_record_id, reason) SELECT user_id, code, sanction_record_id, reason FROM r
"""


@pytest.mark.parametrize(
    "statements,expected",
    [
        pytest.param(
            [
                "UPDATE accounts SET deleted_at = backend.now(), email = NULL, display_name = 'deleted' WHERE user_id = %s",
                "DELETE FROM identities WHERE user_id = %s",
                "SELECT session_revoke_all(%s, 'account_deleted')",
            ],
            (200, 2),
            id="is deleted",
        ),
        pytest.param(
            [
                "UPDATE accounts SET permanent_block = true WHERE user_id = %s",
                SANCTION.format("permanent_block"),
                "SELECT session_revoke_all(%s, 'account_blocked')",
            ],
            (403, 1),
            id="is blocked for good",
        ),
        pytest.param(
            [SANCTION.format("login_block"), "SELECT session_revoke_all(%s, 'account_blocked')"], (403, 1), id="may not sign in"
        ),
    ],
)
def test_no_session_is_opened_for_somebody_who_meanwhile(
    statements: list[str], expected: tuple[int, int], database: Database
) -> None:
    """Whoever confirms waits for what goes on with the account, and then sees it. A deleted address is a new person's."""
    api, admin, watcher = database.connect("galaxy_api"), database.connect(autocommit=False), database.connect()
    assert confirm(api, send_code(api, "ann@example.org")) == 200
    ann = one(watcher, "SELECT user_id FROM accounts")
    challenge = send_code(api, "ann@example.org")

    admin.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", [ann])
    for statement in statements:
        admin.execute(statement, [ann])
    with ThreadPoolExecutor(1) as pool:
        confirmed: Future[int] = pool.submit(confirm, api, challenge)
        wait_until_blocked(watcher, api.info.backend_pid)
        admin.commit()
        status = confirmed.result(10)
    assert one(watcher, "SELECT count(*) FROM device_sessions WHERE user_id = %s AND status = 'active'", ann) == 0
    assert (status, one(watcher, "SELECT count(*) FROM accounts")) == expected


# Sessions


MANY_SESSIONS = """
    WITH person AS (SELECT user_id FROM account_create('email', 'ann@example.org', 'ann@example.org', 'en', 'UTC', NULL))
    INSERT INTO device_sessions (user_id, kind, client_public_key)
    SELECT p.user_id, 'key', sha256(n::text::bytea) FROM person AS p, generate_series(1, %s) AS n
"""


def test_that_sessions_were_seen_is_written_beside_them_and_into_no_index(database: Database) -> None:
    connection = database.connect()
    connection.execute(MANY_SESSIONS, [5000])
    connection.execute("VACUUM device_sessions")
    with connection.transaction():
        seen = (
            "SELECT api.sessions_seen(array_agg(device_session_id), array_agg(0)) FROM device_sessions TABLESAMPLE BERNOULLI (5)"
        )
        count = one(connection, f"{seen} REPEATABLE (1)")
        in_place = one(connection, "SELECT pg_stat_get_xact_tuples_hot_updated('device_sessions'::regclass)")
    assert in_place == count > 100


def test_a_session_that_somebody_is_changing_is_not_waited_for(database: Database) -> None:
    connection, other = database.connect(), database.connect(autocommit=False)
    connection.execute(MANY_SESSIONS, [3])
    sessions = [row[0] for row in connection.execute("SELECT device_session_id FROM device_sessions ORDER BY 1")]
    one(other, "SELECT api.session_revoke(%s, '{}')", sessions[1])
    seen = "SELECT api.sessions_seen(%s, '{0, 0, 0}')"
    connection.execute("SET statement_timeout = '5s'")
    assert one(connection, seen, sessions) == 2
    other.commit()
    rows = connection.execute(
        "SELECT status, last_seen_at IS NOT NULL FROM device_sessions ORDER BY device_session_id"
    ).fetchall()
    assert rows == [("active", True), ("revoked", False), ("active", True)]


# Mail


def test_one_key_is_one_mail(database: Database) -> None:
    def enqueue(connection: psycopg.Connection[Any], number: int) -> Any:
        return one(
            connection,
            "SELECT mail_enqueue('auth.login_code', 'key', ARRAY['ann@example.org'], %s)",
            Jsonb({"code": number, "minutes": 1}),
        )

    assert len(set(all_at_once(database, "postgres", enqueue))) == 1
    admin = database.connect()
    assert one(admin, "SELECT (SELECT count(*) FROM mail_payloads), (SELECT count(*) FROM mail_recipients)") == (1, 1)
    assert one(admin, "SELECT count(*) FROM procrastinate.procrastinate_jobs") == 1


def test_every_mail_is_claimed_by_one(database: Database) -> None:
    database.connect().execute(
        "SELECT mail_enqueue('auth.login_code', i::text, ARRAY['a@example.org'], '{\"code\": 1, \"minutes\": 1}')"
        " FROM generate_series(1, 60) AS i"
    )

    def claim(connection: psycopg.Connection[Any], _: int) -> list[UUID]:
        found: list[UUID] = []
        while batch := connection.execute("SELECT delivery_id FROM worker.mail_claim(3, 60, 0)").fetchall():
            found.extend(row[0] for row in batch)
        return found

    claimed = [mail for mails in all_at_once(database, "galaxy_worker", claim) for mail in mails]
    assert len(claimed) == len(set(claimed)) == 60


# Jobs


def test_a_job_that_a_living_worker_has_is_not_rescued_from_it(database: Database) -> None:
    """Of two rescuers, the second may have read who has a job before the first gave it back and somebody else took it."""
    admin, rescuer = database.connect(), database.connect("galaxy_worker")
    dead = one(
        admin, "INSERT INTO procrastinate.procrastinate_workers (last_heartbeat) VALUES (now() - interval '1 h') RETURNING id"
    )
    alive = one(admin, "INSERT INTO procrastinate.procrastinate_workers DEFAULT VALUES RETURNING id")
    # More than a loop reads at once, so that the last ones are not locked yet when the first is given back.
    jobs = admin.execute(
        "INSERT INTO procrastinate.procrastinate_jobs (queue_name, task_name, status, worker_id)"
        " SELECT 'test', 'test', 'doing', %s FROM generate_series(1, 100) RETURNING id",
        [dead],
    ).fetchall()
    last = jobs[-1][0]
    blocker = database.connect(autocommit=False)
    blocker.execute("LOCK TABLE procrastinate.procrastinate_events IN ACCESS EXCLUSIVE MODE")
    with ThreadPoolExecutor(1) as pool:
        rescued = pool.submit(lambda: rescuer.execute("SELECT job_id FROM worker.jobs_rescue(60)").fetchall())
        wait_until_blocked(admin, rescuer.info.backend_pid)
        admin.execute("UPDATE procrastinate.procrastinate_jobs SET worker_id = %s WHERE id = %s", [alive, last])
        blocker.commit()
        found = {row[0] for row in rescued.result(10)}
    assert len(found) == 99
    assert one(admin, "SELECT status::text FROM procrastinate.procrastinate_jobs WHERE id = %s", last) == "doing"


# Push


def notified(listener: psycopg.Connection[Any]) -> list[str]:
    return [f"{notice.channel} {notice.payload}".strip() for notice in listener.notifies(timeout=0.2)]


@pytest.mark.parametrize(
    "event",
    [
        "SELECT push_session_invalidation(gen_random_uuid(), NULL, 'logout')",
        "SELECT push_client_event(gen_random_uuid(), NULL, 'game.started', '{}', gen_random_uuid(), 'key')",
    ],
    ids=["invalidation", "client event"],
)
def test_writers_notify_only_while_the_sequencer_sleeps(event: str, database: Database) -> None:
    writer, streamer, listener = database.connect(), database.connect("galaxy_push"), database.connect("galaxy_push")
    listener.execute("LISTEN galaxy_push_pending")

    writer.execute(event)
    assert notified(listener) == ["galaxy_push_pending"]
    assert one(streamer, "SELECT push.sequencer_wake()") is True
    assert one(listener, "SELECT push.sequencer_wake()") is False, "one sequencer is awake"
    writer.execute(event)
    assert notified(listener) == []
    streamer.execute("SELECT push.sequencer_sleep()")
    with writer.transaction(force_rollback=True):
        writer.execute(event)
    assert notified(listener) == [], "what is rolled back wakes nobody"
    writer.execute(event)
    assert notified(listener) == ["galaxy_push_pending"]


def test_who_defers_jobs_notifies_only_while_no_worker_is_awake(database: Database) -> None:
    writer, worker, listener = database.connect(), database.connect("galaxy_worker"), database.connect("galaxy_worker")
    listener.execute("LISTEN galaxy_queue_pending")
    listener.execute('LISTEN "procrastinate_queue_v1#mail"')
    listener.execute("LISTEN procrastinate_any_queue_v1")
    defer = "SELECT job_defer('mail', 'mail_deliver') FROM generate_series(1, 3)"
    told = 'procrastinate_queue_v1#mail {"type": "job_inserted"}'

    writer.execute(defer)
    assert notified(listener) == ["galaxy_queue_pending"], "once, however many"
    assert one(worker, "SELECT worker.queue_wake()") is True
    assert one(listener, "SELECT worker.queue_wake()") is False, "one worker is awake"
    writer.execute(defer)
    assert notified(listener) == []
    worker.execute("SELECT worker.queue_announce('{}')")
    assert notified(listener) == [told], "Procrastinate's workers are told in its own words"
    seen = one(worker, "SELECT worker.queue_announce('{}')")
    assert notified(listener) == [told]
    worker.execute("SELECT worker.queue_announce(%s)", [Jsonb(seen)])
    assert notified(listener) == [], "nothing new is no news"
    worker.execute("SELECT worker.queue_sleep()")
    with writer.transaction(force_rollback=True):
        writer.execute(defer)
    assert notified(listener) == [], "what is rolled back wakes nobody"
    writer.execute(defer)
    assert notified(listener) == ["galaxy_queue_pending"]


def test_streamers_are_notified_of_what_has_its_place(database: Database) -> None:
    writer, streamer, listener = database.connect(), database.connect("galaxy_push"), database.connect("galaxy_push")
    listener.execute("LISTEN galaxy_push_events")
    listener.execute("LISTEN galaxy_push_subscribers")
    streamer.execute("SELECT FROM push.events_sequence(10)")
    assert notified(listener) == [], "nothing is no news"
    writer.execute("SELECT push_session_invalidation(gen_random_uuid(), NULL, 'logout')")
    streamer.execute("SELECT FROM push.events_sequence(10)")
    assert notified(listener) == ["galaxy_push_events"]
    streamer.execute("SELECT push.subscriber_claim('gateway-1', gen_random_uuid(), gen_random_uuid())")
    assert notified(listener) == ["galaxy_push_subscribers"]


def test_one_sequencer_moves_and_what_is_not_committed_holds_up_nobody(database: Database) -> None:
    open_writer, writer = database.connect(autocommit=False), database.connect()
    first, second = database.connect("galaxy_push", autocommit=False), database.connect("galaxy_push")
    invalidate = "SELECT push_session_invalidation(gen_random_uuid(), NULL, %s)"
    open_writer.execute(invalidate, ["revoked_by_user"])
    writer.execute(invalidate, ["logout"])
    assert one(first, "SELECT count(*) FROM push.events_sequence(10)") == 1
    assert one(second, "SELECT count(*) FROM push.events_sequence(10)") == 0, "while one moves events no other does"
    assert second.execute("SELECT FROM push.events_read(0, 10)").fetchall() == []
    first.commit()
    open_writer.commit()
    assert one(second, "SELECT count(*) FROM push.events_sequence(10)") == 1
    assert second.execute("SELECT position, reason FROM push.events_read(0, 10)").fetchall() == [
        (1, "logout"),
        (2, "revoked_by_user"),
    ]


def test_what_was_moved_is_not_looked_at_again_however_long_a_transaction_is_open(database: Database) -> None:
    writer, held = database.connect(), database.connect(autocommit=False)
    sequencer = database.connect("galaxy_push")
    emit = "SELECT count(push_session_invalidation(gen_random_uuid(), NULL, n::text)) FROM generate_series(1, %s) AS n"
    held.execute(emit, [1])
    indexes = one(writer, "SELECT array_agg(indexrelid) FROM pg_index WHERE indrelid = 'push_pending'::regclass")
    for _ in range(3):
        writer.execute(emit, [1000])
        assert one(sequencer, "SELECT count(*) FROM push.events_sequence(1000)") == 1000
        assert one(sequencer, "SELECT count(*) FROM push.events_sequence(1000)") == 0
    writer.execute(emit, [1])
    assert one(sequencer, "SELECT count(*) FROM push.events_sequence(1000)") == 1
    looked_at = "SELECT sum(pg_stat_get_xact_tuples_returned(i)) FROM unnest(%s::oid[]) AS i"
    with sequencer.transaction():  # within which what was counted stays
        before = one(sequencer, looked_at, indexes)
        assert one(sequencer, "SELECT count(*) FROM push.events_sequence(1000)") == 0
        assert one(sequencer, looked_at, indexes) - before < 100
    held.commit()
    assert one(sequencer, "SELECT count(*) FROM push.events_sequence(1000)") == 1
    assert one(writer, "SELECT count(*) FROM push_pending") == 0


def test_what_is_pending_is_found_by_its_number_whatever_statistics_say(database: Database) -> None:
    writer, held = database.connect(), database.connect(autocommit=False)
    sequencer = database.connect("galaxy_push")
    emit = "SELECT count(push_session_invalidation(gen_random_uuid(), NULL, n::text)) FROM generate_series(1, %s) AS n"
    indexes = one(writer, "SELECT array_agg(indexrelid) FROM pg_index WHERE indrelid = 'push_pending'::regclass")
    fetched = "SELECT sum(pg_stat_get_xact_blocks_fetched(i)) FROM unnest(%s::oid[]) AS i"
    whole, table = "SELECT pg_stat_get_xact_numscans(%s)", one(writer, "SELECT 'push_pending'::regclass::oid")

    def sequence(count: int) -> float:
        """Move so many events, without reading all of the table; return the index blocks that were read for each."""
        writer.execute(emit, [count])
        with sequencer.transaction():  # within which what was counted stays
            before = one(sequencer, fetched, indexes)
            assert one(sequencer, "SELECT count(*) FROM push.events_sequence(50000)") == count
            assert one(sequencer, whole, table) == 0
            return float(one(sequencer, fetched, indexes) - before) / count

    sequence(50_000)
    # As autovacuum does where the sequencer keeps up, which then finds nothing: the planner takes any way for short.
    writer.execute("VACUUM (ANALYZE) push_pending")
    sequencer.execute("SELECT FROM push.events_sequence(1)")
    held.execute(emit, [1])  # so that what is moved stays in the indexes
    sequence(5000)
    assert sequence(100) < 5


def test_a_session_that_others_have_overtaken_learns_what_they_have_moved(database: Database) -> None:
    writer = database.connect()
    first, second = database.connect("galaxy_push"), database.connect("galaxy_push")
    emit = "SELECT count(push_session_invalidation(gen_random_uuid(), NULL, n::text)) FROM generate_series(1, 500) AS n"
    known = "SELECT (current_setting('backend.push_known')::text[])[1]::bigint"
    for sequencer in (first, second):
        writer.execute(emit)
        assert one(sequencer, "SELECT count(*) FROM push.events_sequence(1000)") == 500
    before = one(first, known)
    assert one(first, "SELECT count(*) FROM push.events_sequence(1000)") == 0
    assert one(first, known) >= before + 500


# Administrators


def test_processes_that_start_at_once_make_one_administrator(database: Database) -> None:
    made = all_at_once(
        database,
        "galaxy_api",
        lambda connection, number: one(
            connection, "SELECT api.administrator_bootstrap(%s, %s)", f"root{number}", "$2b$12$" + "x" * 53
        ),
    )
    assert made.count(True) == 1
    assert one(database.connect(), "SELECT count(*) FROM admin_accounts") == 1
