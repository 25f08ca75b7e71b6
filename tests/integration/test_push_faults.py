"""Streams when something ends or breaks: signals, kills, connections, networks."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2

from dev.cluster import free_port
from dev.push_client import ReplacedError
from tests.postgres import Database
from tests.push import (
    SERVICE,
    MakeProxy,
    Start,
    Streamer,
    Subscribe,
    connected,
    emit,
    health,
    number,
    raw_call,
    refusal,
    settled,
    until,
    value,
)

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
    port = free_port()
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


def test_without_a_database_it_is_not_serving_and_goes_on_when_it_is_back(
    start: Start, gateway: Subscribe, proxy: MakeProxy, connection: psycopg.Connection[Any]
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
    start: Start, gateway: Subscribe, proxy: MakeProxy, connection: psycopg.Connection[Any]
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
    start: Start, gateway: Subscribe, proxy: MakeProxy, database: Database, connection: psycopg.Connection[Any]
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
