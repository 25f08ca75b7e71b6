"""Task `mail_deliver`: send what is due in the outbox."""

from __future__ import annotations

import asyncio
import logging
import time

import psycopg
from psycopg.rows import DictRow
from psycopg_pool import PoolTimeout

from app import logs, metrics, telemetry
from app.config import Config
from workers.door import Door
from workers.smtp import Mail, Relay, Result

log = logging.getLogger("galaxy.worker")

LEASE_SECONDS = 40
"""A worker that dies gives its mail back after this long; one that lives prolongs its lease for as long as the relay takes."""

# From this priority on somebody waits for the mail.
URGENT = 100


class MailDelivery:
    """Sends what is due in the outbox over two connections: one for all of it, one for what is urgent.

    So a fresh code waits neither for the backlog nor for a relay that is slow with some other mail.
    """

    def __init__(self, config: Config, door: Door) -> None:
        self._lanes = [_Lane(config, door, min_priority) for min_priority in (0, URGENT)]

    def stop(self) -> None:
        """Finish the mail that has been started, and no other."""
        for lane in self._lanes:
            lane.stop()

    async def idle(self) -> None:
        """Wait until no mail is being sent."""
        for lane in self._lanes:
            await lane.idle()

    async def run(self) -> None:
        """Send what is due. Raises psycopg.Error when the database cannot be asked; the sweep comes back."""
        ended = await asyncio.gather(*(lane.run() for lane in self._lanes), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error


class _Lane:
    """Sends due mail of a priority one by one over one connection, each under a lease of its own, until none is left.

    One run at a time in a process: whoever is woken meanwhile makes the run that goes on look once more.
    """

    def __init__(self, config: Config, door: Door, min_priority: int) -> None:
        self._config = config
        self._door = door
        self._min_priority = min_priority
        self._running = asyncio.Lock()
        self._look_again = False
        self._stopping = False

    def stop(self) -> None:
        self._stopping = True

    async def idle(self) -> None:
        async with self._running:
            return

    async def run(self) -> None:
        self._look_again = True
        if self._running.locked():
            return
        async with self._running:
            # Once more whenever somebody was woken meanwhile, also while the last relay was said goodbye to.
            while self._look_again and not self._stopping:
                relay = Relay(self._config)
                try:
                    self._look_again = False
                    while not self._stopping and await self._send_next(relay):
                        pass
                except BaseException:
                    # Perhaps in the middle of a mail, where nothing can be said.
                    relay.close()
                    raise
                await relay.quit()

    async def _send_next(self, relay: Relay) -> bool:
        claimed = await self._door.call("mail_claim", limit=1, lease_seconds=LEASE_SECONDS, min_priority=self._min_priority)
        for row in claimed:
            # Not the run's context: it sends the mail of many requests.
            with logs.bind(request_id=row["request_id"]), telemetry.span("mail", row["traceparent"]):
                await self._handle(relay, row)
        return bool(claimed)

    async def _handle(self, relay: Relay, row: DictRow) -> None:
        fields = {"delivery_id": str(row["delivery_id"]), "template_id": row["template_id"]}
        if row["attempt_no"] is None:
            metrics.mail_dead_letters_total.add(1)
            log.error("mail dead-lettered", extra={**fields, "error": "nothing is known of the last attempt"})
            return
        mail = Mail(fields["delivery_id"], row["recipients"], row["subject"], row["body_text"], row["body_html"])
        keeping = asyncio.create_task(self._keep(row["delivery_id"], row["attempt_no"]))
        try:
            with telemetry.child("SMTP") as span:
                result = await relay.send(mail)
                span.set_attribute("outcome", result.outcome)
        finally:
            keeping.cancel()
        status = await self._report(row["delivery_id"], row["attempt_no"], result)
        metrics.mail_attempts_total.add(1, {"outcome": result.outcome})
        fields |= {"attempt_no": row["attempt_no"], "outcome": result.outcome, "status": status}
        if status == "dead_lettered":
            metrics.mail_dead_letters_total.add(1)
            log.error("mail dead-lettered", extra={**fields, "error": result.error})
        elif result.outcome == "sent":
            log.info("mail sent", extra=fields)
        else:
            log.warning("mail not sent", extra={**fields, "error": result.error})

    async def _keep(self, delivery_id: object, attempt_no: int) -> None:
        while True:
            await asyncio.sleep(LEASE_SECONDS / 4)
            try:
                await self._door.call("mail_keep", delivery_id=delivery_id, attempt_no=attempt_no, lease_seconds=LEASE_SECONDS)
            except (psycopg.Error, PoolTimeout) as error:
                log.warning("a lease is not prolonged yet", extra={"error": type(error).__name__})

    async def _report(self, delivery_id: object, attempt_no: int, result: Result) -> str:
        """Write down what came of an attempt, if need be when the database is back: what was sent must not be sent again."""
        deadline = time.monotonic() + LEASE_SECONDS
        while True:
            try:
                reported = await self._door.call(
                    "mail_report", delivery_id=delivery_id, attempt_no=attempt_no, outcome=result.outcome, error=result.error
                )
                return str(reported[0]["mail_report"])
            except (psycopg.OperationalError, PoolTimeout) as error:
                log.warning("an attempt's outcome is not written down yet", extra={"error": type(error).__name__})
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.2)
