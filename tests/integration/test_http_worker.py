"""Who serves which request: nothing that is slow, and nobody who is, keeps what is quick waiting."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable, Iterator

import pytest

from tests.contract.wire import Wire, request
from tests.postgres import Database
from tests.services import Api, until

SESSION = "/api/v1/internal/sessions/00000000-0000-7000-8000-000000000000"
SCRIPT = "/docs/swagger-ui-bundle.js"


@pytest.fixture
def wires(api: Api) -> Iterator[Callable[[], Wire]]:
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(contextlib.closing(Wire(api.address, 30)))


def is_answered(wire: Wire) -> bool:
    return bool(select.select([wire._socket], [], [], 0)[0])


def test_quick_requests_that_hang_leave_room_for_others(database: Database, start_api: Callable[..., Api]) -> None:
    api = start_api(database, BACKEND_POSTGRES_OPERATION_TIMEOUT="60s", BACKEND_HTTP_WRITE_TIMEOUT="60s")
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(database.connect())
        connection.execute("BEGIN; LOCK TABLE device_sessions")
        hanging = [stack.enter_context(contextlib.closing(Wire(api.address, 30))) for _ in range(3)]
        for wire in hanging:
            wire.send(request("GET", SESSION, headers=api.internal))
        until(lambda: _waiting(database) == 3)
        for _ in range(20):
            assert api.client.get("/healthz").status_code == 200
        assert not any(map(is_answered, hanging))
        connection.execute("ROLLBACK")
        assert [wire.answer().status for wire in hanging] == [404, 404, 404]


def _waiting(database: Database) -> int:
    with database.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name = 'galaxy-api'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_those_who_do_not_read_keep_nobody_waiting_and_get_all_of_it(api: Api) -> None:
    whole = api.client.get(SCRIPT).content
    assert len(whole) > 1_000_000
    with contextlib.ExitStack() as stack:
        # More than the buffers on the way can take.
        lazy = [stack.enter_context(contextlib.closing(Wire(api.address, 30))) for _ in range(3)]
        for wire in lazy:
            wire.send(request("GET", SCRIPT) * 6)
        until(lambda: all(map(is_answered, lazy)))
        for _ in range(20):
            assert api.client.get("/healthz").status_code == 200
        for wire in lazy:
            assert all(wire.answer().body == whole for _ in range(6))
            # And the connection is as good as before.
            assert wire.send(request("GET", "/healthz")).answer().status == 200


def test_what_was_sent_ahead_is_answered_in_its_order(api: Api, wires: Callable[[], Wire]) -> None:
    count = 500
    ids = [f"request-{number:04}" for number in range(count)]
    sent = b"".join(request("GET", SESSION, headers={**api.internal, "X-Request-ID": i}) for i in ids)
    first, other = wires(), wires()
    first.send(sent)
    other.send(sent)
    assert [first.answer().headers["X-Request-ID"] for _ in range(count)] == ids
    assert [other.answer().headers["X-Request-ID"] for _ in range(count)] == ids


def test_bodies_sent_ahead_are_taken_apart(api: Api, wires: Callable[[], Wire]) -> None:
    wire = wires()
    resolve = "/api/v1/internal/sessions/resolve"
    one = request("POST", resolve, {"token": "A" * 43}, api.internal)
    assert wires().send(one).answer().status == 404
    chunked = (
        f"POST {resolve} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n".encode()
        + b"".join(f"{name}: {value}\r\n".encode() for name, value in api.internal.items())
        + b'\r\n5\r\n{"tok\r\n6\r\nen":"x\r\n2\r\n"}\r\n0\r\n\r\n'
    )
    wire.send((one + chunked + request("GET", SESSION, headers=api.internal)) * 5)
    assert [wire.answer().status for _ in range(15)] == [404, 400, 404] * 5


def test_many_connections_that_come_and_go_are_all_served(api: Api, wires: Callable[[], Wire]) -> None:
    kept = [wires() for _ in range(100)]
    for _ in range(3):
        for wire in kept:
            wire.send(request("GET", "/healthz"))
        assert {wire.answer().status for wire in kept} == {200}
        for _ in range(30):
            # Some hang up at once, some in the middle, some before the answer.
            for data in (b"", b"GET /healthz HT", request("GET", "/healthz")):
                with contextlib.closing(Wire(api.address)) as gone:
                    gone.send(data)
    assert [line for line in api.log_lines() if line["level"] in ("error", "warn")] == []


def test_without_room_for_more_connections_an_answer_is_the_last_of_its_connection(api: Api, wires: Callable[[], Wire]) -> None:
    # gunicorn's bound of a worker, less its threads.
    kept = [wires() for _ in range(1_010)]
    # They are taken in the order in which they came.
    for wire in (kept[1_000 - 1], *kept[:5]):
        wire.send(request("GET", "/healthz"))
        answer = wire.answer()
        assert (answer.status, answer.headers["Connection"]) == (200, "close")
        assert wire.read() == b""
    # Which makes room for those who came last.
    for wire in kept[5:30]:
        wire.send(request("GET", "/healthz"))
        assert wire.answer().status == 200
    kept[-1].send(request("GET", "/healthz"))
    assert kept[-1].answer().status == 200
