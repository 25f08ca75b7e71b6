"""The push stream, from a committed transaction to a gateway: real streamers, real connections, real signals."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from psycopg.conninfo import conninfo_to_dict

from app import dsn
from dev.push_client import PushClient, ReplacedError, decode_payload
from proto.push.v1 import push_pb2, push_pb2_grpc
from tests.postgres import Database

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "app", "push"]
SERVICE = "galaxy.backend.push.v1.Push"

# What every program is told, though the streamer has no use for it.
ENVIRONMENT = {
    "BACKEND_SMTP_HOST": "localhost",
    "BACKEND_SMTP_FROM": "noreply@example.org",
    "BACKEND_RUNTIME_DRIVER": "process",
    "BACKEND_GAME_STATE_ROOT": "/nonexistent/games",
    "BACKEND_GEOIP_DB_PATH": "/nonexistent/geo.mmdb",
    "BACKEND_OTEL_TRACES_EXPORTER": "none",
    "BACKEND_OTEL_METRICS_EXPORTER": "none",
}


def until(met: Callable[[], Any], timeout: float = 20) -> None:
    deadline = time.monotonic() + timeout
    while not met():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


class Streamer:
    """A streamer process; `lines` is its log."""

    def __init__(self, push_dsn: str, **variables: str) -> None:
        self.lines: list[dict[str, Any]] = []
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BACKEND_")}
        own = {"BACKEND_POSTGRES_DSN": push_dsn, "BACKEND_GRPC_PUSH_LISTEN_ADDR": "127.0.0.1:0", **variables}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            env=inherited | ENVIRONMENT | own,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def logged(self, text: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if text in line["msg"]]

    def wait_for(self, text: str, count: int = 1) -> dict[str, Any]:
        with contextlib.suppress(AssertionError):
            until(lambda: len(self.logged(text)) >= count or self.process.poll() is not None)
        assert len(self.logged(text)) >= count, "\n".join(map(str, self.lines))
        return self.logged(text)[count - 1]

    def ready(self) -> Streamer:
        self.wait_for("serving")
        return self

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.wait_for('listening')['port']}"

    def ended(self, timeout: float = 20) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def terminate(self) -> int:
        self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        self.process.kill()
        self.ended()

    def close(self) -> None:
        """Kill it, if it still runs, and check that it had no trouble that it did not foresee."""
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert not [line for line in self.lines if "exception" in line]
        with self._errors as errors:
            errors.seek(0)
            text = errors.read()
        assert "Traceback" not in text, text
        assert "Warning" not in text, text


class Gateway:
    """A gateway that keeps every event; `error` is what ended it, if anything did."""

    def __init__(self, target: str, name: str = "gateway", cursor: str = "", **options: Any) -> None:
        self.events: list[push_pb2.PushEvent] = []
        self.error: Exception | None = None
        self.gaps_at: list[int] = []  # how many events had come when it was told of each gap
        on_gap = lambda: self.gaps_at.append(len(self.events))  # noqa: E731
        self.client = PushClient(target, name, cursor=cursor, on_gap=on_gap, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Gateway:
        """Subscribe, and return when the stream is open: what is committed from now on will come."""
        self._thread.start()
        until(lambda: self.client.resume or self.error)
        return self

    def _run(self) -> None:
        try:
            self.events.extend(self.client)
        except (ReplacedError, grpc.RpcError) as error:
            self.error = error

    def numbers(self) -> list[int]:
        return [number(event) for event in list(self.events)]

    def cursors(self) -> list[str]:
        return [event.cursor for event in list(self.events)]

    def wait_for(self, numbers: list[int]) -> None:
        """Wait for exactly these events, in this order."""
        until(lambda: len(self.events) >= len(numbers))
        assert self.numbers() == numbers

    def close(self) -> None:
        self.client.close()
        if self._thread.ident is not None:
            self._thread.join(10)


def number(event: push_pb2.PushEvent) -> int:
    told = decode_payload(event.client_event.kind, event.client_event.payload)
    assert told is not None
    return int(told["n"])


def emit(connection: psycopg.Connection[Any], first: int, last: int | None = None, padding: int = 0) -> None:
    """Make an event for each number from `first` to `last`, in one statement."""
    connection.execute(
        """
        SELECT backend.push_client_event(gen_random_uuid(), NULL, 'test',
                   jsonb_build_object('n', n, 'padding', repeat('x', %s)), gen_random_uuid(), 'request')
          FROM generate_series(%s::int, %s::int) AS n
        """,
        [padding, first, first if last is None else last],
    )


def purge(connection: psycopg.Connection[Any], count: int) -> None:
    """Delete the oldest events, as retention does."""
    connection.execute(
        """
        WITH gone AS (
            DELETE FROM backend.push_events WHERE position IN (
                SELECT position FROM backend.push_events ORDER BY position LIMIT %s) RETURNING position
        )
        UPDATE backend.push_epoch SET purged_through = (SELECT max(position) FROM gone)
        """,
        [count],
    )


def value(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def settled(connection: psycopg.Connection[Any]) -> None:
    """Wait until everything committed has its place in the stream."""
    until(lambda: value(connection, "SELECT count(*) = 0 FROM backend.push_pending"))


Start = Callable[..., Streamer]
Subscribe = Callable[..., Gateway]


@pytest.fixture
def start(database: Database) -> Iterator[Start]:
    """Start streamers on the test's database; `dsn` and variables may be given."""
    started: list[Streamer] = []

    def start(dsn: str | None = None, **variables: str) -> Streamer:
        started.append(Streamer(dsn or database.dsn("galaxy_push"), **variables))
        return started[-1]

    yield start
    for streamer in started:
        streamer.close()


