"""One trace from a request to all that it causes, through every program, as a collector sees it; and nobody's data in it."""

from __future__ import annotations

import re
import secrets
import signal
import socket
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from dev.cluster import Cluster
from tests import services
from tests.integration.test_games_story import Match
from tests.observed import PROGRAMS, Observed, observed
from tests.otlp_collector import Collector, Span
from tests.postgres import Database
from tests.services import Api, StartProgram, confirm, new_email, note_secret, until

pytestmark = pytest.mark.xdist_group("metrics")


@pytest.fixture(scope="module")
def world(
    cluster: Cluster, template_database: str, session_starter: StartProgram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Observed]:
    with observed(cluster, template_database, session_starter, tmp_path_factory.mktemp("games")) as running:
        yield running


class Caller:
    """Whoever asks, under a trace and a request id of their own."""

    def __init__(self) -> None:
        self.trace_id, self.span_id = secrets.token_hex(16), secrets.token_hex(8)
        self.request_id = f"request-{secrets.token_hex(8)}"

    @property
    def headers(self) -> dict[str, str]:
        return {"traceparent": f"00-{self.trace_id}-{self.span_id}-01", "X-Request-ID": self.request_id}


def whole(world: Observed, trace_id: str, *names: str) -> dict[str, Span]:
    """Wait for the spans of these names (`program name`) in a trace; return them. All of a trace hang together."""

    def found() -> dict[str, Span]:
        by_name = {f"{s.program} {s.name}": s for s in world.collector.trace(trace_id)}
        return by_name if by_name.keys() >= set(names) else {}

    try:
        spans = until(found, 60, 0.1)
    except AssertionError:
        raise AssertionError(
            f"{set(names)} are not all in {[(s.program, s.name) for s in world.collector.trace(trace_id)]}"
        ) from None

    def loose() -> set[str]:
        there = world.collector.trace(trace_id)
        return {s.parent_id for s in there} - {s.span_id for s in there}

    # A span's parent may be sent after it.
    until(lambda: len(loose()) == 1, 60, 0.1)
    return spans


def test_a_code_is_one_trace_from_the_request_to_the_relay(world: Observed) -> None:
    caller, email = Caller(), new_email()
    answer = world.api.client.post("/api/v1/public/auth/send-email-code", json={"email": email}, headers=caller.headers)
    assert answer.status_code == 200
    spans = whole(
        world,
        caller.trace_id,
        "api POST /api/v1/public/auth/send-email-code",
        "api SQL email_code_send",
        "worker job mail_deliver",
        "worker mail",
        "worker SMTP",
        "worker SQL mail_report",
    )
    request = spans["api POST /api/v1/public/auth/send-email-code"]
    assert request.parent_id == caller.span_id
    assert spans["api SQL email_code_send"].parent_id == request.span_id
    assert spans["worker job mail_deliver"].parent_id == request.span_id
    assert spans["worker SMTP"].parent_id == spans["worker mail"].span_id
    assert spans["worker SMTP"].attributes["outcome"] == "sent"
    assert {s.attributes["request_id"] for s in world.collector.trace(caller.trace_id)} == {caller.request_id}
    # And on to the session: another request, another trace.
    challenge = answer.json()["challenge_id"]
    (mail,) = world.mail.messages(email)
    code = re.search(r"\b[0-9]{6}\b", mail.text or "")
    assert code is not None
    note_secret(code[0])
    assert confirm(world.api, challenge, code[0]).status_code == 200
    assert not [s for s in world.collector.trace(caller.trace_id) if "confirm" in s.name]


