"""Who is subscribed here, and who has been replaced: of a gateway client's streams only the newest lives."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass, field
from typing import NamedTuple

import grpc

from app import metrics
from workers.database import Database, DatabaseError

log = logging.getLogger("galaxy.push")


class End(NamedTuple):
    """Why a stream ends: what is counted, and what its gateway is told."""

    reason: str
    code: grpc.StatusCode
    details: str


@dataclass(eq=False)
class Subscriber:
    """An open stream. All up to `position` has been sent; `ended` is set when it is to end."""

    gateway_client_id: str
    connection_id: uuid.UUID = field(default_factory=uuid.uuid4)
    since: float = field(default_factory=time.time)  # seconds of the epoch
    claim: int = 0  # grows with every stream of the client
    position: int = 0
    ended: asyncio.Future[End] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def end(self, end: End) -> None:
        if not self.ended.done():
            self.ended.set_result(end)


REPLACED = End("replaced", grpc.StatusCode.ABORTED, "A newer stream of the same gateway_client_id has replaced this one.")
# As after a restore from a backup.
FORGOTTEN = End("forgotten", grpc.StatusCode.UNAVAILABLE, "The database does not know this stream; subscribe again.")


class Subscribers:
    """This streamer's subscribers; the database knows which of them are still the newest."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._streamer_id = uuid.uuid4()
        self._subscribers: dict[uuid.UUID, Subscriber] = {}
        self._releases: set[asyncio.Task[None]] = set()
        # Also where nobody has ever come, it is told that nobody is there.
        metrics.grpc_push_subscribers.add(0)

    async def add(self, gateway_client_id: str) -> Subscriber:
        """Make a new stream the client's only one. Raises DatabaseError."""
        subscriber = Subscriber(gateway_client_id)
        rows = await self._database.fetch(
            "SELECT push.subscriber_claim(%s, %s, %s)",
            gateway_client_id,
            subscriber.connection_id,
            self._streamer_id,
        )
        subscriber.claim = rows[0][0]
        self._subscribers[subscriber.connection_id] = subscriber
        metrics.grpc_push_subscribers.add(1)
        return subscriber

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a stream that ends. The database is told without waiting for it."""
        del self._subscribers[subscriber.connection_id]
        metrics.grpc_push_subscribers.add(-1)
        reason = subscriber.ended.result().reason if subscriber.ended.done() else "left"
        metrics.grpc_push_streams_ended_total.add(1, {"reason": reason})
        log.info("unsubscribed", extra={"gateway_client_id": subscriber.gateway_client_id, "reason": reason})
        release = asyncio.create_task(self._release(subscriber))
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)

    async def released(self) -> None:
        """Wait a moment for the database to know of every end."""
        if self._releases:
            await asyncio.wait(self._releases, timeout=1)

    async def _release(self, subscriber: Subscriber) -> None:
        try:
            await self._database.fetch(
                "SELECT push.subscriber_release(%s, %s)",
                subscriber.gateway_client_id,
                subscriber.connection_id,
            )
        except DatabaseError as trouble:
            # What stays behind does no harm: it names a connection that nobody has.
            log.warning("a stream's end was not recorded", extra={"error": str(trouble)})

    async def end_replaced(self) -> None:
        """End the streams that have been replaced, here or on another streamer. Raises DatabaseError."""
        # Only those that were claimed before the question: the answer may not know a later one yet.
        claimed = list(self._subscribers.values())
        if not claimed:
            return
        rows = await self._database.fetch(
            "SELECT n.gateway_client_id, n.connection_id, n.claim FROM push.subscribers_newest(%s) AS n",
            [subscriber.gateway_client_id for subscriber in claimed],
        )
        newest = {client_id: (connection_id, claim) for client_id, connection_id, claim in rows}
        for subscriber in claimed:
            connection_id, claim = newest.get(subscriber.gateway_client_id, (None, 0))
            if claim > subscriber.claim:
                subscriber.end(REPLACED)
            elif connection_id != subscriber.connection_id:
                subscriber.end(FORGOTTEN)

    def end_all(self, end: End) -> None:
        for subscriber in self._subscribers.values():
            subscriber.end(end)

    async def delivered(self, position: int) -> None:
        """Wait until every subscriber has been sent all up to `position`."""
        # Once, at shutdown: not worth an event at every step of every subscriber.
        while any(s.position < position for s in self._subscribers.values()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