@pytest.fixture
def streamer(start: Start) -> Streamer:
    return start().ready()


@pytest.fixture
def gateway() -> Iterator[Subscribe]:
    """Subscribe gateways: `gateway(streamer.target, name, cursor)`."""
    made: list[Gateway] = []

    def subscribe(target: str, name: str = "gateway", cursor: str = "", **options: Any) -> Gateway:
        made.append(Gateway(target, name, cursor, **options))
        return made[-1].start()

    yield subscribe
    for one in made:
        one.close()


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    return database.connect()


@contextlib.contextmanager
def raw_call(
    target: str, name: str = "raw", cursor: str = "", token: str | None = None, credentials: Any = None
) -> Iterator[Any]:
    """SubscribePush without any of the client's manners."""
    metadata = (("authorization", token),) if token is not None else ()
    channel = grpc.secure_channel(target, credentials) if credentials is not None else grpc.insecure_channel(target)
    with channel:
        stub = push_pb2_grpc.PushStub(channel)  # type: ignore[no-untyped-call]
        request = push_pb2.GatewaySubscribeRequest(gateway_client_id=name, cursor=cursor)
        yield stub.SubscribePush(request, metadata=metadata, timeout=60)


def refusal(target: str, **options: Any) -> grpc.StatusCode:
    with raw_call(target, **options) as call:
        assert dict(call.initial_metadata()).get("galaxy-resume") is None
        return call.code()  # type: ignore[no-any-return]


# What an event is


@pytest.mark.parametrize("batched", [True, False])
def test_an_event_arrives_with_all_it_has(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], batched: bool
) -> None:
    one = gateway(streamer.target, batched=batched)
    with connection.transaction():
        connection.execute("SET LOCAL backend.traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'")
        connection.execute("SET LOCAL backend.request_id = 'the-request'")
        connection.execute(
            """
            SELECT backend.push_client_event('00000000-0000-7000-8000-000000000001', NULL, 'turn.ready',
                       '{"n": 1}', '00000000-0000-7000-8000-00000000000e', 'the-key'),
                   backend.push_session_invalidation('00000000-0000-7000-8000-000000000001',
                       '00000000-0000-7000-8000-00000000000d', 'revoked')
            """
        )
    until(lambda: len(one.events) == 2)
    event, invalidation = one.events
    assert event.client_event == push_pb2.ClientEvent(
        user_id="00000000-0000-7000-8000-000000000001",
        kind="turn.ready",
        payload=b'{"n": 1}',
        event_id="00000000-0000-7000-8000-00000000000e",
        request_id="the-key",
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )
    assert invalidation.session_invalidation == push_pb2.SessionInvalidation(
        user_id="00000000-0000-7000-8000-000000000001",
        device_session_id="00000000-0000-7000-8000-00000000000d",
        reason="revoked",
    )
    assert event.cursor.encode() < invalidation.cursor.encode()


