"""The gRPC service: who may subscribe, and from where on."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, NoReturn

import grpc

from app import metrics, telemetry
from proto.push.v1 import push_pb2
from workers.database import DatabaseError
from workers.push.events import Event, batches, singles
from workers.push.stream import Chunk, Stream
from workers.push.subscribers import End, Subscriber, Subscribers

log = logging.getLogger("galaxy.push")

NAME = push_pb2.DESCRIPTOR.services_by_name["Push"].full_name

Request = push_pb2.GatewaySubscribeRequest
Context = grpc.aio.ServicerContext[Request, bytes]
NO_DATABASE = End("no_database", grpc.StatusCode.UNAVAILABLE, "This streamer cannot serve now; try here or elsewhere.")

Form = Callable[[Iterable[Event]], Iterator[bytes]]


class PushService:
    """Both methods of the service; they differ only in how events are put into messages.

    `on_claim` is called when a stream was claimed: an older one of the same client may have to end. Until
    `is_open` is set, and after it is reset, nobody may subscribe.
    """

    def __init__(self, stream: Stream, subscribers: Subscribers, token: str | None, on_claim: Callable[[], None]) -> None:
        self.is_open = False
        self._stream = stream
        self._subscribers = subscribers
        self._token = token
        self._on_claim = on_claim

    def handlers(self) -> grpc.GenericRpcHandler[Request, bytes]:
        # Not the generated registration: that one would encode every event again for every subscriber.
        return grpc.method_handlers_generic_handler(
            NAME,
            {
                "SubscribePush": _streaming(self.subscribe_push),
                "SubscribePushBatch": _streaming(self.subscribe_push_batch),
            },
        )

    async def subscribe_push(self, request: Request, context: Context) -> None:
        await self._subscribe(request, context, singles)

    async def subscribe_push_batch(self, request: Request, context: Context) -> None:
        await self._subscribe(request, context, batches)

    async def _subscribe(self, request: Request, context: Context, form: Form) -> None:
        await self._check(request, context)
        try:
            subscriber = await self._subscribers.add(request.gateway_client_id)
        except DatabaseError:
            await _unavailable(context)
        try:
            sending = self._send(subscriber, await self._begin(subscriber, request.cursor, context), context, form)
            await self._until_ended(subscriber, sending)
        except DatabaseError:
            subscriber.end(NO_DATABASE)
        finally:
            self._subscribers.remove(subscriber)
        end = subscriber.ended.result()
        await context.abort(end.code, end.details)

    async def _check(self, request: Request, context: Context) -> None:
        if self._token is not None and not _has_token(context, self._token):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "The internal token is missing or wrong.")
        client_id = request.gateway_client_id
        if not 1 <= len(client_id) <= 128 or "\0" in client_id:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "gateway_client_id must have 1 to 128 characters.")
        if not self.is_open:
            await _unavailable(context)

    async def _begin(self, subscriber: Subscriber, cursor: str, context: Context) -> Chunk:
        """Find where the stream goes on, tell the gateway how, and return what it is sent first."""
        self._on_claim()
        resumption = await self._stream.resume(cursor)
        first = await self._stream.read(resumption.position)
        if resumption.is_exact and first.lost:
            # Retention has just deleted what comes next. Never a part of it: now this is a fresh start.
            resumption = await self._stream.resume(cursor)
            first = await self._stream.read(resumption.position)
        if resumption.is_ahead:
            log.warning(
                "a cursor is ahead of the stream: was the database restored without a new epoch?",
                extra={"gateway_client_id": subscriber.gateway_client_id, "cursor": cursor},
            )
        subscriber.position = resumption.position
        resume = "exact" if resumption.is_exact else "fresh"
        await context.send_initial_metadata((("galaxy-resume", resume), ("galaxy-cursor", resumption.cursor)))
        log.info("subscribed", extra={"gateway_client_id": subscriber.gateway_client_id, "resume": resume})
        return first

    async def _until_ended(self, subscriber: Subscriber, send: Coroutine[Any, Any, NoReturn]) -> None:
        # A task of its own, because a write waits for as long as the gateway does not read.
        sending = asyncio.create_task(send)
        try:
            await asyncio.wait((sending, subscriber.ended), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()  # raises: it does not end by itself
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _send(self, subscriber: Subscriber, chunk: Chunk, context: Context, form: Form) -> NoReturn:
        since = time.time()
        while True:
            if chunk.lost:
                self._count_lost(subscriber, chunk)
            began = time.time()
            for message in form(chunk.events):
                await context.write(message)
            subscriber.position = chunk.through
            for kind, count in Counter(event.kind for event in chunk.events).items():
                metrics.grpc_push_events_total.add(count, {"kind": kind})
            # The oldest stands for all; what is sent again after a resume says nothing.
            if chunk.events and chunk.events[0].created_at >= since:
                metrics.push_commit_to_send_seconds.record(max(0.0, time.time() - chunk.events[0].created_at))
                for event in chunk.events:
                    if event.traceparent is not None:
                        telemetry.event(f"push {event.kind}", event.traceparent, began, event_id=event.event_id)
            chunk = await self._stream.after(subscriber.position)

    def _count_lost(self, subscriber: Subscriber, chunk: Chunk) -> None:
        client_id = subscriber.gateway_client_id
        metrics.grpc_push_dropped_total.add(chunk.lost, {"gateway_client_id": client_id})
        log.error(
            "events have left the window before a slow gateway read them",
            extra={"gateway_client_id": client_id, "events": chunk.lost, "through": chunk.through},
        )


def _streaming(method: Callable[[Request, Context], object]) -> grpc.RpcMethodHandler[Request, bytes]:
    return grpc.unary_stream_rpc_method_handler(method, request_deserializer=Request.FromString)


def _has_token(context: Context, token: str) -> bool:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            scheme, _, given = (value if isinstance(value, str) else value.decode("latin-1")).partition(" ")
            return scheme.lower() == "bearer" and hmac.compare_digest(given.encode(), token.encode())
    return False


async def _unavailable(context: Context) -> NoReturn:
    await context.abort(NO_DATABASE.code, NO_DATABASE.details)
