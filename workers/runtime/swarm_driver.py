"""The driver that runs engines as services of a Swarm: over many hosts, each game as one service with one task at a time.

The daemon is a manager's. What Swarm calls a task is one container that ever was; a service has one after the other. A
service is stopped by a constraint that no node meets: without replicas its task would be gone, and with it exit code and log.
An update names the version of the service that it was made for, so of many workers one gets through and the others look again.

What Swarm cannot do is listed in docs/swarm.md.
"""

from __future__ import annotations

import builtins
import contextlib
import logging
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import requests
from docker.errors import APIError, NotFound
from docker.models.services import Service

from workers.runtime.daemon import (
    DROPPED_CAPABILITIES,
    PULL_TIMEOUT,
    REQUEST_TIMEOUT,
    STOP_SIGNAL,
    TMPFS,
    TMPFS_MODE,
    TMPFS_SIZE,
    TRIES,
    DaemonDriver,
    Recipe,
    engine_name,
    generation_of,
    last_of,
    listens,
    make_state_directory,
    said,
)
from workers.runtime.driver import (
    ConfigInvalid,
    DriverError,
    DriverUnavailable,
    ImagePullFailed,
    Observed,
    Spec,
    StartFailed,
    Superseded,
)

log = logging.getLogger("galaxy.runtime")

STOPPED = "node.labels.galaxy.engines==none"
"""The constraint of a service that is stopped; no node may have that label."""
RESTART_DELAY = 5
"""Seconds until Swarm starts again what has ended; its own default."""

_ENDED = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
_ENDED_BY_ITSELF = frozenset({"complete", "failed", "rejected"})
_SECOND = 10**9
_SINGLE = {"Replicated": {"Replicas": 1}}

# A docker.DockerClient, of whose services and tasks docker-py's stubs say nothing.
_Client = Any


class _Task(NamedTuple):
    """One try of Swarm to run an engine, on a node or on none yet."""

    id: str
    service_id: str
    generation: int
    state: str
    wanted: str
    container_id: str
    exit_code: int | None
    error: str
    address: str
    is_placed: bool

    @property
    def is_alive(self) -> bool:
        """Whether it may be running, or be about to."""
        return self.is_placed and self.state not in _ENDED