def test_every_kind_of_notification_arrives_as_it_was_told(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    user_id = value(connection, "SELECT user_id FROM backend.account_create('email', 'a@b.org', 'a@b.org', 'en', 'UTC', NULL)")
    examples = {
        "uuid": "0198c0de-0000-7000-8000-000000000001",
        "uuid?": "0198c0de-0000-7000-8000-000000000001",
        "text": "👩‍🚀 שלום " * 100,
        "time": "2026-01-31T12:00:00.5Z",
        "integer": 999_999_999,
    }
    told = {
        kind: {name: examples[field_type] for name, field_type in fields.items()}
        for kind, fields in connection.execute(
            "SELECT kind, fields FROM backend.notification_kinds WHERE 'push' = ANY (channels) ORDER BY kind"
        ).fetchall()
    }
    for kind, payload in told.items():
        connection.execute("SELECT backend.notification_submit(%s, 'key', %s, %s)", [kind, user_id, json.dumps(payload)])
    until(lambda: len(one.events) == len(told))
    events = [event.client_event for event in one.events]
    assert {event.kind: decode_payload(event.kind, event.payload) for event in events} == told
    assert not [event.kind for event in events if event.payload.startswith(b"{")]
    assert not streamer.logged("does not fit")


def test_a_rollback_leaves_nothing(streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]) -> None:
    one = gateway(streamer.target)
    with connection.transaction(force_rollback=True):
        emit(connection, 1)
    emit(connection, 2)
    one.wait_for([2])


def test_a_transaction_held_open_delays_nobody_and_comes_when_it_commits(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], database: Database
) -> None:
    one = gateway(streamer.target)
    slow = database.connect()
    with slow.transaction():
        emit(slow, 1)
        emit(connection, 2, 3)
        one.wait_for([2, 3])
    one.wait_for([2, 3, 1])
    assert one.cursors() == sorted(one.cursors())


def test_every_gateway_gets_every_event_once_in_one_order(start: Start, gateway: Subscribe, database: Database) -> None:
    streamers = [start(), start()]
    gateways = [gateway(streamer.ready().target, f"gateway-{n}", batched=n % 2 == 0) for n, streamer in enumerate(streamers * 2)]

    def write(writer: int) -> list[int]:
        dice = random.Random(writer)
        committed = []
        connection = database.connect()
        for n in range(writer * 1000, writer * 1000 + 100):
            with connection.transaction(force_rollback=n % 10 == 0):
                emit(connection, n)
                if dice.random() < 0.2:
                    time.sleep(dice.random() * 0.02)  # so that commits overtake one another
            if n % 10:
                committed.append(n)
        return committed

    with ThreadPoolExecutor(8) as pool:
        committed = [n for numbers in pool.map(write, range(8)) for n in numbers]
    for one in gateways:
        until(lambda one=one: len(one.events) >= len(committed))  # type: ignore[misc]
        assert sorted(one.numbers()) == sorted(committed)
        assert one.events == gateways[0].events
        assert all(a.encode() < b.encode() for a, b in zip(one.cursors(), one.cursors()[1:], strict=False))
        for writer in range(8):
            of_one = [n for n in one.numbers() if n // 1000 == writer]
            assert of_one == sorted(of_one)
    assert value(database.connect(), "SELECT count(*) FROM backend.invariants_push") == 0


# Resuming


def test_the_start_of_a_stream_is_told_at_once_and_is_fresh_without_a_cursor(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    emit(connection, 1)
    settled(connection)
    one = gateway(streamer.target)  # returns when it is told, and nothing has happened since
    assert one.client.resume == "fresh"
    emit(connection, 2)
    one.wait_for([2])
    assert one.client.gaps == 0


def test_a_cursor_resumes_exactly_after_it(
    streamer: Streamer, start: Start, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 20)
    one.wait_for(list(range(1, 21)))
    one.close()
    emit(connection, 21, 30)
    settled(connection)
    for target in (streamer.target, start().ready().target):  # the second has only the table to read from
        again = gateway(target, "another", one.events[4].cursor)
        assert again.client.resume == "exact"
        again.wait_for(list(range(6, 31)))
        last = gateway(target, "another", again.events[-1].cursor)
        assert last.client.resume == "exact"
    emit(connection, 31)
    last.wait_for([31])


@pytest.mark.parametrize(
    "make",
    [
        lambda cursor: "x",
        lambda cursor: cursor + "0",
        lambda cursor: cursor.replace("-", "\0"),
        lambda cursor: "9" * 19 + cursor[19:],
        lambda cursor: f"{int(cursor[:19]) + 1:019}{cursor[19:]}",
        lambda cursor: "x" * 50_000,
        lambda cursor: cursor[:20] + "١" * 19,
    ],
    ids=["not ours", "longer", "with a zero byte", "no epoch", "other epoch", "far too long", "other digits"],
)
def test_what_is_no_cursor_of_this_stream_starts_fresh(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], make: Callable[[str], str]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 2)
    one.wait_for([1, 2])
    again = gateway(streamer.target, "another", make(one.events[0].cursor))
    assert (again.client.resume, again.client.gaps) == ("fresh", 1)
    emit(connection, 3)
    again.wait_for([3])


@pytest.mark.parametrize("position", [4, 10**18, 10**19 - 1])
def test_a_cursor_ahead_of_the_stream_starts_fresh_and_is_logged(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], position: int
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 3)
    one.wait_for([1, 2, 3])
    ahead = one.events[-1].cursor[:20] + f"{position:019}"
    again = gateway(streamer.target, "another", ahead)
    assert again.client.resume == "fresh"
    assert streamer.wait_for("ahead of the stream")["gateway_client_id"] == "another"
    emit(connection, 4)
    again.wait_for([4])


