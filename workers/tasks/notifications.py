"""Task `notification_deliver`: put due mail notifications into the outbox."""

from __future__ import annotations

import logging

from app import metrics
from app.config import Config
from workers.door import Door

log = logging.getLogger("galaxy.worker")

_BATCH = 100


class NotificationDelivery:
    """Delivers the routes that need an address: the person's, or the administrators'."""

    def __init__(self, config: Config, door: Door) -> None:
        self._admin_email = config.notification_admin_email
        self._door = door

    async def run(self) -> None:
        """Deliver what is due. Raises psycopg.Error; the sweep comes back."""
        delivered = _BATCH
        while delivered == _BATCH:
            routes = await self._door.call("notification_routes_deliver", limit=_BATCH, admin_email=self._admin_email)
            delivered = len(routes)
            for route in routes:
                metrics.notification_routes_total.add(1, {"channel": "email"})
                if route["status"] == "skipped":
                    log.warning("notification skipped: there is no address", extra=_fields(route))
                elif route["status"] != "delivered":
                    log.error("notification not delivered", extra=_fields(route))


def _fields(route: dict[str, object]) -> dict[str, object]:
    return {"route_id": route["route_id"], "kind": route["kind"], "status": route["status"], "error": route["error"]}
