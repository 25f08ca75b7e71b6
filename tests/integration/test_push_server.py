"""The streamer as a program: what it refuses to start with, what it measures, what it serves, TLS."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from dev.cluster import free_port
from tests.postgres import Database
from tests.push import SERVICE, Authority, Start, Streamer, Subscribe, emit, health, number, purge, raw_call, refusal
from tests.services import until

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
    address = f"127.0.0.1:{free_port()}"
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
    newer = gateway(streamer.target)
    until(lambda: one.error is not None)
    newer.close()
    until(lambda: metric('grpc_push_streams_ended_total{reason="replaced"}') == 1)
    until(lambda: metric('grpc_push_streams_ended_total{reason="left"}') == 2)


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


def client_credentials(ours: Authority, certificate: tuple[Path, Path] | None) -> grpc.ChannelCredentials:
    """What a client has that trusts our authority, and shows a certificate or none."""
    if certificate is None:
        return grpc.ssl_channel_credentials(ours.certificate.read_bytes())
    chain, key = certificate
    return grpc.ssl_channel_credentials(ours.certificate.read_bytes(), key.read_bytes(), chain.read_bytes())


def test_tls_demands_a_certificate_of_the_clients_authority(
    start: Start, gateway: Subscribe, connection: psycopg.Connection[Any], tmp_path: Path
) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    streamer = start(
        BACKEND_GRPC_PUSH_TLS_CERT=str(certificate),
        BACKEND_GRPC_PUSH_TLS_KEY=str(key),
        BACKEND_GRPC_PUSH_TLS_CLIENT_CA=str(ours.certificate),
        BACKEND_INTERNAL_TOKEN="hush",
    ).ready()
    good = client_credentials(ours, ours.issue("client"))
    one = gateway(streamer.target, token="hush", credentials=good)
    emit(connection, 1)
    one.wait_for([1])
    # A certificate does not stand for the token.
    assert refusal(streamer.target, credentials=good) is grpc.StatusCode.UNAUTHENTICATED
    for refused in (
        client_credentials(ours, theirs.issue("client")),
        client_credentials(ours, ours.issue("late", has_expired=True)),
        client_credentials(ours, None),
        None,
    ):
        assert refusal(streamer.target, token="Bearer hush", credentials=refused) is grpc.StatusCode.UNAVAILABLE


def test_tls_alone_asks_clients_for_no_certificate(start: Start, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("server")
    streamer = start(BACKEND_GRPC_PUSH_TLS_CERT=str(certificate), BACKEND_GRPC_PUSH_TLS_KEY=str(key)).ready()
    with raw_call(streamer.target, credentials=client_credentials(ours, None)) as call:
        assert dict(call.initial_metadata())["galaxy-resume"] == "fresh"
    # Whoever trusts another authority, or speaks no TLS, is not served.
    for refused in (client_credentials(theirs, None), None):
        assert refusal(streamer.target, credentials=refused) is grpc.StatusCode.UNAVAILABLE


def test_gateways_refuse_a_streamer_whose_certificate_has_expired(start: Start, tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    certificate, key = ours.issue("server", has_expired=True)
    streamer = start(BACKEND_GRPC_PUSH_TLS_CERT=str(certificate), BACKEND_GRPC_PUSH_TLS_KEY=str(key)).ready()
    assert refusal(streamer.target, credentials=client_credentials(ours, None)) is grpc.StatusCode.UNAVAILABLE


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