def test_resume_is_exact_until_something_after_the_cursor_was_deleted(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 10)
    one.wait_for(list(range(1, 11)))
    purge(connection, 5)
    exact = gateway(streamer.target, "exact", one.events[4].cursor)
    assert exact.client.resume == "exact"
    exact.wait_for([6, 7, 8, 9, 10])
    fresh = gateway(streamer.target, "fresh", one.events[3].cursor)
    assert fresh.client.resume == "fresh"
    purge(connection, 5)
    idle = gateway(streamer.target, "idle", one.events[9].cursor)
    assert idle.client.resume == "exact"
    emit(connection, 11)
    fresh.wait_for([11])
    idle.wait_for([11])


def test_a_head_that_went_back_makes_every_gateway_start_fresh(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 10)
    one.wait_for(list(range(1, 11)))
    with connection.transaction():  # as a backup that was made earlier
        connection.execute("DELETE FROM backend.push_events WHERE position > 3")
        connection.execute("UPDATE backend.push_epoch SET head = 3")
    until(lambda: one.gaps_at == [10])
    assert one.client.resume == "fresh"
    streamer.wait_for("another history")
    emit(connection, 11)
    one.wait_for([*range(1, 11), 11])


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "with events"])
def test_a_new_epoch_makes_every_gateway_start_fresh(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], idle: bool
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 10)
    one.wait_for(list(range(1, 11)))
    with connection.transaction():
        connection.execute("UPDATE backend.push_epoch SET epoch = epoch + 1")
        if not idle:
            emit(connection, 11)
    until(lambda: one.gaps_at == [10])  # and nothing of the new epoch before it
    assert one.client.resume == "fresh"
    streamer.wait_for("another history")
    emit(connection, 12)
    until(lambda: one.numbers()[-1] == 12)
    assert one.cursors() == sorted(one.cursors())


# Who may subscribe


def test_the_internal_token_is_demanded_where_there_is_one(start: Start) -> None:
    streamer = start(BACKEND_INTERNAL_TOKEN="hush").ready()
    for token in (None, "hush", "Bearer", "Bearer wrong", "Bearer hush2", "Basic hush"):
        assert refusal(streamer.target, token=token) is grpc.StatusCode.UNAUTHENTICATED, token
    with raw_call(streamer.target, token="Bearer hush") as call:
        assert dict(call.initial_metadata())["galaxy-resume"] == "fresh"
    with pytest.raises(grpc.RpcError), PushClient(streamer.target, "gateway", "wrong") as client:
        client.connect()
    with PushClient(streamer.target, "gateway", "hush") as client:
        client.connect()
    assert not any("hush" in json.dumps(line) for line in streamer.lines)


def test_an_id_has_1_to_128_characters(streamer: Streamer) -> None:
    for name in ("", "x" * 129, "x\0y"):
        assert refusal(streamer.target, name=name) is grpc.StatusCode.INVALID_ARGUMENT
    for name in ("ż" * 128, "x\ny", "' OR true --"):
        with raw_call(streamer.target, name) as call:
            assert dict(call.initial_metadata())["galaxy-resume"] == "fresh"
    with pytest.raises(grpc.RpcError), PushClient(streamer.target, "") as client:
        next(client)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["one streamer", "two streamers"])
def test_a_newer_stream_of_the_same_id_replaces_the_older(
    streamer: Streamer,
    start: Start,
    gateway: Subscribe,
    connection: psycopg.Connection[Any],
    elsewhere: bool,
) -> None:
    other = start().ready() if elsewhere else streamer
    older, different = gateway(streamer.target, "same"), gateway(streamer.target, "different")
    newer = gateway(other.target, "same")
    until(lambda: older.error is not None, timeout=1.5)  # sooner than the look without a notification
    assert isinstance(older.error, ReplacedError)
    emit(connection, 1)
    newer.wait_for([1])
    different.wait_for([1])
    assert older.events == []


