"""Tasks `runtime_start`, `turn_run`, `runtime_banish`, `runtime_remove`, `runtime_check`, `runtime_logs`, and the reconciler.

Each begins with a claim that gives a lease and ends with a report that names it: whatever a worker dies at, the lease runs out
and the sweep sends another, and what the first one still says counts for nothing. The engine is asked before it is told: an
earlier attempt may have got through.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import psycopg
from psycopg_pool import PoolTimeout

from app import metrics
from app.config import Config
from workers.door import Door
from workers.runtime.driver import (
    ConfigInvalid,
    Driver,
    DriverError,
    DriverUnavailable,
    ImagePullFailed,
    Observed,
    Spec,
    Superseded,
)
from workers.runtime.engine_client import (
    EngineClient,
    EngineError,
    EngineFailed,
    EngineNotInitialised,
    EngineOfAnotherGame,
    EngineRejected,
    EngineTimeout,
    EngineUnreachable,
    State,
)

log = logging.getLogger("galaxy.worker")

_HEALTH_POLL = 0.1
_RECONCILED_AT_ONCE = 8
_LOG_LINES = 2000
_LARGEST_LOG = 256 * 1024


class LeaseLost(Exception):
    """Somebody else works on the engine by now, or may: nothing more is to be done to it."""


class RuntimeTasks:
    """What the job program does with engines, over one driver and one client.

    A lease is for `lease_seconds`; by default it outlasts the two calls that a turn may take, and is taken over no sooner.
    """

    def __init__(
        self, config: Config, door: Door, driver: Driver, client: EngineClient, *, lease_seconds: int | None = None
    ) -> None:
        self._config = config
        self._door = door
        self._driver = driver
        self._client = client
        self._lease_seconds = lease_seconds or round(2 * config.engine_call_timeout + config.engine_probe_timeout + 10)

    @contextlib.asynccontextmanager
    async def _held(self, game_id: str, lease_number: int) -> AsyncIterator[None]:
        """Keep a lease while something goes on that may take longer than it, such as the pulling of an image.

        What goes on is ended by LeaseLost once the lease is another's, or could not be renewed while it lasted.
        """
        limit = asyncio.timeout(self._lease_seconds)

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._lease_seconds / 3)
                asked = asyncio.get_running_loop().time()
                with contextlib.suppress(psycopg.Error, PoolTimeout):
                    is_ours = await self._renewed(game_id, lease_number)
                    if not limit.expired():
                        limit.reschedule(asked + self._lease_seconds if is_ours else asked)

        try:
            async with limit:
                renewing = asyncio.create_task(renew())
                try:
                    yield
                finally:
                    renewing.cancel()
                    await asyncio.wait([renewing])
        except TimeoutError:
            if not limit.expired():
                raise
            raise LeaseLost("the lease is over") from None

    async def _renewed(self, game_id: str, lease_number: int) -> bool:
        """Renew a lease; return whether it is still ours."""
        found = await self._door.call(
            "runtime_lease_renew", game_id=game_id, lease_number=lease_number, lease_seconds=self._lease_seconds
        )
        return bool(found[0]["runtime_lease_renew"])

    async def start(self, game_id: str) -> None:
        """Start a game's engine and tell it the races, or start it anew over its state.

        Raises psycopg.Error; the sweep comes back.
        """
        claimed = await self._door.call("runtime_start_claim", game_id=game_id, lease_seconds=self._lease_seconds)
        if not claimed:
            return
        lease = claimed[0]
        spec = Spec(game_id, lease["generation"], lease["engine_version"], lease["image_ref"])
        operation = lease["operation"]
        fields = {"game_id": game_id, "operation": operation, "generation": spec.generation, "lease": lease["lease_number"]}
        failure: DriverError | EngineError | None = None
        try:
            async with self._held(game_id, lease["lease_number"]):
                try:
                    observed = await self._run(spec)
                    endpoint = await self._healthy(observed)
                    if operation == "start":
                        state = await self._initialise(endpoint, game_id, lease["races"])
                    else:
                        state = await self._client.status(endpoint, game_id)
                except DriverUnavailable:
                    raise
                except (DriverError, EngineError) as error:
                    failure = error
                    # While nobody else can have started another.
                    if not await self._renewed(game_id, lease["lease_number"]):
                        raise LeaseLost("the lease is another's") from error
                    await self._take_away(game_id)
        except (DriverUnavailable, LeaseLost) as error:
            # It passes: the lease runs out, and the sweep sends another.
            log.warning("engine not started yet", extra={**fields, "error": _text(error)})
            return
        if failure is not None:
            metrics.runtime_container_ops_total.add(1, {"op": operation, "outcome": "failed"})
            log.error("engine not started", extra={**fields, "error": _text(failure)})
            await self._door.call(
                "runtime_start_failed",
                game_id=game_id,
                lease_number=lease["lease_number"],
                kind=_start_failure(failure),
                error=_text(failure),
            )
            return
        metrics.runtime_container_ops_total.add(1, {"op": operation, "outcome": "done"})
        await self._door.call(
            "runtime_started",
            game_id=game_id,
            lease_number=lease["lease_number"],
            container_id=observed.container_id,
            endpoint=endpoint,
            turn=state.turn,
            players=_players(state),
        )
        log.info("engine started", extra=fields)

    async def _run(self, spec: Spec) -> Observed:
        """Have an engine run, of an image that is got where there is no container of this generation yet."""
        observed = await self._driver.inspect(spec.game_id)
        if (
            observed is not None
            and observed.generation > spec.generation
            and await self._is_wanted(spec.game_id, spec.generation)
        ):
            # Whoever started it, the database has forgotten them: it has lost its last commits.
            await self._take_away(spec.game_id)
            observed = None
        if observed is None or observed.generation != spec.generation:
            await self._driver.pull(spec.image_ref)
        return await self._driver.start(spec)

    async def _healthy(self, observed: Observed) -> str:
        """Wait until an engine that was started says that it is well, and return where it is."""
        assert observed.endpoint is not None
        deadline = time.monotonic() + self._config.engine_call_timeout
        while True:
            try:
                await self._client.healthz(observed.endpoint)
                return observed.endpoint
            except EngineError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_HEALTH_POLL)

    async def _initialise(self, endpoint: str, game_id: str, races: list[str]) -> State:
        state = await self._client.init(endpoint, game_id, races)
        if {p.race_name for p in state.player} != set(races):
            raise ConfigInvalid("the engine plays other races than those of the game")
        return state

    async def turn(self, game_id: str) -> None:
        """Compute the turn that a game was asked for. Raises psycopg.Error; the sweep comes back."""
        claimed = await self._door.call("turn_claim", game_id=game_id, lease_seconds=self._lease_seconds)
        if not claimed:
            return
        lease = claimed[0]
        fields = {"game_id": game_id, "lease": lease["lease_number"]}
        spec = Spec(game_id, lease["generation"], lease["engine_version"], lease["image_ref"])
        is_asked = False
        # It may be at this turn still, for an earlier attempt: to ask again would be another turn.
        is_outstanding = bool(lease["is_outstanding"])
        try:
            async with self._held(game_id, lease["lease_number"]):
                endpoint, state = await self._status(spec, lease)
                if state.turn < lease["current_turn"]:
                    raise EngineFailed(f"it is in turn {state.turn}, behind ours, {lease['current_turn']}")
                if state.turn == lease["current_turn"] and not state.finished and is_outstanding:
                    await self._driver.stop(game_id, self._config.runtime_stop_grace_period)
                    is_outstanding = False
                    endpoint, state = await self._again(spec, lease["lease_number"])
                if state.turn == lease["current_turn"] and not state.finished:
                    is_asked = is_outstanding = True
                    state = await self._client.turn(endpoint, game_id)
                    if state.turn != lease["current_turn"] + 1:
                        raise EngineFailed(f"the turn after {lease['current_turn']} cannot be {state.turn}")
        except (DriverUnavailable, LeaseLost) as error:
            # It passes: the lease runs out, and the sweep sends another.
            log.warning("turn not computed yet", extra={**fields, "error": _text(error)})
            return
        except (DriverError, EngineError) as error:
            is_unreachable = isinstance(error, DriverError | EngineUnreachable | EngineTimeout)
            kind = "engine_unreachable" if is_unreachable else "generation_failed"
            log.error("turn not computed", extra={**fields, "kind": kind, "error": _text(error)})
            await self._door.call(
                "turn_failed",
                game_id=game_id,
                lease_number=lease["lease_number"],
                kind=kind,
                error=_text(error),
                # It may be at it still: it is left its time, and stopped before it is asked again.
                keeps_lease=is_asked and isinstance(error, EngineTimeout),
                is_outstanding=is_outstanding and not (is_asked and isinstance(error, EngineRejected)),
            )
            return
        reported = await self._door.call(
            "turn_report",
            game_id=game_id,
            lease_number=lease["lease_number"],
            turn=state.turn,
            is_finished=state.finished,
            players=_players(state),
        )
        log.info("turn computed", extra={**fields, "turn": state.turn, "outcome": reported[0]["turn_report"]})

    async def _status(self, spec: Spec, lease: dict[str, Any]) -> tuple[str, State]:
        """Return where the engine is, and its state; one that is not there is started again, once."""
        if lease["endpoint"] is None:
            return await self._again(spec, lease["lease_number"])
        try:
            return lease["endpoint"], await self._client.status(lease["endpoint"], spec.game_id)
        except (EngineUnreachable, EngineOfAnotherGame):
            # Gone, or where it was is another's place now.
            return await self._again(spec, lease["lease_number"])

    async def _again(self, spec: Spec, lease_number: int) -> tuple[str, State]:
        """Start an engine again over its state, and return where it is, and its state."""
        observed = await self._run(spec)
        endpoint = await self._healthy(observed)
        log.warning("engine started again", extra={"game_id": spec.game_id, "lease": lease_number})
        moved = await self._door.call(
            "runtime_moved",
            game_id=spec.game_id,
            lease_number=lease_number,
            container_id=observed.container_id,
            endpoint=endpoint,
        )
        if not moved[0]["runtime_moved"]:
            raise LeaseLost("the lease is another's")
        return endpoint, await self._client.status(endpoint, spec.game_id)

    async def banish(self, game_id: str) -> None:
        """Tell a game's engine which races are out of play. Raises psycopg.Error; the sweep comes back."""
        claimed = await self._door.call("banish_claim", game_id=game_id, lease_seconds=self._lease_seconds)
        if not claimed:
            return
        lease = claimed[0]
        fields = {"game_id": game_id, "lease": lease["lease_number"]}
        spec = Spec(game_id, lease["generation"], lease["engine_version"], lease["image_ref"])
        banished: list[str] = []
        trouble: str | None = None
        try:
            async with self._held(game_id, lease["lease_number"]):
                endpoint, _ = await self._status(spec, lease)
                for race in lease["races"]:
                    await self._banish_one(endpoint, race)
                    banished.append(race)
        except (DriverError, EngineError, LeaseLost) as error:
            trouble = _text(error)
        await self._door.call("banish_report", game_id=game_id, lease_number=lease["lease_number"], races=banished, error=trouble)
        if trouble is not None:
            log.error("races not banished", extra={**fields, "error": trouble})
        if banished:
            log.info("races banished", extra={**fields, "races": len(banished)})

    async def _banish_one(self, endpoint: str, race: str) -> None:
        try:
            await self._client.banish(endpoint, race)
        except EngineRejected as refused:
            # There is no such race: what was wanted is so.
            if refused.status != 404:
                raise

    async def remove(self, game_id: str) -> None:
        """Take away the engine of a game that is over. Raises psycopg.Error; the sweep comes back."""
        claimed = await self._door.call("runtime_remove_claim", game_id=game_id, lease_seconds=self._lease_seconds)
        if not claimed:
            return
        try:
            async with self._held(game_id, claimed[0]["lease_number"]):
                await self._driver.stop(game_id, self._config.runtime_stop_grace_period)
                await self._driver.remove(game_id)
        except (DriverError, LeaseLost) as error:
            # The lease runs out, and the sweep sends another.
            metrics.runtime_container_ops_total.add(1, {"op": "remove", "outcome": "failed"})
            log.error("engine not removed", extra={"game_id": game_id, "error": _text(error)})
            return
        metrics.runtime_container_ops_total.add(1, {"op": "remove", "outcome": "done"})
        await self._door.call("runtime_removed", game_id=game_id, lease_number=claimed[0]["lease_number"])
        log.info("engine removed", extra={"game_id": game_id})

    async def sweep(self) -> None:
        """Put into the queue what is due, and what a lost job has left."""
        await self._door.call("turns_defer", limit=1000)
        await self._door.call("runtimes_unsettled_defer", limit=1000)
        await self._door.call("banishes_defer", limit=1000)
        await self._door.call("runtime_logs_defer", limit=1000)

    async def reconcile(self) -> None:
        """Hold what is recorded against what is there.

        Engines that are wanted are adopted, or started again over their state, or replaced where they do not answer;
        those that nobody wants, or nobody any more, are taken away.
        """
        await self._door.call("finished_engines_unwant", limit=1000)
        # First what is there: of what is started meanwhile, there is a record.
        try:
            there = await self._driver.list()
        except DriverError as error:
            log.warning("engines not listed", extra={"error": _text(error)})
            there = []
        records = {str(record["game_id"]): record for record in await self._door.call("runtimes_list", game_id=None)}
        left = {observed.game_id for observed in there} - {
            game_id for game_id, record in records.items() if (record["wanted"], record["status"]) != ("stopped", "stopped")
        }
        wanted = [r for r in records.values() if _is_to_be_there(r)]
        places = asyncio.Semaphore(_RECONCILED_AT_ONCE)

        async def alone(game_id: str, work: Awaitable[None]) -> None:
            async with places:
                try:
                    await work
                except (psycopg.Error, PoolTimeout):
                    raise
                except Exception:
                    # One game's trouble is not the others'.
                    log.exception("engine not reconciled", extra={"game_id": game_id})

        await asyncio.gather(
            *(alone(game_id, self._take_away_unwanted(game_id)) for game_id in sorted(left)),
            *(alone(str(record["game_id"]), self._reconcile_one(record)) for record in wanted),
        )

    async def _take_away_unwanted(self, game_id: str) -> None:
        if not await self._is_wanted(game_id):
            await self._take_away(game_id)

    async def _take_away(self, game_id: str) -> None:
        """Stop and remove an engine that nobody wants; the reconciler comes back to one that resists."""
        try:
            await self._driver.stop(game_id, self._config.runtime_stop_grace_period)
            await self._driver.remove(game_id)
        except DriverError as error:
            log.warning("engine not taken away", extra={"game_id": game_id, "error": _text(error)})
            return
        log.info("engine taken away", extra={"game_id": game_id})

    async def check(self, game_id: str) -> None:
        """Look at one game's engine as the reconciler does. Raises psycopg.Error; the reconciler comes by."""
        for record in await self._door.call("runtimes_list", game_id=game_id):
            if _is_to_be_there(record):
                await self._reconcile_one(record)

    async def logs(self, game_id: str) -> None:
        """Store the tail of an engine's log. Raises psycopg.Error; the sweep comes back."""
        content: str | None = None
        error: str | None = None
        try:
            content = await self._driver.logs(game_id, _LOG_LINES) or None
            error = None if content else "there is no engine at present, or it has written nothing"
        except DriverUnavailable as trouble:
            log.warning("log not fetched yet", extra={"game_id": game_id, "error": _text(trouble)})
            return
        except DriverError as trouble:
            error = _text(trouble)
        if content is not None:
            # Postgres knows no NUL.
            content = content.replace("\0", "\ufffd").encode()[-_LARGEST_LOG:].decode(errors="ignore")
        await self._door.call("runtime_logs_store", game_id=game_id, content=content, error=error)

    async def _reconcile_one(self, record: dict[str, Any]) -> None:
        game_id = str(record["game_id"])
        spec = Spec(game_id, record["generation"], record["engine_version"], record["image_ref"])
        try:
            observed = await self._driver.inspect(game_id)
            if observed is None or not observed.is_running or observed.endpoint is None or observed.generation != spec.generation:
                if not await self._is_wanted(game_id, spec.generation):
                    return
                if observed is None and record["status"] in ("running", "generating", "generation_failed"):
                    await self._unwell(spec, "is_gone", "its container is gone")
                observed = await self._run(spec)
                await self._door.call("runtime_was_started", game_id=game_id, generation=spec.generation)
                metrics.runtime_container_ops_total.add(1, {"op": "start", "outcome": "done"})
                log.warning("engine started again", extra={"game_id": game_id})
        except (DriverUnavailable, Superseded) as error:
            # Nothing is known of it, or it is somebody else's by now.
            metrics.runtime_health_probes_total.add(1, {"outcome": "unknown"})
            log.warning("engine not looked at", extra={"game_id": game_id, "error": _text(error)})
            return
        except DriverError as error:
            metrics.runtime_container_ops_total.add(1, {"op": "start", "outcome": "failed"})
            if await self._unwell(spec, _start_failure(error), _text(error)) != "superseded":
                # The next pass makes it anew: what it was made for may not be there any more.
                await self._take_away(game_id)
            return
        try:
            assert observed.endpoint is not None
            await self._client.healthz(observed.endpoint)
            await self._client.status(observed.endpoint, game_id)
        except EngineError as error:
            await self._unwell(spec, "does_not_answer", _text(error))
            return
        metrics.runtime_health_probes_total.add(1, {"outcome": "ok"})
        seen = await self._door.call(
            "runtime_observed",
            game_id=game_id,
            generation=observed.generation,
            container_id=observed.container_id,
            endpoint=observed.endpoint,
        )
        if not seen[0]["runtime_observed"]:
            await self._take_away_unwanted(game_id)

    async def _unwell(self, spec: Spec, kind: str, error: str) -> str:
        metrics.runtime_health_probes_total.add(1, {"outcome": kind})
        told = await self._door.call(
            "runtime_unwell",
            game_id=spec.game_id,
            generation=spec.generation,
            kind=kind,
            error=error,
            # Less than from one pass to the next, and more than between two workers' passes at one time.
            patience_seconds=self._config.runtime_reconcile_interval / 2,
        )
        outcome = str(told[0]["runtime_unwell"])
        log.warning("engine not well", extra={"game_id": spec.game_id, "kind": kind, "error": error, "outcome": outcome})
        return outcome

    async def _is_wanted(self, game_id: str, generation: int | None = None) -> bool:
        found = await self._door.call("runtime_is_wanted", game_id=game_id, generation=generation)
        return bool(found[0]["runtime_is_wanted"])


def _is_to_be_there(record: dict[str, Any]) -> bool:
    """Whether an engine is the reconciler's to look at: somebody who has a lease, or starts it, says for themself how it is."""
    return record["wanted"] == "running" and record["status"] != "starting" and not record["is_leased"]


def _players(state: State) -> str:
    return json.dumps([player.to_json() for player in state.player])


def _start_failure(error: Exception) -> str:
    match error:
        case ImagePullFailed():
            return "image_pull_failed"
        case ConfigInvalid() | EngineRejected() | EngineNotInitialised() | EngineOfAnotherGame():
            return "start_config_invalid"
    return "container_start_failed"


def _text(error: Exception) -> str:
    """Return what has happened, and the end of what the engine wrote: at most 500 characters, of which the last ones say why."""
    first, _, rest = f"{type(error).__name__}: {error}".partition("\n")
    return f"{first[:150]}\n{rest[-340:]}".rstrip() if rest else first[:500]
