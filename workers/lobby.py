"""What is over in the lobby is closed: enrolment, invites, the time to register a race name."""

from __future__ import annotations

import logging

from workers.door import Door

log = logging.getLogger("galaxy.worker")

_BATCH = 100

# Functions of the door that close so many at most and return how many they closed.
_SWEEPS = ("enrollments_close", "invites_expire", "race_names_expire")


async def sweep(door: Door) -> None:
    """Close what is over, batch by batch; any number of workers may do so at once."""
    for function in _SWEEPS:
        closed = _BATCH
        while closed == _BATCH:
            closed = (await door.call(function, limit=_BATCH))[0][function]
            if closed:
                log.info("closed in the lobby", extra={"function": function, "rows": closed})