def test_many_streams_of_one_id_at_once_leave_one(start: Start) -> None:
    streamers = [start().ready(), start().ready()]
    with contextlib.ExitStack() as stack:
        calls = [stack.enter_context(raw_call(streamers[n % 2].target, "same")) for n in range(20)]
        until(lambda: sum(call.done() for call in calls) == len(calls) - 1)
        codes = [call.code() for call in calls if call.done()]
        assert set(codes) == {grpc.StatusCode.ABORTED}


def test_a_stream_that_ends_is_forgotten(streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]) -> None:
    one = gateway(streamer.target)
    assert value(connection, "SELECT count(*) FROM backend.push_subscribers") == 1
    one.close()
    until(lambda: value(connection, "SELECT count(*) FROM backend.push_subscribers") == 0)


# A gateway that is slow


def test_a_gateway_that_does_not_read_holds_up_nobody_and_misses_nothing(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    with raw_call(streamer.target, "slow") as slow:
        slow.initial_metadata()
        before = _memory(streamer.process.pid)
        # More, in number and in bytes, than a streamer keeps in memory.
        for first in range(1, 30_001, 3000):
            emit(connection, first, first + 2999, padding=2000)
        until(lambda: len(one.events) == 30_000)
        assert one.numbers() == list(range(1, 30_001))
        assert _memory(streamer.process.pid) - before < 64 * 1024 * 1024
        assert [number(next(slow)) for _ in range(30_000)] == list(range(1, 30_001))


def _memory(pid: int) -> int:
    """The bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_what_leaves_the_window_before_a_slow_gateway_reads_it_is_counted_and_logged(
    streamer: Streamer, connection: psycopg.Connection[Any]
) -> None:
    with raw_call(streamer.target, "slow") as slow:
        slow.initial_metadata()
        for first in range(1, 20_001, 2000):
            emit(connection, first, first + 1999, padding=2000)
        settled(connection)
        until(lambda: value(connection, "SELECT head = 20000 FROM backend.push_epoch"))
        purge(connection, 15_000)
        connection.execute("SELECT 1")
        numbers = [number(next(slow))]
        while numbers[-1] < 20_000:
            numbers.append(number(next(slow)))
    assert numbers == sorted(set(numbers))
    lost = streamer.wait_for("left the window")
    assert lost["gateway_client_id"] == "slow"
    assert lost["events"] == 20_000 - len(numbers)


def test_a_gateway_that_does_not_read_can_be_replaced(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    with raw_call(streamer.target, "same") as slow:
        slow.initial_metadata()
        emit(connection, 1, 5000, padding=2000)
        settled(connection)
        newer = gateway(streamer.target, "same")
        with pytest.raises(grpc.RpcError):
            for _ in slow:
                pass
        assert slow.code() is grpc.StatusCode.ABORTED
        emit(connection, 5001)
        newer.wait_for([5001])


# When things end or break


def test_shutdown_sends_what_is_committed_and_ends_the_streams_with_unavailable(
    streamer: Streamer, connection: psycopg.Connection[Any]
) -> None:
    with raw_call(streamer.target) as call:
        call.initial_metadata()
        emit(connection, 1, 5000)
        streamer.process.terminate()
        numbers = []
        with pytest.raises(grpc.RpcError):
            for event in call:
                numbers.append(number(event))
        assert numbers == list(range(1, 5001))
        assert call.code() is grpc.StatusCode.UNAVAILABLE
    assert streamer.ended() == 0
    assert value(connection, "SELECT count(*) FROM backend.push_subscribers") == 0


def test_shutdown_waits_for_a_slow_gateway_no_longer_than_it_may(start: Start, connection: psycopg.Connection[Any]) -> None:
    streamer = start(BACKEND_GRPC_PUSH_SHUTDOWN_TIMEOUT="1s").ready()
    with raw_call(streamer.target, "slow") as slow:
        slow.initial_metadata()
        emit(connection, 1, 5000, padding=2000)
        settled(connection)
        streamer.process.terminate()
        assert streamer.ended(timeout=5) == 0


def test_a_second_signal_ends_at_once(start: Start, connection: psycopg.Connection[Any]) -> None:
    streamer = start(BACKEND_GRPC_PUSH_SHUTDOWN_TIMEOUT="30s").ready()
    with raw_call(streamer.target, "slow") as slow:
        slow.initial_metadata()
        emit(connection, 1, 5000, padding=2000)
        settled(connection)
        streamer.process.send_signal(signal.SIGINT)
        streamer.wait_for("shutting down")
        streamer.process.send_signal(signal.SIGTERM)
        assert streamer.ended(timeout=5) == 128 + signal.SIGTERM


def test_kill_and_restart_in_a_loop_loses_nothing_and_doubles_nothing(
    start: Start, gateway: Subscribe, database: Database
) -> None:
    port = _free_port()
    address = f"127.0.0.1:{port}"
    streamer = start(BACKEND_GRPC_PUSH_LISTEN_ADDR=address).ready()
    one = gateway(address)
    stop = threading.Event()
    last = 0

    def write() -> None:
        nonlocal last
        connection = database.connect()
        while not stop.is_set():
            emit(connection, last + 1, last + 3)
            last += 3
            stop.wait(0.005)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        try:
            for _ in range(3):
                before = len(one.events)
                until(lambda before=before: len(one.events) > before + 50)  # type: ignore[misc]
                streamer.kill()
                streamer = start(BACKEND_GRPC_PUSH_LISTEN_ADDR=address).ready()
        finally:
            stop.set()
        writing.result()
    one.wait_for(list(range(1, last + 1)))
    assert (one.client.resume, one.client.gaps) == ("exact", 0)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize("part", ["listener", "%"], ids=["the listener", "every connection"])
def test_connections_that_are_cut_come_back_and_streams_stay_open(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], part: str
) -> None:
    ours = "FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE %s"
    pids = f"SELECT array_agg(pid ORDER BY pid) {ours}"
    name = f"%-push-{part}"
    until(lambda: value(connection, pids, "%-push-listener"))
    one = gateway(streamer.target)
    before = value(connection, pids, name)
    value(connection, f"SELECT count(pg_terminate_backend(pid)) {ours}", name)
    emit(connection, 1)
    until(lambda: one.numbers() == [1], timeout=1.05)  # the poll interval and a second
    until(lambda: len(value(connection, pids, name) or ()) == len(before))
    assert not set(before) & set(value(connection, pids, name))
    emit(connection, 2)
    one.wait_for([1, 2])
    assert (one.client.resume, one.client.gaps) == ("fresh", 0)


class Proxy:
    """A way to Postgres that can be shut, and that can swallow notifications as a pooler does."""

    def __init__(self, database: Database, swallow: bool = False) -> None:
        found = conninfo_to_dict(dsn.conninfo(database.dsn("galaxy_push"), application_name="test"))
        host, port = str(found["host"]), int(str(found["port"]))
        self._server: Any = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
        self._swallow = swallow
        self._sockets: set[socket.socket] = set()
        self._is_open = True
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.dsn = (
            f"postgresql://galaxy_push@127.0.0.1:{self._listening.getsockname()[1]}/{database.name}"
            "?search_path=backend&sslmode=disable&gssencmode=disable"
        )
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        self._is_open = False
        for one in list(self._sockets):
            self._end(one)

    def open(self) -> None:
        self._is_open = True

    def close(self) -> None:
        self._end(self._listening)
        self.shut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if not self._is_open:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
            server.connect(self._server)
            self._sockets |= {client, server}
            for source, sink in ((client, server), (server, client)):
                messages = self._swallow and source is server
                threading.Thread(target=self._pump, args=(source, sink, messages), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, messages: bool) -> None:
        try:
            with source.makefile("rb") as stream:
                while data := _message(stream) if messages else source.recv(65536):
                    if not (messages and data[:1] == b"A"):  # NotificationResponse
                        sink.sendall(data)
        except OSError:
            pass
        finally:
            self._end(source)
            self._end(sink)

    def _end(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


def _message(stream: Any) -> bytes:
    """Read one message of Postgres' protocol: a type, and a length that counts itself."""
    head: bytes = stream.read(5)
    return head + stream.read(int.from_bytes(head[1:]) - 4) if len(head) == 5 else b""


@pytest.fixture
def proxy(database: Database) -> Iterator[Callable[..., Proxy]]:
    made: list[Proxy] = []

    def make(swallow: bool = False) -> Proxy:
        made.append(Proxy(database, swallow))
        return made[-1]

    yield make
    for one in made:
        one.close()


def health(target: str, service: str) -> int:
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


def test_without_a_database_it_is_not_serving_and_goes_on_when_it_is_back(
    start: Start, gateway: Subscribe, proxy: Callable[..., Proxy], connection: psycopg.Connection[Any]
) -> None:
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    way = proxy()
    way.shut()
    streamer = start(way.dsn)
    streamer.wait_for("waiting for the database")
    assert [health(streamer.target, name) for name in ("", SERVICE)] == [not_serving] * 2
    assert refusal(streamer.target) is grpc.StatusCode.UNAVAILABLE
    way.open()
    until(lambda: [health(streamer.target, name) for name in ("", SERVICE)] == [serving] * 2)

    one = gateway(streamer.target)
    emit(connection, 1)
    one.wait_for([1])
    way.shut()
    until(lambda: health(streamer.target, SERVICE) == not_serving)
    emit(connection, 2)
    assert refusal(streamer.target) is grpc.StatusCode.UNAVAILABLE
    way.open()
    one.wait_for([1, 2])
    until(lambda: health(streamer.target, SERVICE) == serving)
    assert not streamer.logged("unsubscribed")  # it was one stream all along


def test_a_pooler_that_swallows_notifications_is_told_and_polled_through(
    start: Start, gateway: Subscribe, proxy: Callable[..., Proxy], connection: psycopg.Connection[Any]
) -> None:
    streamer = start(proxy(swallow=True).dsn).ready()
    error = streamer.wait_for("notifications do not arrive")
    assert error["level"] == "error"
    assert "BACKEND_POSTGRES_LISTEN_DSN" in error["msg"]
    one = gateway(streamer.target)
    emit(connection, 1, 3)
    one.wait_for([1, 2, 3])
    older = gateway(streamer.target, "same")
    gateway(streamer.target, "same")
    until(lambda: isinstance(older.error, ReplacedError))


def test_a_direct_way_beside_a_pooler_is_used_for_what_belongs_to_a_session(
    start: Start, gateway: Subscribe, proxy: Callable[..., Proxy], database: Database, connection: psycopg.Connection[Any]
) -> None:
    way = proxy(swallow=True)
    streamer = start(way.dsn, BACKEND_POSTGRES_LISTEN_DSN=database.dsn("galaxy_push")).ready()
    one = gateway(streamer.target)
    emit(connection, 1)
    one.wait_for([1])
    way.shut()
    until(lambda: connected(connection) == {"listener", "sequencer"})
    way.open()
    until(lambda: connected(connection) == {"listener", "sequencer", "stream", "service"})
    emit(connection, 2)
    one.wait_for([1, 2])
    assert streamer.terminate() == 0
    assert not streamer.logged("notifications do not arrive")


def connected(connection: psycopg.Connection[Any]) -> set[str]:
    """Return the parts of the streamers that are connected to the test's database."""
    names = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
    return {name.rpartition("-push-")[2] for (name,) in connection.execute(names) if "-push-" in name}


def test_the_sequencer_sleeps_when_nothing_comes_and_writers_wake_it(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], database: Database
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 1000)
    until(lambda: len(one.events) == 1000)
    asleep = """
        SELECT count(*) = 0 FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database
         WHERE d.datname = current_database() AND l.locktype = 'advisory' AND l.granted
    """
    listening = database.connect()
    listening.execute("LISTEN galaxy_push_pending")
    until(lambda: value(connection, asleep))

    def wakes() -> bool:
        emit(connection, 1001)
        return bool(list(listening.notifies(timeout=0.2, stop_after=1)))

    until(wakes)


