"""What is pure in the push stream: the contract's generated code, and how events become messages."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto.push.v1 import push_pb2
from workers.push.events import BATCH_BYTES, Event, Row, batches, encode, singles

ROOT = Path(__file__).resolve().parents[2]
CLIENT_EVENT = Row(
    position=7,
    cursor="0000000001700000000-0000000000000000007",
    event_id="e",
    user_id="u",
    device_session_id="d",
    kind="lobby.invite",
    payload='{"name": "Żółw"}',
    reason=None,
    request_id="r",
    trace_id="t",
    span_id="",
    created_at=1.5,
)


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", ".", *outputs, "proto/push/v1/push.proto"]
    subprocess.run(command, cwd=ROOT, check=True)
    generated = {p.name: p.read_text() for p in (tmp_path / "proto/push/v1").iterdir()}
    committed = {p.name: p.read_text() for p in (ROOT / "proto/push/v1").glob("push_pb2*.py*")}
    assert sorted(generated) == ["push_pb2.py", "push_pb2.pyi", "push_pb2_grpc.py"]
    assert generated == committed


def test_the_contract_has_the_fields_that_gateways_know() -> None:
    def fields(message: type) -> list[tuple[str, int]]:
        return [(f.name, f.number) for f in message.DESCRIPTOR.fields]  # type: ignore[attr-defined]

    assert push_pb2.DESCRIPTOR.package == "galaxy.backend.push.v1"
    assert [m.name for m in push_pb2.DESCRIPTOR.services_by_name["Push"].methods] == [
        "SubscribePush",
        "SubscribePushBatch",
    ]
    assert fields(push_pb2.GatewaySubscribeRequest) == [("gateway_client_id", 1), ("cursor", 2)]
    assert fields(push_pb2.PushEvent) == [("client_event", 1), ("session_invalidation", 2), ("cursor", 3)]
    names = ["user_id", "device_session_id", "kind", "payload", "event_id", "request_id", "trace_id"]
    assert fields(push_pb2.ClientEvent) == list(zip(names, range(1, 8), strict=True))
    assert fields(push_pb2.SessionInvalidation) == [("device_session_id", 1), ("user_id", 2), ("reason", 3)]
    assert fields(push_pb2.PushEventBatch) == [("events", 1)]


def test_a_client_event_is_sent_with_all_it_has() -> None:
    event = push_pb2.PushEvent.FromString(encode(CLIENT_EVENT).message)
    assert event == push_pb2.PushEvent(
        client_event=push_pb2.ClientEvent(
            user_id="u",
            device_session_id="d",
            kind="lobby.invite",
            payload='{"name": "Żółw"}'.encode(),
            event_id="e",
            request_id="r",
            trace_id="t",
        ),
        cursor="0000000001700000000-0000000000000000007",
    )


def test_an_invalidation_of_every_session_has_an_empty_session() -> None:
    row = CLIENT_EVENT._replace(kind=None, payload=None, reason="revoked", device_session_id="")
    encoded = encode(row)
    event = push_pb2.PushEvent.FromString(encoded.message)
    assert event.WhichOneof("event") == "session_invalidation"
    assert event.session_invalidation == push_pb2.SessionInvalidation(user_id="u", reason="revoked")
    assert encoded.kind == "session_invalidation"


def made(sizes: list[int]) -> list[Event]:
    return [encode(CLIENT_EVENT._replace(cursor=str(n), payload="x" * s)) for n, s in enumerate(sizes)]


@given(st.lists(st.one_of(st.integers(0, 300), st.integers(BATCH_BYTES // 3, BATCH_BYTES)), max_size=20))
def test_both_forms_carry_the_same_events_in_the_same_order(sizes: list[int]) -> None:
    events = made(sizes)
    single = [push_pb2.PushEvent.FromString(m) for m in singles(events)]
    batched = [push_pb2.PushEventBatch.FromString(m) for m in batches(events)]
    assert [e.cursor for e in single] == [str(n) for n in range(len(sizes))]
    assert [e for batch in batched for e in batch.events] == single
    assert all(batch.events for batch in batched)


@pytest.mark.parametrize("sizes", [[BATCH_BYTES // 2] * 5, [BATCH_BYTES * 2, 1, 1], [10] * 50_000])
def test_a_batch_is_bounded_unless_one_event_alone_is_larger(sizes: list[int]) -> None:
    for message in batches(made(sizes)):
        assert len(message) <= BATCH_BYTES or len(push_pb2.PushEventBatch.FromString(message).events) == 1
