"""Streams when something ends or breaks: signals, kills, connections, networks."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2

from dev.cluster import KILLABLE, Cluster, free_port
from dev.push_client import ReplacedError
from tests.postgres import Database
from tests.push import (
    SERVICE,
    MakeProxy,
    Proxy,
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
    value,
)
from tests.services import until

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


def test_a_network_that_goes_silent_is_noticed_and_gone_around(
    start: Start, gateway: Subscribe, proxy: MakeProxy, connection: psycopg.Connection[Any]
) -> None:
    way = proxy()
    streamer = start(way.dsn, BACKEND_POSTGRES_OPERATION_TIMEOUT="1s").ready()
    one = gateway(streamer.target)
    way.silence()
    streamer.wait_for("trouble with the database")
    streamer.wait_for("the listener begins anew")
    until(lambda: health(streamer.target, SERVICE) == health_pb2.HealthCheckResponse.NOT_SERVING)
    emit(connection, 1)
    way.speak()
    one.wait_for([1])
    until(lambda: health(streamer.target, SERVICE) == health_pb2.HealthCheckResponse.SERVING)
    assert not streamer.logged("unsubscribed")


def test_the_listener_alone_notices_that_its_network_is_silent(
    start: Start, gateway: Subscribe, proxy: MakeProxy, database: Database, connection: psycopg.Connection[Any]
) -> None:
    way = proxy()
    streamer = start(database.dsn("galaxy_push"), BACKEND_POSTGRES_LISTEN_DSN=way.dsn).ready()
    one = gateway(streamer.target)
    until(lambda: connected(connection) >= {"listener"})
    way.silence()
    streamer.wait_for("the listener begins anew")
    way.speak()
    emit(connection, 1)
    one.wait_for([1])
    assert streamer.terminate() == 0


def test_it_stops_in_its_time_while_the_network_is_silent(start: Start, proxy: MakeProxy) -> None:
    way = proxy()
    streamer = start(way.dsn, BACKEND_POSTGRES_OPERATION_TIMEOUT="1s", BACKEND_GRPC_PUSH_SHUTDOWN_TIMEOUT="2s").ready()
    way.silence()
    assert streamer.terminate() == 0


def test_gateway_and_streamer_notice_each_that_the_other_has_fallen_silent(
    start: Start, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    first, second = start().ready(), start().ready()
    way = Proxy(("127.0.0.1", int(first.target.rpartition(":")[2])))
    one = gateway(f"ipv4:{way.address},{second.target}")
    with raw_call(way.address, "vanished") as vanished:
        assert dict(vanished.initial_metadata())["galaxy-resume"] == "fresh"
        emit(connection, 1)
        one.wait_for([1])
        way.silence()
        emit(connection, 2)
        until(lambda: one.numbers() == [1, 2], timeout=60)
        assert (one.client.resume, one.client.gaps) == ("exact", 0)
        until(lambda: [line for line in first.logged("unsubscribed") if line["gateway_client_id"] == "vanished"], timeout=60)
    way.close()


def test_postgres_that_is_killed_and_comes_back_loses_nothing(start: Start, gateway: Subscribe, tmp_path: Path) -> None:
    with Cluster(tmp_path / "postgres", settings=KILLABLE, die_with_parent=True) as cluster:
        try:
            cluster.create_database("galaxy")
            cluster.sqitch("galaxy", "deploy")
            streamer = start(cluster.dsn("galaxy_push", "galaxy")).ready()
            one = gateway(streamer.target)
            for number in range(1, 4):
                with cluster.connect("galaxy", options="-csearch_path=backend") as writer:
                    emit(writer, number)
                cluster.crash()
                cluster.start()
            one.wait_for([1, 2, 3])
            assert not streamer.logged("unsubscribed")
        finally:
            cluster.destroy()


def test_a_stream_that_broke_before_its_first_event_is_gone_on_with(
    start: Start, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    address = f"127.0.0.1:{free_port()}"
    streamer = start(BACKEND_GRPC_PUSH_LISTEN_ADDR=address).ready()
    one = gateway(address)
    streamer.kill()
    emit(connection, 1, 3)
    start(BACKEND_GRPC_PUSH_LISTEN_ADDR=address).ready()
    one.wait_for([1, 2, 3])
    assert (one.client.resume, one.client.gaps) == ("exact", 0)


@pytest.mark.parametrize("brought_back", [False, True], ids=["nothing", "an older one"])
def test_a_stream_that_the_database_has_forgotten_is_not_taken_for_a_replaced_one(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], brought_back: bool
) -> None:
    one = gateway(streamer.target)
    with connection.transaction():
        connection.execute("DELETE FROM backend.push_subscribers")
        if brought_back:
            connection.execute(
                """
                INSERT INTO backend.push_subscribers (gateway_client_id, connection_id, streamer_id, claim)
                OVERRIDING SYSTEM VALUE VALUES ('gateway', gen_random_uuid(), gen_random_uuid(), 0)
                """
            )
    assert streamer.wait_for("unsubscribed")["reason"] == "forgotten"
    streamer.wait_for("subscribed", count=3)  # twice, and once the end
    emit(connection, 1)
    one.wait_for([1])
    assert (one.error, one.client.gaps) == (None, 0)