# What it refuses to start with


def test_an_older_schema_is_refused_with_the_command_to_run(start: Start, connection: psycopg.Connection[Any]) -> None:
    connection.execute("DELETE FROM sqitch.changes WHERE change = 'push/stream'")
    streamer = start()
    assert streamer.ended() == 78
    assert "sqitch deploy" in streamer.lines[-1]["reason"]


def test_a_database_without_our_schema_is_refused_with_the_command_to_run(
    start: Start, database: Database, connection: psycopg.Connection[Any]
) -> None:
    connection.execute("DROP SCHEMA push CASCADE")
    streamer = start()
    assert streamer.ended() == 78
    assert "sqitch deploy" in streamer.lines[-1]["reason"]


def test_a_login_that_may_do_more_is_refused_unless_this_is_development(start: Start, database: Database) -> None:
    for login in ("postgres", "galaxy_deploy", "galaxy_api"):
        streamer = start(database.dsn(login))
        assert streamer.ended() == 78, login
        assert streamer.lines[-1]["level"] == "error"
    start(database.dsn("postgres"), BACKEND_DEVELOPMENT="true").ready()


def test_a_port_that_is_taken_is_told(start: Start, streamer: Streamer) -> None:
    other = start(BACKEND_GRPC_PUSH_LISTEN_ADDR=streamer.target)
    assert other.ended() == 1
    assert "BACKEND_GRPC_PUSH_LISTEN_ADDR" in other.lines[-1]["reason"]


