"""From a committed transaction to a gateway: what an event is, in what order events come, and who gets them."""

from __future__ import annotations

import contextlib
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psycopg
import pytest

from dev.push_client import PushClient, ReplacedError, decode_payload
from proto.push.v1 import push_pb2
from tests.postgres import Database
from tests.push import Start, Streamer, Subscribe, emit, raw_call, refusal, value
from tests.services import until

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
