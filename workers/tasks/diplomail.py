"""Task `diplomail_deliver`: broadcasts, and messages that wait for their translation."""

from __future__ import annotations

import asyncio
import logging
import math

from psycopg.rows import DictRow

from app import logs, telemetry
from app.config import Config
from workers.door import Door
from workers.translator import Translator, TranslatorError, TranslatorRefused

log = logging.getLogger("galaxy.worker")

# One message that the translator takes long over does not hold up the others.
_AT_ONCE = 4


class DiplomailDelivery:
    """Delivers what waits for a worker: as it was written, or translated, or as it was written because it cannot be.

    One run at a time in a process: whoever is woken meanwhile makes the run that goes on look once more.
    """

    def __init__(self, config: Config, door: Door) -> None:
        self._door = door
        url, timeout = config.diplomail_translator_url, config.diplomail_translator_timeout
        self._translator = Translator(url, timeout) if url is not None else None
        # Subject and body are two calls; a worker that dies gives its message back after this long.
        self._lease_seconds = math.ceil(2 * timeout) + 5
        self._running = asyncio.Lock()
        self._look_again = False

    async def close(self) -> None:
        if self._translator is not None:
            await self._translator.close()

    async def run(self) -> None:
        """Deliver what is due. Raises psycopg.Error, PoolTimeout; the sweep comes back."""
        self._look_again = True
        if self._running.locked():
            return
        async with self._running:
            while self._look_again:
                self._look_again = False
                ended = await asyncio.gather(
                    self._deliver_all(), *(self._translate_all() for _ in range(_AT_ONCE)), return_exceptions=True
                )
                for error in ended:
                    if error is not None:
                        raise error

    async def _deliver_all(self) -> None:
        while message_id := (await self._door.call("diplomail_deliver"))[0]["diplomail_deliver"]:
            log.debug("diplomatic mail delivered", extra={"message_id": str(message_id)})

    async def _translate_all(self) -> None:
        while claimed := await self._door.call("diplomail_claim", lease_seconds=self._lease_seconds):
            row = claimed[0]
            # Not the run's context: it translates the messages of many requests.
            with telemetry.span("translation", row["traceparent"]), logs.bind(request_id=row["request_id"]):
                await self._translate(row)

    async def _translate(self, row: DictRow) -> None:
        subject = body = error = None
        try:
            subject, body = await self._texts(row)
            outcome = "translated"
        except TranslatorRefused as refused:
            outcome, error = "failed", str(refused)
        except TranslatorError as failed:
            outcome, error = "transient", str(failed)
        context = {key: row[key] for key in ("request_id", "traceparent") if row[key] is not None}
        claim = {"message_id": row["message_id"], "language": row["language"], "attempt_no": row["attempt_no"]}
        reported = await self._door.call(
            "diplomail_report", context, **claim, outcome=outcome, subject=subject, body=body, error=error
        )
        status = reported[0]["diplomail_report"]
        fields = {**claim, "message_id": str(row["message_id"]), "status": status}
        if error is None:
            log.info("diplomatic mail translated", extra=fields)
        else:
            log.warning("diplomatic mail not translated", extra={**fields, "error": error})

    async def _texts(self, row: DictRow) -> tuple[str | None, str]:
        if self._translator is None:
            raise TranslatorRefused("there is no translator any more")
        if row["is_spent"]:
            raise TranslatorRefused("nothing is known of the last attempt")
        body = await self._translator.translate(row["body"], row["language"])
        if row["subject"] is None:
            return None, body
        # On one line, whatever was made of it.
        return " ".join((await self._translator.translate(row["subject"], row["language"])).split()), body