# What is measured


def test_metrics_tell_of_subscribers_events_and_losses(
    start: Start, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    address = f"127.0.0.1:{_free_port()}"
    streamer = start(BACKEND_OTEL_METRICS_EXPORTER="prometheus", BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR=address).ready()

    def metric(name: str) -> float:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    one = gateway(streamer.target)
    with raw_call(streamer.target, "slow") as slow:
        slow.initial_metadata()
        assert metric("grpc_push_subscribers") == 2
        for first in range(1, 20_001, 2000):
            emit(connection, first, first + 1999, padding=2000)
        until(lambda: len(one.events) == 20_000)
        purge(connection, 15_000)
        received = sum(1 for _ in iter(lambda: number(next(slow)), 20_000)) + 1
    until(lambda: metric("grpc_push_subscribers") == 1)
    assert metric('grpc_push_events_total{kind="test"}') == 20_000 + received
    assert metric('grpc_push_dropped_total{gateway_client_id="slow"}') == 20_000 - received > 0
    assert metric("push_commit_to_send_seconds_count") > 0


# What else is served on the port


def test_reflection_and_health_are_served(streamer: Streamer) -> None:
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    with grpc.insecure_channel(streamer.target) as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([request]), timeout=5)
    names = {service.name for service in answer.list_services_response.service}
    assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    with pytest.raises(grpc.RpcError) as refused:
        health(streamer.target, "unknown")
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_watched_health_says_not_serving_at_shutdown(streamer: Streamer) -> None:
    with grpc.insecure_channel(streamer.target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=SERVICE), timeout=30)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        streamer.process.terminate()
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert streamer.ended(timeout=5) == 0  # and it does not wait for who watches