class SwarmDriver(DaemonDriver):
    """Runs engines as services of the Swarm that the daemon is a manager of."""

    def _start(self, spec: Spec) -> Observed:
        engine_name(spec.game_id)
        with self._daemon() as client:
            for _ in range(TRIES):
                try:
                    service = self._wanted(client, spec)
                    if service is not None:
                        return self._wait_until_it_listens(client, service, spec)
                except NotFound:
                    continue  # somebody has removed it
            raise DriverUnavailable("others make, change and remove this game's service all the time")

    def _wanted(self, client: _Client, spec: Spec) -> Service | None:
        """Return the service of the spec, as it is to be; None if another look is needed."""
        service = _named(client, spec.game_id)
        if service is None:
            return self._create(client, spec)
        if not self._is_ours(service):
            raise StartFailed(f"the name {service.name} is taken by a service that is not ours")
        generation = generation_of(_labels(service))
        if generation > spec.generation:
            raise Superseded(f"generation {generation} is newer than {spec.generation}")
        if generation < spec.generation:
            log.info("engine replaced", extra={"game_id": spec.game_id, "generation": generation})
            with _refused("there can be no such service"):
                return service if _update(client, service, **self._service(client, spec)) else None
        if _replicas(service) != 1:
            # Somebody has scaled it. All of it ends first: an engine that still ends would keep the next from the state.
            self._end(client, service, 0)
        if _is_stopped(service):
            return service if _place(client, service, [c for c in _constraints(service) if c != STOPPED]) else None
        return service

    def _create(self, client: _Client, spec: Spec) -> Service | None:
        """Return a new service; None if another has its name meanwhile."""
        wanted = self._service(client, spec)
        try:
            with _refused("there can be no such service"):
                made = client.api.create_service(name=engine_name(spec.game_id), **wanted)
        except _Conflict:
            return None
        log.info("engine started", extra={"game_id": spec.game_id, "generation": spec.generation})
        service: Service = client.services.get(made["ID"])
        return service

    def _service(self, client: _Client, spec: Spec) -> dict[str, Any]:
        """Return what docker-py is to be told to make a game's service, or to change it to; the fields are the daemon's own."""
        config = self._config
        recipe = self._recipe(client, spec)
        if recipe.network.attrs["Scope"] != "swarm":
            raise ConfigInvalid(f"the network {self._network!r} is of one node only")
        return {
            "labels": recipe.labels,
            "mode": _SINGLE,
            # The engine's state is for one at a time. What fails is paused, not undone: no generation comes back.
            "update_config": {"Parallelism": 1, "Order": "stop-first", "FailureAction": "pause"},
            # The name leads to the engine itself.
            "endpoint_spec": {"Mode": "dnsrr"},
            "task_template": {
                "ContainerSpec": {
                    "Image": _exact(recipe, spec.image_ref),
                    "Hostname": engine_name(spec.game_id),
                    "Labels": recipe.labels,
                    "Env": [f"{name}={value}" for name, value in recipe.environment.items()],
                    "User": recipe.user,
                    "Mounts": [
                        {
                            "Type": "bind",
                            "Source": str(recipe.directory),
                            "Target": config.runtime_container_state_mount,
                        },
                        # Never executable, no devices: that is the daemon's own default.
                        {"Type": "tmpfs", "Target": TMPFS, "TmpfsOptions": {"SizeBytes": TMPFS_SIZE, "Mode": TMPFS_MODE}},
                    ],
                    "ReadOnly": True,
                    "CapabilityDrop": DROPPED_CAPABILITIES,
                    "Privileges": {"NoNewPrivileges": True},
                    "StopSignal": STOP_SIGNAL,
                    # Docker stops by whole seconds.
                    "StopGracePeriod": math.ceil(config.runtime_stop_grace_period) * _SECOND,
                },
                "Resources": {
                    "Limits": {
                        "NanoCPUs": self._nano_cpus,
                        "MemoryBytes": config.runtime_container_memory,
                        "Pids": config.runtime_container_pids_limit,
                    },
                },
                "RestartPolicy": {"Condition": "any", "Delay": RESTART_DELAY * _SECOND, "MaxAttempts": 0},
                "Placement": {"Constraints": self._constraints(client, spec.game_id, recipe)},
                "Networks": [{"Target": recipe.network.id}],
                "LogDriver": {"Name": config.runtime_container_log_driver, "Options": self._log_options},
            },
        }

    def _constraints(self, client: _Client, game_id: str, recipe: Recipe) -> builtins.list[str]:
        """Return where a game may run, with its directory there: anywhere, or on the node where it was first started."""
        if self._config.game_state_shared:
            make_state_directory(recipe)
            return []
        here = str(client.info()["Swarm"]["NodeID"])
        home = self._home(client, game_id, here)
        if home == here:
            make_state_directory(recipe)
        return [f"node.id=={home}"]

    def _home(self, client: _Client, game_id: str, here: str) -> str:
        """Return the node that has a game's state, as Swarm was told once; it outlives the service, as the state does."""
        name = engine_name(game_id)
        for _ in range(TRIES):
            with contextlib.suppress(NotFound):
                return str(client.api.inspect_config(name)["Spec"]["Labels"]["galaxy.node"])
            with contextlib.suppress(_Conflict), _refused("the game's node cannot be noted"):
                client.api.create_config(name, here.encode(), labels=self._labels | {"galaxy.node": here})
        raise DriverUnavailable("others note and forget this game's node all the time")

    def _wait_until_it_listens(self, client: _Client, service: Service, spec: Spec) -> Observed:
        ended_before: set[str] | None = None
        step: tuple[str, str, str] | None = None
        until = 0.0
        while True:
            service.reload()
            if generation_of(_labels(service)) > spec.generation:
                raise Superseded(f"generation {generation_of(_labels(service))} is newer than {spec.generation}")
            tasks = [task for task in _tasks(client, service) if task.generation == spec.generation]
            observed = self._observed(service, tasks)
            if observed.endpoint is not None and listens(observed.endpoint):
                return observed
            ended = {task.id: task for task in tasks if task.state in _ENDED_BY_ITSELF}
            ended_before = set(ended) if ended_before is None else ended_before
            failed = [task for task in ended.values() if task.id not in ended_before]
            current = next((task for task in reversed(tasks) if task.wanted in ("ready", "running")), None)
            # Each step has its own time: nodes get the image, and wait for what ran before to end.
            if current is not None and step != (current.id, current.state, current.wanted):
                step = (current.id, current.state, current.wanted)
                until = time.monotonic() + self._patience(current)
            until = until or time.monotonic() + self._start_timeout
            self._wait()
            if _is_stopped(service) and not failed:
                raise StartFailed("somebody has stopped it")
            if failed or time.monotonic() > until:
                # Else Swarm would start it again and again.
                if not _is_stopped(service) and not _place(client, service, [*_constraints(service), STOPPED]):
                    continue  # somebody has changed it
                raise self._failure(client, failed[-1] if failed else current)

    def _patience(self, task: _Task) -> float:
        if task.state == "preparing":
            return PULL_TIMEOUT
        if task.wanted == "ready":
            return self._config.runtime_stop_grace_period + RESTART_DELAY + self._start_timeout
        return self._start_timeout

    def _failure(self, client: _Client, task: _Task | None) -> DriverError:
        """Say why an engine does not run."""
        if task is None or task.state not in _ENDED_BY_ITSELF:
            told = f"the engine did not listen within {self._start_timeout:g} s"
        elif task.state == "rejected":
            told = "no node takes the engine"
        else:
            told = "the engine has ended"
        if task is None:
            return StartFailed(told)
        told += f" ({task.error})" if task.error else ""
        if any(
            words in task.error for words in ("No such image", "pull access denied", "manifest unknown", "not found: manifest")
        ):
            return ImagePullFailed(told)
        if "invalid mount config" in task.error:
            return ConfigInvalid(told)
        return StartFailed(f"{told}:\n{_tail(client, task, 20)}")

    def _stop(self, game_id: str, grace: float) -> None:
        with self._daemon() as client, contextlib.suppress(NotFound):
            service = self._ours(client, game_id)
            if service is not None:
                self._end(client, service, grace)

    def _end(self, client: _Client, service: Service, grace: float) -> None:
        """Stop a service and wait until its engine has ended, unless somebody starts it again; raises NotFound if it is gone."""
        for _ in range(TRIES):
            if _is_stopped(service) or _place(client, service, [*_constraints(service), STOPPED]):
                break
            service.reload()
        else:
            raise DriverUnavailable("others change this game's service all the time")

        def is_ending() -> bool:
            service.reload()
            return _is_stopped(service) and any(task.is_alive for task in _tasks(client, service))

        # What it was started with counts.
        self._wait_while(is_ending, max(grace, _grace(service)))
        log.info("engine stopped", extra={"game_id": _labels(service)["galaxy.game_id"]})

    def _remove(self, game_id: str) -> None:
        with self._daemon() as client, contextlib.suppress(NotFound):
            service = self._ours(client, game_id)
            if service is not None:
                self._end(client, service, 0)
                service.remove()  # type: ignore[no-untyped-call]
                # Somebody may just have started it again: whoever sees it gone may rely on it that nothing of it runs.
                self._wait_while(
                    lambda: any(task.is_alive and task.service_id == service.id for task in _tasks(client, None)), _grace(service)
                )

    def _wait_while(self, is_ending: Callable[[], bool], grace: float) -> None:
        # Swarm takes its time.
        until = time.monotonic() + grace + REQUEST_TIMEOUT
        while is_ending():
            if time.monotonic() > until:
                raise DriverUnavailable("the engine's node does not tell that it has ended")
            self._wait()

    def _inspect(self, game_id: str) -> Observed | None:
        with self._daemon() as client:
            service = self._ours(client, game_id)
            return None if service is None else self._observed(service, _tasks(client, service))

    def _list(self) -> builtins.list[Observed]:
        labels = [f"{name}={value}" for name, value in self._labels.items()]
        with self._daemon() as client:
            services = [service for service in client.services.list(filters={"label": labels}) if self._is_ours(service)]
            for service in services:
                if _replicas(service) > 1:
                    # Several engines over one state. Where there is none, somebody will start one.
                    log.warning("service scaled back to one", extra={"game_id": _labels(service)["galaxy.game_id"]})
                    _place(client, service, _constraints(service))
            tasks = _tasks(client, None)
            return [self._observed(service, [task for task in tasks if task.service_id == service.id]) for service in services]

    def _logs(self, game_id: str, lines: int) -> str:
        with self._daemon() as client:
            service = self._ours(client, game_id)
            if service is None or lines <= 0:
                return ""
            shown = _shown(_tasks(client, service))
            return "" if shown is None else _tail(client, shown, lines)

    def _ours(self, client: _Client, game_id: str) -> Service | None:
        service = _named(client, game_id)
        return service if service is not None and self._is_ours(service) else None

    def _is_ours(self, service: Service) -> bool:
        return self._are_ours(service.name, _labels(service))

    def _observed(self, service: Service, tasks: builtins.list[_Task]) -> Observed:
        labels = _labels(service)
        shown = _shown(tasks)
        is_running = shown is not None and shown.state == "running"
        return Observed(
            game_id=labels["galaxy.game_id"],
            generation=generation_of(labels) if shown is None else shown.generation,
            engine_version=labels.get("galaxy.engine_version", ""),
            container_id="" if shown is None else shown.container_id,
            # One that is told to end is left alone.
            endpoint=(
                self._url(service.name, shown.address)
                if is_running and shown is not None and shown.wanted == "running" and shown.address
                else None
            ),
            is_running=is_running,
            exit_code=shown.exit_code if shown is not None and shown.state in _ENDED else None,
        )


