"""Task `notification_deliver`: what could not be told with its cause."""

from __future__ import annotations

import logging

from psycopg.rows import DictRow

from app.config import Config
from workers.door import Door

log = logging.getLogger("galaxy.worker")

_BATCH = 100


class NotificationDelivery:
    """Delivers by mail what is for administrators, what failed before, and reminders of turns."""

    def __init__(self, config: Config, door: Door) -> None:
        self._admin_email = config.notification_admin_email
        self._door = door

    async def run(self) -> None:
        """Deliver what is due. Raises psycopg.Error; the sweep comes back."""
        while routes := await self._door.call("notification_routes_deliver", limit=_BATCH, admin_email=self._admin_email):
            _tell(routes)
        while routes := await self._door.call("turn_digests_deliver", limit=_BATCH):
            _tell(routes)


def _tell(routes: list[DictRow]) -> None:
    for route in routes:
        fields = {key: route[key] for key in ("route_id", "kind", "status", "error")}
        match route["status"]:
            case "delivered":
                log.debug("notification delivered", extra=fields)
            case "skipped" if not route["is_for_administrators"]:
                log.debug("notification skipped", extra=fields)
            case "skipped":
                log.warning("notification skipped: BACKEND_NOTIFICATION_ADMIN_EMAIL is not set", extra=fields)
            case _:
                log.error("notification not delivered", extra=fields)