class Authority:
    """Makes certificates for 127.0.0.1, as files."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._subject, self._key, is_authority=True)

    def issue(self, name: str) -> tuple[Path, Path]:
        """Return the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, is_authority=False)
        key_file = self._directory / f"{self._name}-{name}.key"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, key_file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_authority: bool) -> Path:
        now = datetime.datetime.now(datetime.UTC)
        address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        name = str(subject.rdns[0].rfc4514_string()).removeprefix("CN=")
        file = self._directory / f"{self._name}-{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file


def test_tls_demands_a_certificate_of_the_clients_authority(start: Start, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    streamer = start(
        BACKEND_GRPC_PUSH_TLS_CERT=str(certificate),
        BACKEND_GRPC_PUSH_TLS_KEY=str(key),
        BACKEND_GRPC_PUSH_TLS_CLIENT_CA=str(ours.certificate),
    ).ready()

    def credentials(authority: Authority) -> grpc.ChannelCredentials:
        certificate, key = authority.issue("client")
        return grpc.ssl_channel_credentials(ours.certificate.read_bytes(), key.read_bytes(), certificate.read_bytes())

    with raw_call(streamer.target, credentials=credentials(ours)) as call:
        assert dict(call.initial_metadata())["galaxy-resume"] == "fresh"
    for refused in (
        credentials(theirs),
        grpc.ssl_channel_credentials(ours.certificate.read_bytes()),
        None,
    ):
        assert refusal(streamer.target, credentials=refused) is grpc.StatusCode.UNAVAILABLE


def test_files_of_tls_that_cannot_be_used_are_refused(start: Start, tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    certificate, key = ours.issue("server")
    _, other_key = ours.issue("other")
    missing = tmp_path / "missing.pem"
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    for files in (
        (missing, key, certificate),
        (certificate, missing, certificate),
        (certificate, other_key, certificate),
        (garbage, key, certificate),
        (certificate, key, garbage),
    ):
        variables = dict(zip(("CERT", "KEY", "CLIENT_CA"), map(str, files), strict=True))
        streamer = start(**{f"BACKEND_GRPC_PUSH_TLS_{name}": file for name, file in variables.items()})
        assert streamer.ended() == 78, files
        assert "BACKEND_GRPC_PUSH_TLS_CERT" in streamer.lines[-1]["reason"]
