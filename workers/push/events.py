"""Events as they are read from the database, and as they are sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from proto.push.v1 import push_pb2
from workers.push.payloads import encode_payload

# A gateway accepts messages of 4 MiB by default.
BATCH_BYTES = 256 * 1024

INVALIDATION = "session_invalidation"


class Row(NamedTuple):
    """A row of push.events_read() and push.events_sequence(). Either `kind` and `payload` are None or `reason` is."""

    position: int
    cursor: str
    event_id: str
    user_id: str
    device_session_id: str
    kind: str | None
    payload: str | None
    reason: str | None
    request_id: str
    trace_id: str
    span_id: str  # empty where the trace is not recorded
    created_at: float  # Unix seconds


class Event(NamedTuple):
    """An encoded event. Encoded once, for every subscriber.

    `batch` is a PushEventBatch of this one event. Such messages put one after another are a PushEventBatch of
    all their events (that is how Protocol Buffers define concatenation), so a batch costs no encoding.
    """

    position: int
    event_id: str
    kind: str
    created_at: float
    traceparent: str | None  # of its cause, where the trace is recorded
    batch: bytes
    offset: int  # where the PushEvent begins in `batch`

    @property
    def message(self) -> bytes:
        return self.batch[self.offset :]


def encode(row: Row) -> Event:
    message = push_pb2.PushEventBatch()
    event = message.events.add(cursor=row.cursor)
    if row.kind is not None and row.payload is not None:
        event.client_event.user_id = row.user_id
        event.client_event.device_session_id = row.device_session_id
        event.client_event.kind = row.kind
        event.client_event.payload = encode_payload(row.kind, row.payload)
        event.client_event.event_id = row.event_id
        event.client_event.request_id = row.request_id
        event.client_event.trace_id = row.trace_id
    else:
        event.session_invalidation.device_session_id = row.device_session_id
        event.session_invalidation.user_id = row.user_id
        event.session_invalidation.reason = row.reason or ""
    batch = message.SerializeToString()
    traceparent = f"00-{row.trace_id}-{row.span_id}-01" if row.span_id else None
    kind = row.kind or INVALIDATION
    return Event(row.position, row.event_id, kind, row.created_at, traceparent, batch, len(batch) - event.ByteSize())


def singles(events: Iterable[Event]) -> Iterator[bytes]:
    """A PushEvent message for each event."""
    return (event.message for event in events)


def batches(events: Iterable[Event]) -> Iterator[bytes]:
    """PushEventBatch messages with all the events, each of BATCH_BYTES or one event."""
    parts: list[bytes] = []
    size = 0
    for event in events:
        if parts and size + len(event.batch) > BATCH_BYTES:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(event.batch)
        size += len(event.batch)
    if parts:
        yield b"".join(parts)