class _Conflict(DriverUnavailable):
    """There is one of that name."""


@contextlib.contextmanager
def _refused(what: str) -> Iterator[None]:
    """Have what the daemon refuses be the configuration's fault; raises _Conflict for a name that is taken."""
    try:
        yield
    except NotFound:
        raise
    except APIError as error:
        if error.status_code == requests.codes.conflict:
            raise _Conflict(f"{what}: {said(error)}") from error
        if error.is_client_error():
            raise ConfigInvalid(f"{what}: {said(error)}") from error
        raise


# -- services


def _named(client: _Client, game_id: str) -> Service | None:
    name = engine_name(game_id)
    try:
        service: Service = client.services.get(name)
    except NotFound:
        return None
    return service


def _labels(service: Service) -> dict[str, str]:
    return dict(service.attrs["Spec"].get("Labels") or {})


def _constraints(service: Service) -> list[str]:
    return list(service.attrs["Spec"]["TaskTemplate"].get("Placement", {}).get("Constraints") or [])


def _is_stopped(service: Service) -> bool:
    return STOPPED in _constraints(service)


def _replicas(service: Service) -> int:
    """Return how many tasks a service is to have: one, unless somebody has scaled it by hand."""
    return int(service.attrs["Spec"]["Mode"]["Replicated"].get("Replicas", 0))


