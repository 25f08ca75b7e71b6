"""A gateway's side of the push stream, as docs/push.md asks for it: one stream, resumed after every break.

with PushClient("localhost:8081", "gateway-1", token) as client:
    for event in client:
        ...             # event is a push_pb2.PushEvent; client.cursor is its cursor

decode_payload(event.client_event.kind, event.client_event.payload) is what a client event tells.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self, cast

import grpc

from proto.notification.v1 import notification_generated
from proto.push.v1 import push_pb2, push_pb2_grpc

# Trying again would not help.
_FINAL = {
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.INVALID_ARGUMENT,
}

_OPTIONS = (
    # A network that goes silent is noticed within fifteen seconds, on an idle stream as well. Pinged more often than
    # every ten, the streamer hangs up.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),  # what counts in newer versions of gRPC; a minute by default
    ("grpc.http2.max_pings_without_data", 0),
    # By itself gRPC would wait for up to two minutes before it tries an address again.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    # Else all clients of one process share a connection, and its end.
    ("grpc.use_local_subchannel_pool", 1),
)


class ReplacedError(Exception):
    """A newer stream of the same gateway_client_id has replaced this one."""


class ClosedError(Exception):
    """The client has been closed."""


class PushClient:
    """An iterator over the events of the stream, for one thread; `close` may be called from any.

    `cursor` is that of the event handed out last, or that at which a fresh stream began; a new client that is given
    it goes on there. `resume` says how the present stream began: "exact", or "fresh", from now. When a stream begins
    fresh that is not the very first one, events may have been missed: `gaps` counts that, and `on_gap` is called
    before the new stream's first event. Iteration raises ReplacedError, and grpc.RpcError for a refusal that will
    stay (a wrong token or id); after any other break it connects again, waiting longer each time. `target` may name
    several streamers: "ipv4:10.0.0.1:8081,10.0.0.2:8081"; any will do.
    """

    def __init__(
        self,
        target: str,
        gateway_client_id: str,
        token: str | None = None,
        cursor: str = "",
        *,
        credentials: grpc.ChannelCredentials | None = None,
        on_gap: Callable[[], None] | None = None,
        batched: bool = True,
    ) -> None:
        self.cursor = cursor
        self.resume = ""
        self.gaps = 0
        self._gateway_client_id = gateway_client_id
        self._metadata = (("authorization", f"Bearer {token}"),) if token is not None else ()
        self._on_gap = on_gap
        self._batched = batched
        self._channel = (
            grpc.insecure_channel(target, options=_OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=_OPTIONS)
        )
        self._stub = push_pb2_grpc.PushStub(self._channel)  # type: ignore[no-untyped-call]
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._call: Any = None
        self._received: deque[push_pb2.PushEvent] = deque()
        self._is_first = not cursor
        self._delay = 0.05

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[push_pb2.PushEvent]:
        return self

    def __next__(self) -> push_pb2.PushEvent:
        while not self._received:
            try:
                self.connect()
            except ClosedError:
                raise StopIteration from None
            try:
                message = next(self._call)
            except StopIteration:  # a stream never ends by itself, but a proxy may end it
                self._call = None
            except grpc.RpcError as error:
                self._broken(error)
            else:
                self._delay = 0.05
                self._received.extend(message.events if self._batched else (message,))
        event = self._received.popleft()
        self.cursor = event.cursor
        return event

    def connect(self) -> None:
        """Wait for an open stream, whose `resume` is known, unless there is one.

        Raises as iteration does, and ClosedError.
        """
        while self._call is None:
            with self._lock:
                if self._closed.is_set():
                    raise ClosedError
                method = self._stub.SubscribePushBatch if self._batched else self._stub.SubscribePush
                call = self._call = method(
                    push_pb2.GatewaySubscribeRequest(gateway_client_id=self._gateway_client_id, cursor=self.cursor),
                    metadata=self._metadata,
                )
            told = dict(call.initial_metadata())
            if "galaxy-resume" not in told:  # no stream of ours: the status says why
                self._broken(call)
            else:
                self._begun(str(told["galaxy-resume"]), str(told["galaxy-cursor"]))

    def _begun(self, resume: str, cursor: str) -> None:
        if resume == "fresh":
            if not self._is_first:
                self.gaps += 1
                if self._on_gap is not None:
                    self._on_gap()
            self.cursor = cursor  # so that a break before the first event loses nothing
        self._is_first = False
        self.resume = resume

    def close(self) -> None:
        """End the stream; iteration stops."""
        with self._lock:
            self._closed.set()
            if self._call is not None:
                self._call.cancel()
        self._channel.close()

    def _broken(self, error: Any) -> None:
        self._call = None
        code = error.code()
        if self._closed.is_set():
            return
        if code is grpc.StatusCode.ABORTED:
            raise ReplacedError(error.details())
        if code in _FINAL:
            raise error
        if code is grpc.StatusCode.UNIMPLEMENTED and self._batched:
            self._batched = False  # an older server
            return
        self._closed.wait(self._delay * random.uniform(0.5, 1.0))  # noqa: S311
        self._delay = min(self._delay * 2, 5.0)


def decode_payload(kind: str, payload: bytes) -> dict[str, Any] | None:
    """Return what a client event tells, or None where that cannot be read: nothing was sent, or a table that this
    copy of the schema does not have yet.
    """
    if payload.startswith(b"{"):  # as no table does
        return cast(dict[str, Any], json.loads(payload))
    name = "".join(word.capitalize() for word in re.split("[._]", kind))
    reader = getattr(notification_generated, name, None)
    if reader is None or not payload:
        return None
    table = getattr(notification_generated, f"{name}T").InitFromObj(reader.GetRootAs(payload))
    return {
        re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), attribute): value.decode() if type(value) is bytes else value
        for attribute, value in vars(table).items()
    }
