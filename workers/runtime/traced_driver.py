"""A driver whose operations are spans of the trace in which they are asked for, whatever runs the containers."""

from __future__ import annotations

from app import telemetry
from workers.runtime.driver import Driver, Observed, Spec


class TracedDriver:
    """Does what another driver does (`workers.runtime.driver`)."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    async def pull(self, image_ref: str) -> None:
        with telemetry.child("container pull"):
            await self._driver.pull(image_ref)

    async def start(self, spec: Spec) -> Observed:
        with telemetry.child("container start"):
            return await self._driver.start(spec)

    async def stop(self, game_id: str, grace: float) -> None:
        with telemetry.child("container stop"):
            await self._driver.stop(game_id, grace)

    async def remove(self, game_id: str) -> None:
        with telemetry.child("container remove"):
            await self._driver.remove(game_id)

    async def inspect(self, game_id: str) -> Observed | None:
        with telemetry.child("container inspect"):
            return await self._driver.inspect(game_id)

    async def list(self) -> list[Observed]:
        with telemetry.child("container list"):
            return await self._driver.list()

    async def logs(self, game_id: str, lines: int) -> str:
        with telemetry.child("container logs"):
            return await self._driver.logs(game_id, lines)

    async def close(self) -> None:
        await self._driver.close()