def _grace(service: Service) -> float:
    return int(service.attrs["Spec"]["TaskTemplate"]["ContainerSpec"].get("StopGracePeriod", 0)) / _SECOND


def _place(client: _Client, service: Service, constraints: list[str]) -> bool:
    """Change where a service may run; False if it has been changed since it was looked at."""
    spec = service.attrs["Spec"]
    return _update(
        client,
        service,
        task_template=spec["TaskTemplate"]
        | {"Placement": spec["TaskTemplate"].get("Placement", {}) | {"Constraints": constraints}},
        labels=spec["Labels"],
        mode=_SINGLE,
        update_config=spec["UpdateConfig"],
        endpoint_spec=spec["EndpointSpec"],
    )


def _update(client: _Client, service: Service, **wanted: Any) -> bool:
    """Change a service; False if it has been changed since it was looked at."""
    try:
        client.api.update_service(service.id, service.version, name=service.name, **wanted)
    except APIError as error:
        if "out of sequence" in str(said(error)):
            return False
        raise
    return True


def _exact(recipe: Recipe, image_ref: str) -> str:
    """Return the image as every node understands it alike: by its registry's digest, or as it was made, by its id.

    By its id no node asks a registry for it: it is to be loaded there.
    """
    repository = image_ref.partition("@")[0]
    repository = repository if ":" not in repository.rpartition("/")[2] else repository.rpartition(":")[0]
    for digest in recipe.image.attrs.get("RepoDigests") or []:
        if digest.partition("@")[0] == repository:
            return str(digest)
    return str(recipe.image.id)


