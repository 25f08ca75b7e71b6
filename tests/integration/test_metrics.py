"""Every metric that is declared moves when it should, as Prometheus sees it; and what no label may hold."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from app.metrics import REGISTRY, markdown
from dev.cluster import Cluster, free_port
from tests.integration.test_games_story import Match
from tests.observed import PROGRAMS, Observed, observed
from tests.postgres import Database
from tests.push import emit, purge
from tests.services import StartProgram, new_email, send_code, until

pytestmark = pytest.mark.xdist_group("metrics")

ROOT = Path(__file__).resolve().parents[2]

# Of the database's figures; they are told within seconds, and the machine may be busy.
PATIENCE = 60


@pytest.fixture(scope="module")
def world(
    cluster: Cluster, template_database: str, session_starter: StartProgram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    with observed(cluster, template_database, session_starter, tmp_path_factory.mktemp("games")) as running:
        yield running


# -- what makes each of them move


@contextlib.contextmanager
def a_probe(world: Observed) -> Iterator[None]:
    world.api.client.get("/readyz")
    yield


@contextlib.contextmanager
def a_request_that_waits(world: Observed) -> Iterator[None]:
    person = world.person()
    path = f"/api/v1/internal/sessions/{person.device_session_id}"
    with world.connect() as connection:
        connection.execute("BEGIN; LOCK TABLE device_sessions")
        with world.api.new_client() as client:
            waiting = threading.Thread(target=lambda: client.get(path, headers=world.api.internal))
            waiting.start()
            yield
            connection.execute("ROLLBACK")
            waiting.join()


@contextlib.contextmanager
def a_database_that_has_hung_up(world: Observed) -> Iterator[None]:
    with world.connect() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'galaxy-api'")
    until(lambda: world.api.client.get("/readyz").status_code == 200)
    yield


@contextlib.contextmanager
def a_person_of_somewhere(world: Observed) -> Iterator[None]:
    person = world.person()
    world.api.client.get("/api/v1/user/account", headers={**person.header, "X-Forwarded-For": "192.0.2.1"})
    yield


@contextlib.contextmanager
def a_gateway(world: Observed) -> Iterator[None]:
    with world.subscribed("counted"):
        yield


@contextlib.contextmanager
def a_gateway_that_leaves(world: Observed) -> Iterator[None]:
    with world.subscribed("leaving"):
        pass
    yield


@contextlib.contextmanager
def an_event(world: Observed) -> Iterator[None]:
    with world.subscribed("told") as call, world.connect() as connection:
        emit(connection, 1)
        next(call)
        yield


@contextlib.contextmanager
def a_gateway_that_is_too_slow(world: Observed) -> Iterator[None]:
    with world.subscribed("slow") as call, world.connect() as connection:
        for first in range(1, 20_001, 2000):
            emit(connection, first, first + 1999, padding=2000)
        until(lambda: connection.execute("SELECT NOT EXISTS (SELECT FROM push_pending)").fetchall()[0][0])
        purge(connection, 15_000)

        def read() -> None:
            with contextlib.suppress(grpc.RpcError):
                for _ in call:
                    pass

        reading = threading.Thread(target=read)
        reading.start()
        yield
    reading.join()


@contextlib.contextmanager
def a_code(world: Observed) -> Iterator[None]:
    send_code(world.api, new_email())
    yield


@contextlib.contextmanager
def a_mail_for_later(world: Observed) -> Iterator[None]:
    with world.connect() as connection:
        connection.execute(
            """
            SELECT mail_enqueue('game.started', gen_random_uuid()::text, ARRAY['later@example.org'],
                                '{"game_id": "0197f3a2-5b1c-7d20-9e46-3f1a2b4c5d6e", "game_name": "x"}')
              FROM generate_series(1, 20)
            """
        )
        connection.execute(
            "UPDATE mail_deliveries SET next_attempt_at = backend.now() + interval '1 hour' WHERE status = 'pending'"
        )
    yield


@contextlib.contextmanager
def a_mail_that_was_tried_too_often(world: Observed) -> Iterator[None]:
    with a_mail_for_later(world), world.connect() as connection:
        connection.execute("UPDATE mail_deliveries SET attempts = 100, next_attempt_at = backend.now() WHERE status = 'pending'")
    yield


@contextlib.contextmanager
def an_intent(world: Observed) -> Iterator[None]:
    person = world.person()
    with world.connect() as connection:
        connection.execute(
            "SELECT notification_submit('lobby.race_name.registered', gen_random_uuid()::text, %s, '{\"race_name\": \"x\"}')",
            [person.user_id],
        )
    yield


@contextlib.contextmanager
def a_game(world: Observed) -> Iterator[None]:
    Match(world).start()
    yield


@contextlib.contextmanager
def a_job_for_later(world: Observed) -> Iterator[None]:
    with world.connect() as connection:
        # Its triggers speak of its tables without naming the schema.
        connection.execute("SET search_path = procrastinate")
        connection.execute(
            """
            INSERT INTO procrastinate_jobs (queue_name, task_name, scheduled_at)
            SELECT 'mail', 'mail_deliver', '2100-01-01' FROM generate_series(1, 20)
            """
        )
    yield


@contextlib.contextmanager
def something_that_must_not_be(world: Observed) -> Iterator[None]:
    """A worker tells of it when it starts, and then every minute."""
    with world.connect() as connection:
        connection.execute(
            "INSERT INTO notification_opt_outs (user_id, kind, channel) VALUES (%s, 'lobby.membership.removed', 'push')",
            [world.person().user_id],
        )
    worker = world._start_worker()
    port = int(worker.environment["BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR"].rpartition(":")[2])
    until(lambda: worker.logged("working"))
    world.scrape_ports["another worker"] = port
    try:
        yield
    finally:
        del world.scrape_ports["another worker"]
        worker.close()
        with world.connect() as connection:
            connection.execute("DELETE FROM notification_opt_outs")


# Where a figure falls too, it is moved by more than what comes and goes by itself.
MOVES: dict[str, Callable[[Observed], contextlib.AbstractContextManager[None]]] = {
    "http_requests_total": a_probe,
    "http_request_duration_seconds": a_probe,
    "grpc_push_subscribers": a_gateway,
    "grpc_push_events_total": an_event,
    "grpc_push_dropped_total": a_gateway_that_is_too_slow,
    "grpc_push_streams_ended_total": a_gateway_that_leaves,
    "push_commit_to_send_seconds": an_event,
    "mail_outbox_depth": a_mail_for_later,
    "mail_attempts_total": a_code,
    "mail_dead_letters_total": a_mail_that_was_tried_too_often,
    "notification_intents_total": an_intent,
    "notification_routes_total": an_intent,
    "runtime_container_ops_total": a_game,
    "runtime_health_probes_total": a_game,
    "geo_lookups_total": a_person_of_somewhere,
    "db_pool_acquires_total": a_probe,
    "db_pool_waits_total": a_database_that_has_hung_up,
    "db_pool_in_use": a_request_that_waits,
    "jobs_total": a_code,
    "jobs_queued": a_job_for_later,
    "invariant_violations": something_that_must_not_be,
}


@pytest.mark.parametrize("name", REGISTRY)
def test_it_moves(name: str, world: Observed) -> None:
    before = world.value(name)
    assert name in MOVES, "say here what makes it move"
    with MOVES[name](world):
        until(lambda: world.value(name) > before, PATIENCE, 0.1)


def test_what_moves_is_declared() -> None:
    assert set(MOVES) == set(REGISTRY)


_OF_SOMEBODY = re.compile(r"@|[0-9a-f]{8}-[0-9a-f]{4}-|[0-9a-f]{16}")


def test_labels_are_the_declared_ones_and_nobodys(world: Observed) -> None:
    with a_code(world), a_person_of_somewhere(world), an_event(world):
        world.api.client.get(f"/api/v1/internal/sessions/{'0' * 8}-0000-7000-8000-{'0' * 12}/nothing")
        samples = world.samples()
    for program, sample in samples:
        base = re.sub(r"_(bucket|sum|count|created)$", "", sample.name)
        metric = REGISTRY.get(sample.name) or REGISTRY.get(base) or REGISTRY[f"{base}_total"]
        assert program.removeprefix("another ") in metric.programs, sample
        assert set(sample.labels) - {"le"} <= set(metric.labels), sample
        assert not [v for v in sample.labels.values() if _OF_SOMEBODY.search(v)], sample


def test_each_worker_tells_the_database_s_figures_and_nobody_else(world: Observed) -> None:
    told = {program for program, sample in world.samples() if sample.name in ("jobs_queued", "mail_outbox_depth")}
    assert told == {"worker"}


def test_empty_queues_are_told_of(world: Observed) -> None:
    queues = {sample.labels["queue"] for _, sample in world.samples() if sample.name == "jobs_queued"}
    assert {"mail", "notifications", "runtime"} <= queues


def test_the_page_is_up_to_date() -> None:
    """`make config` writes it."""
    assert (ROOT / "docs" / "metrics.md").read_text() == markdown()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_scrape_address_that_is_taken_ends_the_start(name: str, database: Database, start_program: StartProgram) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        told = {"BACKEND_OTEL_METRICS_EXPORTER": "prometheus", "BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR": address}
        program = start_program(name, database, **told)
        assert program.wait() == 1
    assert "BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR" in program.errors()
    assert address in program.errors()
    assert "Traceback" not in program.errors()


def test_a_streamer_without_gateways_tells_that_there_are_none(database: Database, start_program: StartProgram) -> None:
    address = f"127.0.0.1:{free_port()}"
    told = {"BACKEND_OTEL_METRICS_EXPORTER": "prometheus", "BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR": address}
    start_program("push", database, **told)

    def scraped() -> str:
        try:
            return httpx.get(f"http://{address}/metrics").text
        except httpx.HTTPError:
            return ""

    assert re.search(r"^grpc_push_subscribers 0(\.0)?$", until(scraped), re.MULTILINE)