def test_a_game_s_start_and_turn_are_one_trace_each_from_the_request_to_the_gateways(world: Observed) -> None:
    match, starting, turning = Match(world), Caller(), Caller()
    with world.subscribed("traced") as events:
        match.fill()
        match.do("ready-to-start")
        world.api.client.post(f"/api/v1/user{match.path}/start", headers={**match.owner.header, **starting.headers})
        match.wait_for("running")
        spans = whole(
            world,
            starting.trace_id,
            "worker job runtime_start",
            "worker container start",
            "worker engine POST /api/v1/admin/init",
            "worker SQL runtime_started",
            "worker SMTP",
            "push push game.started",
        )
        assert spans["worker container start"].parent_id == spans["worker job runtime_start"].span_id
        path = f"/api/v1/admin/runtimes/{match.game_id}/force-next-turn"
        world.api.client.post(path, headers={**world.api.admin, **turning.headers})
        spans = whole(
            world,
            turning.trace_id,
            "api POST /api/v1/admin/runtimes/{game_id}/force-next-turn",
            "worker job turn_run",
            "worker engine PUT /api/v1/admin/turn",
            "worker SQL turn_report",
            "push push game.turn.ready",
        )
        reported = spans["worker SQL turn_report"]
        assert reported.parent_id == spans["worker job turn_run"].span_id
        assert spans["push push game.turn.ready"].parent_id == reported.span_id
        sent = next(e for e in events if e.client_event.kind == "game.turn.ready")
        assert sent.client_event.trace_id == turning.trace_id
    asked = [s for s in world.collector.trace(turning.trace_id) if s.program != "push"]
    assert {s.attributes["request_id"] for s in asked} == {turning.request_id}


def test_a_turn_that_nobody_asked_for_is_a_trace_of_its_own(world: Observed) -> None:
    match = Match(world)
    with world.subscribed("scheduled") as events:
        match.start()
        world.travel("1 day")
        match.turn(1)
        sent = next(e for e in events if e.client_event.kind == "game.turn.ready")
        # Before the gateway leaves: of what is cut off there is no span.
        spans = whole(world, sent.client_event.trace_id, "worker job turn_run", "push push game.turn.ready")
    assert spans["worker job turn_run"].parent_id == ""
    assert spans["worker job turn_run"].attributes["request_id"].startswith("job-")


def test_what_goes_wrong_is_told_without_its_text(world: Observed) -> None:
    caller = Caller()
    headers = {"X-User-ID": "0197f3a2-5b1c-7d20-9e46-3f1a2b4c5d6e", **caller.headers}
    assert world.api.client.get("/api/v1/user/account", headers=headers).status_code == 404
    spans = whole(world, caller.trace_id, "api GET /api/v1/user/account", "api SQL my_account_get")
    assert spans["api SQL my_account_get"].is_error
    assert not spans["api GET /api/v1/user/account"].is_error, "a refusal is an answer"


def test_a_trace_that_is_not_sampled_is_not_recorded(world: Observed) -> None:
    caller = Caller()
    headers = caller.headers | {"traceparent": f"00-{caller.trace_id}-{caller.span_id}-00"}
    world.api.client.post("/api/v1/public/auth/send-email-code", json={"email": new_email()}, headers=headers)
    last = Caller()
    world.api.client.post("/api/v1/public/auth/send-email-code", json={"email": new_email()}, headers=last.headers)
    whole(world, last.trace_id, "worker SMTP")
    assert world.collector.trace(caller.trace_id) == []


def test_nothing_in_any_span_is_anybody_s(world: Observed) -> None:
    match = Match(world)
    match.fill()
    platform_ids = [match.owner.user_id, match.guest.user_id, match.owner.device_session_id]
    last = Caller()
    world.api.client.get("/api/v1/user/account", headers={**match.owner.header, **last.headers})
    whole(world, last.trace_id, "api SQL my_account_get")
    told = repr(world.collector.spans())
    assert "SQL my_account_get" in told
    assert "@" not in told
    known = [*(s for s in services._secrets if len(s) > 6), *platform_ids, *match.races]
    assert [s for s in known if s in told] == []
    assert {a for s in world.collector.spans() for a in s.attributes} == {
        "request_id", "event_id", "outcome", "http.route", "http.response.status_code"
    }  # fmt: skip


