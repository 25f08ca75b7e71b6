"""Task `diplomail_deliver`: broadcasts, which are written game by game, and messages that wait for their translation."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable

from psycopg.rows import DictRow

from app import logs, telemetry
from app.config import Config
from workers.door import Door
from workers.translator import Translator, TranslatorError, TranslatorRefused

log = logging.getLogger("galaxy.worker")

# One message that the translator takes long over does not hold up the others.
_TRANSLATIONS_AT_ONCE = 4

AT_ONCE = 1 + _TRANSLATIONS_AT_ONCE
"""How many runs at once: as many as there are lanes, so that there is one for whichever lane is free."""


class DiplomailDelivery:
    """Delivers what waits for a worker, in lanes beside each other: broadcasts, and what is translated or cannot be."""

    def __init__(self, config: Config, door: Door) -> None:
        self._door = door
        url, timeout = config.diplomail_translator_url, config.diplomail_translator_timeout
        self._translator = Translator(url, timeout) if url is not None else None
        # Subject and body are two calls; a worker that dies gives its message back after this long.
        self._lease_seconds = math.ceil(2 * timeout) + 5
        self._lanes = [_Lane(self._broadcast_next), *(_Lane(self._translate_next) for _ in range(_TRANSLATIONS_AT_ONCE))]

    async def close(self) -> None:
        if self._translator is not None:
            await self._translator.close()

    async def run(self) -> None:
        """Deliver what is due. Raises psycopg.Error, PoolTimeout; the sweep comes back."""
        ended = await asyncio.gather(*(lane.run() for lane in self._lanes), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    async def _broadcast_next(self) -> bool:
        game_id = (await self._door.call("diplomail_broadcast"))[0]["diplomail_broadcast"]
        if game_id is not None:
            log.debug("broadcast written", extra={"game_id": str(game_id)})
        return game_id is not None

    async def _translate_next(self) -> bool:
        claimed = await self._door.call("diplomail_claim", lease_seconds=self._lease_seconds)
        for row in claimed:
            # Not the run's context: it translates the messages of many requests.
            with telemetry.span("translation", row["traceparent"]), logs.bind(request_id=row["request_id"]):
                await self._translate(row)
        return bool(claimed)

    async def _translate(self, row: DictRow) -> None:
        subject = body = error = None
        try:
            subject, body = await self._texts(row)
            outcome = "translated"
        except TranslatorRefused as refused:
            outcome, error = "failed", str(refused)
        except TranslatorError as failed:
            outcome, error = "transient", str(failed)
        claim = {"message_id": row["message_id"], "language": row["language"], "attempt_no": row["attempt_no"]}
        reported = await self._door.call("diplomail_report", **claim, outcome=outcome, subject=subject, body=body, error=error)
        status = reported[0]["diplomail_report"]
        fields = {**claim, "message_id": str(row["message_id"]), "status": status}
        if error is None:
            log.info("diplomatic mail translated", extra=fields)
        else:
            log.warning("diplomatic mail not translated", extra={**fields, "error": error})

    async def _texts(self, row: DictRow) -> tuple[str | None, str]:
        if row["known_body"] is not None:
            return row["known_subject"], row["known_body"]
        if self._translator is None:
            raise TranslatorRefused("there is no translator any more")
        if row["is_spent"]:
            raise TranslatorRefused("nothing is known of the last attempt")
        body = await self._translator.translate(row["body"], row["language"])
        if row["subject"] is None:
            return None, body
        # On one line, whatever was made of it.
        return " ".join((await self._translator.translate(row["subject"], row["language"])).split()), body


class _Lane:
    """Does one thing after another until there is nothing to do.

    One run at a time: whoever is woken meanwhile makes the run that goes on look once more.
    """

    def __init__(self, do_next: Callable[[], Awaitable[bool]]) -> None:
        """`do_next` says whether there was something to do."""
        self._do_next = do_next
        self._running = asyncio.Lock()
        self._look_again = False

    async def run(self) -> None:
        self._look_again = True
        if self._running.locked():
            return
        async with self._running:
            while self._look_again:
                self._look_again = False
                while await self._do_next():
                    pass
