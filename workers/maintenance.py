"""What keeps the database small and honest: retention in batches, the jobs of dead workers, the invariants."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable

from app import metrics
from workers.door import Door

log = logging.getLogger("galaxy.worker")

_BATCH = 1000

# So far a backlog is counted.
_MOST = 100_000

WORKER_TIMEOUT = 15
"""Seconds without a heartbeat after which a worker counts as dead."""

HEARTBEAT = 4.0
"""Seconds between heartbeats."""

_PURGES = (
    "challenges_purge",
    "auth_budgets_purge",
    "admin_attempts_purge",
    "invite_attempts_purge",
    "idempotency_keys_purge",
    "push_events_purge",
    "mail_purge",
    "notifications_purge",
    "malformed_intents_purge",
    "runtime_health_purge",
    "diplomail_purge",
    "jobs_purge",
)


async def purge(door: Door) -> None:
    """Delete what retention lets go, batch by batch."""
    for function in _PURGES:
        deleted = _BATCH
        while deleted == _BATCH:
            deleted = (await door.call(function, limit=_BATCH))[0][function]
            if deleted:
                log.debug("purged", extra={"function": function, "rows": deleted})


async def rescue_jobs(door: Door) -> None:
    """Put the jobs of dead workers back in the queue."""
    for job in await door.call("jobs_rescue", seconds=WORKER_TIMEOUT):
        level = logging.ERROR if job["is_given_up"] else logging.WARNING
        log.log(level, "job of a dead worker", extra=dict(job))


async def settle_entitlements(door: Door) -> None:
    """Write down which grants have come into force, batch by batch; they are in force without it."""
    settled = _BATCH
    while settled == _BATCH:
        settled = (await door.call("entitlements_settle", limit=_BATCH))[0]["entitlements_settle"]
        if settled:
            log.info("entitlements settled", extra={"accounts": settled})


async def check_invariants(door: Door) -> None:
    """Say what must not be."""
    violations = await door.call("invariants_list")
    for violation in violations:
        log.error("invariant violated", extra=dict(violation))
    metrics.invariant_violations.tell(({"invariant": name}, n) for name, n in Counter(v["invariant"] for v in violations).items())


async def tell_metrics(door: Door, queues: Iterable[str]) -> None:
    """Read what only the database can tell; an empty queue is told of too."""
    figures: dict[str, dict[str, tuple[dict[str, str], float]]] = {name: {} for name in metrics.READ_FROM_THE_DATABASE}
    figures["jobs_queued"] = {queue: ({"queue": queue}, 0) for queue in queues}
    for row in await door.call("metrics_read", bound=_MOST):
        if row["metric"] == "jobs_queued" and row["labels"]["queue"] not in figures["jobs_queued"]:
            continue
        figures[row["metric"]][":".join(row["labels"].values())] = (row["labels"], row["value"])
    for name, found in figures.items():
        metrics.READ_FROM_THE_DATABASE[name].tell(found.values())