# -- what is sent at the end, and for how long


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_what_is_left_is_sent_at_the_end(protocol: str, database: Database, start_api: Callable[..., Api]) -> None:
    with Collector(protocol) as collector:
        told = collector.environment | {"BACKEND_OTEL_METRICS_EXPORTER": "otlp", "OTEL_BSP_SCHEDULE_DELAY": "600000"}
        api = start_api(database, **told)
        caller = Caller()
        api.client.get("/healthz", headers=caller.headers)
        assert api.stop() == 0
        assert [s.name for s in collector.trace(caller.trace_id)] == ["GET /healthz"]
        assert "http_requests_total" in collector.metrics


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_collector_that_does_not_answer_keeps_nobody(
    name: str, protocol: str, database: Database, start_program: StartProgram
) -> None:
    """Without a bound it would be many times what is waited here."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        told = {
            "BACKEND_OTEL_TRACES_EXPORTER": "otlp",
            "BACKEND_OTEL_METRICS_EXPORTER": "otlp",
            "BACKEND_OTEL_PROTOCOL": protocol,
            "BACKEND_OTEL_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
        }
        program = start_program(name, database, **told)
        if isinstance(program, Api):
            program.wait_ready()
        until(lambda: program.logged({"api": "Listening", "worker": "working", "push": "serving"}[name]))
        program.process.send_signal(signal.SIGTERM)
        assert program.wait(15) == 0


# -- the streamer's health, asked for by the api beside it


def test_readiness_asks_the_streamer_beside_us(database: Database, start_program: StartProgram, tmp_path: Path) -> None:
    place = tmp_path / "push.sock"
    api = start_program("api", database, GALAXY_PUSH_HEALTH_SOCKET=str(place))
    assert isinstance(api, Api)

    def check() -> tuple[int, str]:
        answer = api.client.get("/readyz")
        return answer.status_code, answer.json()["checks"]["push"]

    assert check() == (503, "failed"), "nobody is there"
    server = grpc.server(futures.ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"unix:{place}")
    server.start()
    try:
        service = "galaxy.backend.push.v1.Push"
        assert check() == (503, "failed"), "somebody who does not know the service"
        for status, expected in (("NOT_SERVING", (503, "failed")), ("SERVING", (200, "ok")), ("NOT_SERVING", (503, "failed"))):
            servicer.set(service, health_pb2.HealthCheckResponse.ServingStatus.Value(status))
            assert check() == expected
    finally:
        server.stop(None).wait()
    assert check() == (503, "failed"), "nobody is there any more"


def test_the_streamer_answers_the_api_beside_it(database: Database, start_program: StartProgram, tmp_path: Path) -> None:
    """Also where gateways need certificates: the health of both is asked for on a socket of their own."""
    place = str(tmp_path / "push.sock")
    api = start_program("api", database, GALAXY_PUSH_HEALTH_SOCKET=place)
    push = start_program("push", database, GALAXY_PUSH_HEALTH_SOCKET=place)
    assert isinstance(api, Api)
    until(lambda: push.logged("serving"))
    api.wait_ready()
    push.stop()
    assert api.client.get("/readyz").json()["checks"]["push"] == "failed"


def test_programs_elsewhere_are_told_as_degraded_until_they_are_heard_of(
    database: Database, api: Api, start_program: StartProgram
) -> None:
    def checks() -> dict[str, str]:
        answer = api.client.get("/readyz")
        # Whatever becomes of the others.
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")
        return dict(answer.json()["checks"])

    well = {"postgres": "ok", "schema": "ok"}
    assert checks() == {**well, "push": "degraded", "worker": "degraded"}
    push, worker = (start_program(name, database) for name in ("push", "worker"))
    until(lambda: checks() == {**well, "push": "ok", "worker": "ok"})
    assert worker.stop() == 0
    until(lambda: checks() == {**well, "push": "ok", "worker": "degraded"})
    assert push.stop() == 0
    with database.connect() as connection:
        connection.execute("UPDATE backend.clock SET clock_offset = '15 seconds'")
    assert checks() == {**well, "push": "degraded", "worker": "degraded"}
