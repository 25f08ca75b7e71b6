"""What every driver does: `process`, `docker`, `swarm`. tests/integration/test_driver.py holds them to it.

A driver runs at most one engine for a game, and remembers nothing: what it knows is with the engines (labels, files),
so that another worker, or this one after a restart, sees the same. A game's *generation* is counted up by whoever
wants its engine replaced; a driver never goes back to an older one.

`container` stands for whatever a driver runs an engine in: a container, a service, a process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class DriverError(Exception):
    """A driver has not done what it was asked for; the text is for logs and administrators."""


class ImagePullFailed(DriverError):
    """The image is not there and cannot be got."""


class StartFailed(DriverError):
    """The container cannot be started, or its engine ended, or never listened."""


class ConfigInvalid(DriverError):
    """What was asked for cannot work, however often it is tried: a bad reference, a state root that is not writable."""


class Superseded(DriverError):
    """There is a container of a newer generation; it is left as it is."""


class DriverUnavailable(DriverError):
    """What runs the containers cannot be asked, or another worker is busy with this game; to be tried again."""


@dataclass(frozen=True)
class Spec:
    """The engine that is wanted for a game. `game_id` is a UUID in its canonical form."""

    game_id: str
    generation: int
    engine_version: str
    image_ref: str


@dataclass(frozen=True)
class Observed:
    """A game's container as it is now.

    `container_id` differs for each container that ever was; `endpoint` is where callers reach the engine
    (`http://host:port`), None when it does not run or does not listen yet. `exit_code` is known, if at all, once it
    has ended; 128 and the signal's number for one that a signal has ended.
    """

    game_id: str
    generation: int
    engine_version: str
    container_id: str
    endpoint: str | None
    is_running: bool
    exit_code: int | None


class Driver(Protocol):
    """Each method may be called for any game at any time, by any number of workers at once, and repeated after a crash.

    Each raises DriverError; only `pull` and `start` those of its kinds that are named there.
    """

    async def pull(self, image_ref: str) -> None:
        """Make an image available, as the pull policy says; raises ImagePullFailed, ConfigInvalid."""

    async def start(self, spec: Spec) -> Observed:
        """Have this generation of the game's engine run, and return it with its endpoint.

        One that runs already is adopted, one that has ended is started again over the same state, and one of an older
        generation is stopped and replaced. That it runs does not mean that it answers: wait for its healthz.
        Raises StartFailed, ConfigInvalid, Superseded, ImagePullFailed.
        """

    async def stop(self, game_id: str, grace: float) -> None:
        """Stop the engine: SIGTERM, and SIGKILL after `grace` seconds. Nothing to stop is a success."""

    async def remove(self, game_id: str) -> None:
        """Do away with the container, running or not; the game's state stays. Nothing to remove is a success."""

    async def inspect(self, game_id: str) -> Observed | None:
        """Return the game's container, None if it has none."""

    async def list(self) -> list[Observed]:
        """Return every container of this platform (of its stack label), running or not."""

    async def logs(self, game_id: str, lines: int) -> str:
        """Return the last lines that the container has written; nothing if there is no container."""

    async def close(self) -> None:
        """Let go of what the driver holds. Engines go on."""
