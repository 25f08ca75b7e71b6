"""The driver that runs engines as containers of a Docker daemon.

What is done to a container is done to it by its id: a worker that is slow never touches the one that has come after.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import math
import time
from typing import Any

import docker
import requests
from docker.errors import APIError, ImageNotFound, NotFound
from docker.models.containers import Container
from docker.types import LogConfig, Mount

from workers.runtime.daemon import (
    DROPPED_CAPABILITIES,
    REQUEST_TIMEOUT,
    STOP_SIGNAL,
    TMPFS,
    TMPFS_MODE,
    TMPFS_SIZE,
    TRIES,
    DaemonDriver,
    engine_name,
    generation_of,
    last_of,
    listens,
    make_state_directory,
    said,
)
from workers.runtime.driver import (
    ConfigInvalid,
    DriverUnavailable,
    ImagePullFailed,
    Observed,
    Spec,
    StartFailed,
    Superseded,
)

log = logging.getLogger("galaxy.runtime")

_RESTART_POLICY: Any = {"Name": "unless-stopped"}


class DockerDriver(DaemonDriver):
    """Runs engines as containers of one daemon."""

    def _start(self, spec: Spec) -> Observed:
        engine_name(spec.game_id)
        with self._daemon() as client:
            for _ in range(TRIES):
                try:
                    container = self._wanted(client, spec)
                    if container is not None:
                        return self._wait_until_it_listens(container)
                except NotFound:
                    continue  # somebody has removed it
            raise DriverUnavailable("others make and remove this game's container all the time")

    def _wanted(self, client: docker.DockerClient, spec: Spec) -> Container | None:
        """Return the container of the spec, started; None if another look is needed."""
        container = self._named(client, spec.game_id)
        if container is None:
            container = self._create(client, spec)
        elif not self._is_ours(container):
            raise StartFailed(f"the name {container.name} is taken by a container that is not ours")
        elif (generation := generation_of(container.labels)) > spec.generation:
            raise Superseded(f"generation {generation} is newer than {spec.generation}")
        elif generation < spec.generation:
            log.info("engine replaced", extra={"game_id": spec.game_id, "generation": generation})
            _end(container, self._config.runtime_stop_grace_period)
            self._discard(container)
            return None
        if container is not None and not container.attrs["State"]["Running"]:
            try:
                container.start()
            except APIError as error:
                # Removed meanwhile, or made for what is not there any more, such as a network: then another is made.
                self._discard(container)
                if isinstance(error, NotFound):
                    return None
                raise StartFailed(f"the container cannot be started: {said(error)}") from error
            log.info("engine started", extra={"game_id": spec.game_id, "generation": spec.generation})
        return container

    def _create(self, client: docker.DockerClient, spec: Spec) -> Container | None:
        """Return a new container that has not been started; None if another has its name meanwhile."""
        config = self._config
        recipe = self._recipe(client, spec)
        make_state_directory(recipe)
        name = engine_name(spec.game_id)
        try:
            return client.containers.create(
                recipe.image,
                name=name,
                hostname=name,
                labels=recipe.labels,
                environment=recipe.environment,
                mounts=[Mount(target=config.runtime_container_state_mount, source=str(recipe.directory), type="bind")],
                network=self._network,
                user=recipe.user,
                nano_cpus=self._nano_cpus,
                mem_limit=config.runtime_container_memory,
                # With as much again of swap, which is Docker's default, the limit would be none.
                memswap_limit=config.runtime_container_memory,
                pids_limit=config.runtime_container_pids_limit,
                security_opt=["no-new-privileges:true"],
                cap_drop=DROPPED_CAPABILITIES,
                read_only=True,
                tmpfs={TMPFS: f"rw,noexec,nosuid,nodev,size={TMPFS_SIZE},mode={TMPFS_MODE:o}"},
                stop_signal=STOP_SIGNAL,
                restart_policy=_RESTART_POLICY,
                log_config=LogConfig(type=config.runtime_container_log_driver, config=self._log_options),
            )
        except ImageNotFound as error:
            raise ImagePullFailed(f"{spec.image_ref[:200]!r}: {said(error)}") from error
        except APIError as error:
            if error.status_code == requests.codes.conflict:
                return None
            kind = ConfigInvalid if error.is_client_error() else StartFailed
            raise kind(f"there can be no such container: {said(error)}") from error

    def _wait_until_it_listens(self, container: Container) -> Observed:
        until = time.monotonic() + self._start_timeout
        restarts: int | None = None
        while True:
            container.reload()
            state = container.attrs["State"]
            restarts = container.attrs["RestartCount"] if restarts is None else restarts
            has_ended = not state["Running"] or state["Restarting"] or container.attrs["RestartCount"] > restarts
            observed = self._observed(container)
            if not has_ended and observed.endpoint is not None and listens(observed.endpoint):
                return observed
            self._wait()
            if has_ended or time.monotonic() > until:
                told = "the engine has ended" if has_ended else f"the engine did not listen within {self._start_timeout:g} s"
                # Else the daemon would start it again and again.
                _end(container, 0)
                raise StartFailed(f"{told}:\n{_tail(container, 20)}")

    def _stop(self, game_id: str, grace: float) -> None:
        with self._daemon() as client, contextlib.suppress(NotFound):
            container = self._ours(client, game_id)
            if container is not None:
                _end(container, grace)
                log.info("engine stopped", extra={"game_id": game_id, "generation": generation_of(container.labels)})

    def _remove(self, game_id: str) -> None:
        with self._daemon() as client:
            container = self._ours(client, game_id)
            if container is not None:
                self._discard(container)

    def _discard(self, container: Container) -> None:
        """Remove a container, running or not, and wait until its name is free."""
        until = time.monotonic() + REQUEST_TIMEOUT
        try:
            while True:
                try:
                    container.remove(force=True)
                except NotFound:
                    raise
                except APIError as error:
                    # Somebody else is removing it.
                    if error.status_code != requests.codes.conflict or time.monotonic() > until:
                        raise
                self._wait()
                container.reload()
        except NotFound:
            return

    def _inspect(self, game_id: str) -> Observed | None:
        with self._daemon() as client:
            container = self._ours(client, game_id)
            return None if container is None else self._observed(container)

    def _list(self) -> builtins.list[Observed]:
        labels = [f"{name}={value}" for name, value in self._labels.items()]
        with self._daemon() as client:
            found = client.containers.list(all=True, filters={"label": labels}, ignore_removed=True)
            return [self._observed(container) for container in found if self._is_ours(container)]

    def _logs(self, game_id: str, lines: int) -> str:
        with self._daemon() as client, contextlib.suppress(NotFound):
            container = self._ours(client, game_id)
            return "" if container is None or lines <= 0 else _tail(container, lines)
        return ""

    # -- containers

    def _named(self, client: docker.DockerClient, game_id: str) -> Container | None:
        name = engine_name(game_id)
        try:
            return client.containers.get(name)
        except NotFound:
            return None

    def _ours(self, client: docker.DockerClient, game_id: str) -> Container | None:
        container = self._named(client, game_id)
        return container if container is not None and self._is_ours(container) else None

    def _is_ours(self, container: Container) -> bool:
        return self._are_ours(container.name, container.labels)

    def _observed(self, container: Container) -> Observed:
        state = container.attrs["State"]
        # Between two tries of the daemon to start it again, it does not run.
        is_running = state["Running"] and not state["Restarting"]
        return Observed(
            game_id=container.labels["galaxy.game_id"],
            generation=generation_of(container.labels),
            engine_version=container.labels.get("galaxy.engine_version", ""),
            container_id=container.id or "",
            endpoint=self._endpoint(container) if is_running else None,
            is_running=is_running,
            exit_code=None if is_running or state["Status"] == "created" else state["ExitCode"],
        )

    def _endpoint(self, container: Container) -> str | None:
        attached = container.attrs["NetworkSettings"]["Networks"].get(self._network)
        if attached is None or not attached["IPAddress"]:
            return None
        return self._url(container.name or "", attached["IPAddress"])


def _end(container: Container, grace: float) -> None:
    container.stop(timeout=math.ceil(grace))


def _tail(container: Container, lines: int) -> str:
    try:
        text = container.logs(tail=lines)
    except NotFound:
        raise
    except APIError as error:
        # Not every log driver can be read.
        return f"(no log: {said(error)})"
    return last_of(bytes(text))