# -- tasks


def _tasks(client: _Client, service: Service | None) -> list[_Task]:
    """Return the tasks of a service, or of all, the oldest first; what a node had that is down is over."""
    found = client.api.tasks(filters={} if service is None else {"service": service.id})
    nodes = {node["ID"] for node in client.api.nodes() if node["Status"]["State"] == "down"} if found else set()
    return [_task(task, task.get("NodeID") in nodes) for task in sorted(found, key=lambda task: (task["CreatedAt"], task["ID"]))]


def _task(found: dict[str, Any], is_lost: bool) -> _Task:
    status = found["Status"]
    container = status.get("ContainerStatus") or {}
    state = "orphaned" if is_lost and status["State"] not in _ENDED else status["State"]
    addresses = [address for attached in found.get("NetworksAttachments") or [] for address in attached.get("Addresses") or []]
    return _Task(
        id=found["ID"],
        service_id=found["ServiceID"],
        generation=generation_of(found["Spec"]["ContainerSpec"].get("Labels") or {}),
        state=state,
        wanted=found["DesiredState"],
        container_id=container.get("ContainerID", ""),
        # Of one that is lost nothing is known.
        exit_code=container.get("ExitCode") if status["State"] in _ENDED else None,
        error=status.get("Err") or "",
        address=addresses[0].partition("/")[0] if addresses else "",
        is_placed=bool(found.get("NodeID")),
    )


def _shown(tasks: list[_Task]) -> _Task | None:
    """Return the task that stands for a service: the newest that runs, else the newest of which there ever was a container."""
    with_container = [task for task in tasks if task.container_id]
    running = [task for task in with_container if task.state == "running"]
    return next(reversed(running or with_container), None)


def _tail(client: _Client, task: _Task, lines: int) -> str:
    """Return the end of a task's log, which docker-py knows only of whole services."""
    api = client.api
    answer = api.get(
        f"{api.base_url}/v{api.api_version}/tasks/{task.id}/logs",
        params={"stdout": "1", "stderr": "1", "tail": str(lines)},
        timeout=REQUEST_TIMEOUT,
    )
    if not answer.ok:
        # Not every log driver can be read.
        return f"(no log: {answer.text[:300].strip()})"
    return last_of(_unframed(answer.content))


def _unframed(content: bytes) -> bytes:
    """Return what was written, of frames that each tell their stream and length."""
    written = []
    while content:
        length = int.from_bytes(content[4:8], "big")
        written.append(content[8 : 8 + length])
        content = content[8 + length :]
    return b"".join(written)
