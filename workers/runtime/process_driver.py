"""The driver that runs the development engine as a process of this machine.

Of an engine, its state directory tells everything:

- `engine.lock` is locked as long as the engine lives, from before it is forked: we take the lock and leave it to the
  child, so there is no moment at which a second one could slip in. Only whoever has the lock may start an engine.
- `process.json` says what runs there, or what was about to: it is written before the fork without the process, and
  after it with the process's id and start time, which together mean one process for good.
- `endpoint.json` is the engine's own: where it listens, and the same two numbers.
- `exit.json` is the exit code, if a worker was there to be told it.
- `driver.lock` is held by the worker that starts, stops or removes.

So whatever step a worker dies at, the next one finds the engine, or that there is none. Needs Linux: /proc, pidfds.
"""

from __future__ import annotations

import asyncio
import builtins
import contextlib
import fcntl
import json
import logging
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

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

ROOT = Path(__file__).resolve().parents[2]
LARGEST_LOG = 1 << 20

_RECORD = "process.json"
_ENDPOINT = "endpoint.json"
_EXIT = "exit.json"
_LOG = "engine.log"
_ENGINE_LOCK = "engine.lock"
_DRIVER_LOCK = "driver.lock"

_KILL_TIMEOUT = 10.0
_POLL = 0.01
# What an engine is given of our own environment: nothing of ours that is secret.
_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")
_ENGINE_PREFIX = "GALAXY_ENGINE_"


class _Process(NamedTuple):
    """One process for good: ids are used again, but not with the same start time."""

    pid: int
    started: int

    @property
    def name(self) -> str:
        return f"process-{self.pid}-{self.started}"


@dataclass(frozen=True)
class _Record:
    """process.json; without pid and started, it is what was about to be started."""

    game_id: str
    generation: int
    engine_version: str
    image_ref: str
    stack: str | None
    pid: int | None = None
    started: int | None = None

    @property
    def process(self) -> _Process | None:
        return None if self.pid is None or self.started is None else _Process(self.pid, self.started)


class ProcessDriver:
    """Runs engines under `state_root`, a directory for each game; those of another `stack` are not ours.

    An engine must listen within `start_timeout` seconds; one that is replaced has `stop_grace` seconds to stop.
    Images are `dev-engine:<version>`.
    """

    def __init__(
        self, state_root: Path, stack: str | None = None, *, start_timeout: float = 30.0, stop_grace: float = 10.0
    ) -> None:
        self._root = state_root
        self._stack = stack
        self._start_timeout = start_timeout
        self._stop_grace = stop_grace
        self._closing = threading.Event()

    async def pull(self, image_ref: str) -> None:
        if _version(image_ref) is None:
            raise ImagePullFailed(f"the process driver has dev-engine:<version> only, not {image_ref[:200]!r}")
        if not (ROOT / "dev" / "engine").is_dir():
            raise ImagePullFailed("the development engine is not installed here")

    async def start(self, spec: Spec) -> Observed:
        return await asyncio.to_thread(self._start, spec)

    async def stop(self, game_id: str, grace: float) -> None:
        await asyncio.to_thread(self._stop, game_id, grace)

    async def remove(self, game_id: str) -> None:
        await asyncio.to_thread(self._remove, game_id)

    async def inspect(self, game_id: str) -> Observed | None:
        return await asyncio.to_thread(self._inspect, game_id)

    async def list(self) -> list[Observed]:
        return await asyncio.to_thread(self._list)

    async def logs(self, game_id: str, lines: int) -> str:
        return await asyncio.to_thread(self._logs, game_id, lines)

    async def close(self) -> None:
        """Make whatever waits for an engine give up; the engine itself goes on, to be adopted."""
        self._closing.set()

    # -- what the calls do, each in a thread

    def _start(self, spec: Spec) -> Observed:
        version = _version(spec.image_ref)
        if version is None:
            raise ConfigInvalid(f"the process driver starts dev-engine:<version> only, not {spec.image_ref[:200]!r}")
        directory = self._directory(spec.game_id)
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as error:
            raise ConfigInvalid(f"there can be no state directory: {error}") from error
        try:
            with self._alone(directory, self._start_timeout + self._stop_grace):
                return self._start_alone(spec, version, directory)
        except OSError as error:
            raise StartFailed(f"the engine cannot be started: {error}") from error

    def _start_alone(self, spec: Spec, version: str, directory: Path) -> Observed:
        record = _read_record(directory)
        if record is not None and record.stack == self._stack and record.generation > spec.generation:
            raise Superseded(f"generation {record.generation} is newer than {spec.generation}")
        lock = _take_lock(directory)
        if lock is None:
            process = self._holder(directory, record)
            if process is None or record is None or record.stack != self._stack:
                raise StartFailed("its state directory is in use by an engine that this driver has not started")
            if record.generation == spec.generation:
                if record.process is None:
                    _write_json(directory / _RECORD, asdict(replace(record, **process._asdict())))
                endpoint = self._wait_until_it_listens(directory, process)
                log.info("engine adopted", extra={"game_id": spec.game_id, "generation": spec.generation, "pid": process.pid})
                return _observed(record, process, endpoint)
            log.info("engine replaced", extra={"game_id": spec.game_id, "generation": record.generation, "pid": process.pid})
            _end(process, self._stop_grace)
            lock = _take_lock(directory)
            if lock is None:
                raise StartFailed("the engine of the former generation is gone, but its lock is still held")
        try:
            record = _Record(**asdict(spec), stack=self._stack)
            process = self._fork(record, version, directory, lock)
        finally:
            # The lock itself stays with the child.
            os.close(lock)
        log.info("engine started", extra={"game_id": spec.game_id, "generation": spec.generation, "pid": process.pid})
        return _observed(record, process, self._wait_until_it_listens(directory, process))

    def _fork(self, record: _Record, version: str, directory: Path, lock: int) -> _Process:
        for name in (_ENDPOINT, _EXIT):
            (directory / name).unlink(missing_ok=True)
        for unfinished in directory.glob(".*.new"):
            unfinished.unlink(missing_ok=True)
        _trim_log(directory)
        _write_json(directory / _RECORD, asdict(record))
        environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        environment |= {name: value for name, value in os.environ.items() if name.startswith(_ENGINE_PREFIX)}
        environment |= {
            "GALAXY_ENGINE_STATE_DIR": str(directory),
            "GALAXY_ENGINE_HOST": "127.0.0.1",
            "GALAXY_ENGINE_PORT": "0",
            "GALAXY_ENGINE_VERSION": version,
            "GALAXY_ENGINE_LOCK_FD": str(lock),
            "PYTHONUNBUFFERED": "1",
        }
        # Appended to, so that what is cut off of the file is not written again as a hole.
        output = os.open(directory / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            child = subprocess.Popen(
                [sys.executable, "-m", "dev.engine"],
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(lock,),
                start_new_session=True,
            )
        finally:
            os.close(output)
        # It can have ended, but it cannot be gone: nobody has waited for it.
        started = _start_time(child.pid)
        assert started is not None
        process = _Process(child.pid, started)
        threading.Thread(target=_reap, args=(child, process, directory), name=f"reap {child.pid}", daemon=True).start()
        _write_json(directory / _RECORD, asdict(replace(record, **process._asdict())))
        return process

    def _wait_until_it_listens(self, directory: Path, process: _Process) -> str:
        until = time.monotonic() + self._start_timeout
        while (endpoint := _endpoint(directory, process)) is None:
            if not _is_alive(process):
                raise StartFailed(f"the engine has ended:\n{_tail(directory, 20)}")
            if self._closing.wait(_POLL):
                raise DriverUnavailable("the driver is being closed")
            if time.monotonic() > until:
                _end(process, 0)
                raise StartFailed(f"the engine did not listen within {self._start_timeout:g} s:\n{_tail(directory, 20)}")
        return endpoint

    def _stop(self, game_id: str, grace: float) -> None:
        directory = self._directory(game_id)
        with self._available(), self._alone_with_record(directory, grace) as record:
            if record is not None:
                self._end_holder(directory, record, grace)

    def _remove(self, game_id: str) -> None:
        directory = self._directory(game_id)
        with self._available(), self._alone_with_record(directory, 0) as record:
            if record is None:
                return
            self._end_holder(directory, record, 0)
            # The record last: as long as it is there, so is the container, and can be removed again.
            for name in (_ENDPOINT, _EXIT, _LOG, _RECORD):
                (directory / name).unlink(missing_ok=True)

    def _end_holder(self, directory: Path, record: _Record, grace: float) -> None:
        lock = _take_lock(directory)
        if lock is not None:
            os.close(lock)
            return
        process = self._holder(directory, record)
        if process is None:
            raise DriverUnavailable("its state directory is in use by an engine that this driver has not started")
        if record.process is None:
            _write_json(directory / _RECORD, asdict(replace(record, **process._asdict())))
        _end(process, grace)
        log.info("engine stopped", extra={"game_id": record.game_id, "generation": record.generation, "pid": process.pid})

    def _inspect(self, game_id: str) -> Observed | None:
        directory = self._directory(game_id)
        with self._available():
            record = self._record(directory)
            if record is None:
                return None
            self._bound_log(directory)
            process = record.process or _announced(directory)
            if process is None:
                return _observed(record, None, None)
            if _is_alive(process):
                return _observed(record, process, _endpoint(directory, process))
            return replace(_observed(record, process, None), is_running=False, exit_code=_exit_code(directory, process))

    def _list(self) -> builtins.list[Observed]:
        with self._available():
            try:
                names = sorted(os.listdir(self._root))
            except FileNotFoundError:
                return []
            found = [self._inspect(name) for name in names if _is_game_id(name)]
            return [observed for observed in found if observed is not None]

    def _logs(self, game_id: str, lines: int) -> str:
        directory = self._directory(game_id)
        with self._available():
            return "" if self._record(directory) is None else _tail(directory, lines)

    # -- a game's directory

    def _directory(self, game_id: str) -> Path:
        if not _is_game_id(game_id):
            raise ConfigInvalid(f"{game_id[:80]!r} is not a game's id")
        return self._root / game_id

    def _record(self, directory: Path) -> _Record | None:
        """Return what runs or ran there, None if that is not ours."""
        record = _read_record(directory)
        return record if record is not None and record.stack == self._stack else None

    @contextlib.contextmanager
    def _available(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DriverUnavailable(f"the state directories cannot be used: {error}") from error

    @contextlib.contextmanager
    def _alone(self, directory: Path, patience: float) -> Iterator[None]:
        """Keep other workers from the game's engine; raises DriverUnavailable if one keeps us from it too long."""
        descriptor = os.open(directory / _DRIVER_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            until = time.monotonic() + patience
            while not _lock(descriptor):
                if time.monotonic() > until or self._closing.wait(_POLL):
                    raise DriverUnavailable("another worker is busy with this game's engine")
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _alone_with_record(self, directory: Path, grace: float) -> Iterator[_Record | None]:
        if self._record(directory) is None:
            yield None  # and no lock file is made for a game that nobody runs
            return
        with self._alone(directory, grace + self._start_timeout + self._stop_grace):
            yield self._record(directory)

    def _bound_log(self, directory: Path) -> None:
        with contextlib.suppress(FileNotFoundError, DriverUnavailable):
            if (directory / _LOG).stat().st_size > 2 * LARGEST_LOG:
                with self._alone(directory, 0):
                    _trim_log(directory)

    def _holder(self, directory: Path, record: _Record | None) -> _Process | None:
        """Return the engine that has the lock, if it is the one of the record; to be called with the lock seen taken."""
        if record is None:
            return None
        if record.process is not None:
            return record.process if _is_alive(record.process) else None
        # A worker died between the fork and writing it down.
        announced = _announced(directory)
        if announced is not None and _is_alive(announced):
            return announced
        return _who_holds(directory / _ENGINE_LOCK)


# -- files


def _write_json(path: Path, content: Any) -> None:
    # A name of its own for each writer: exit codes are written at any time.
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.new")
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_record(directory: Path) -> _Record | None:
    content = _read_json(directory / _RECORD)
    try:
        return _Record(**content) if content else None
    except TypeError:
        log.warning("a game's process.json is not ours", extra={"game_id": directory.name})
        return None


def _announced(directory: Path) -> _Process | None:
    """Return the process that endpoint.json is of."""
    content = _read_json(directory / _ENDPOINT)
    pid, started = content.get("pid"), content.get("started")
    return _Process(pid, started) if isinstance(pid, int) and isinstance(started, int) else None


def _endpoint(directory: Path, process: _Process) -> str | None:
    if _announced(directory) != process:
        return None
    return f"http://127.0.0.1:{_read_json(directory / _ENDPOINT).get('port')}"


def _exit_code(directory: Path, process: _Process) -> int | None:
    content = _read_json(directory / _EXIT)
    code = content.get("exit_code")
    return code if (content.get("pid"), content.get("started")) == process and isinstance(code, int) else None


def _tail(directory: Path, lines: int) -> str:
    try:
        with (directory / _LOG).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - LARGEST_LOG))
            text = file.read(LARGEST_LOG).decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def _trim_log(directory: Path) -> None:
    """Keep the end of a log that is too long. Lines that are written meanwhile may be lost."""
    path = directory / _LOG
    with contextlib.suppress(FileNotFoundError), path.open("rb+") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= LARGEST_LOG:
            return
        file.seek(size - LARGEST_LOG // 2)
        kept = file.read(LARGEST_LOG // 2).partition(b"\n")[2]
        file.truncate(0)
        file.seek(0)
        file.write(kept)


def _observed(record: _Record, process: _Process | None, endpoint: str | None) -> Observed:
    return Observed(
        game_id=record.game_id,
        generation=record.generation,
        engine_version=record.engine_version,
        container_id="" if process is None else process.name,
        endpoint=endpoint,
        is_running=process is not None,
        exit_code=None,
    )


def _is_game_id(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _version(image_ref: str) -> str | None:
    match = re.fullmatch(r"dev-engine:([0-9A-Za-z][0-9A-Za-z.+_-]{0,63})", image_ref)
    return None if match is None else match[1]


# -- locks


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _take_lock(directory: Path) -> int | None:
    """Return a descriptor that has the engine's lock, None if an engine has it."""
    descriptor = os.open(directory / _ENGINE_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    # A child that is just being forked for another game has our descriptors for the moment until it is executed.
    for _ in range(5):
        if _lock(descriptor):
            return descriptor
        time.sleep(_POLL)
    os.close(descriptor)
    return None


def _who_holds(path: Path) -> _Process | None:
    """Return a process that has opened a file and holds its lock; looks at every process that we may look at."""
    wanted = path.stat()
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        # Processes and their descriptors come and go.
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    found = descriptor.stat()
                    if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
                        continue
                    started = _start_time(int(process.name))
                    if started is not None and "FLOCK" in (process / "fdinfo" / descriptor.name).read_text():
                        return _Process(int(process.name), started)
    return None


# -- processes


def _stat(pid: int) -> builtins.list[str] | None:
    """Return the fields of /proc/<pid>/stat from the third on; the second, the name, may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def _start_time(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _is_alive(process: _Process) -> bool:
    fields = _stat(process.pid)
    # One that has ended may still wait to be taken note of.
    return fields is not None and int(fields[19]) == process.started and fields[0] not in ("Z", "X")


def _end(process: _Process, grace: float) -> None:
    """Stop a process and wait until it has ended. What is signalled is that process, whoever has its id later."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # From here on the handle means one process; which one, its start time says.
        if _start_time(process.pid) != process.started:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGTERM)
            if not _ends_within(handle, grace):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        if not _ends_within(handle, _KILL_TIMEOUT):
            raise DriverUnavailable(f"process {process.pid} does not end, although it was killed")
    finally:
        os.close(handle)


def _ends_within(handle: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    return bool(poll.poll(max(0.0, seconds) * 1000))


def _reap(child: subprocess.Popen[bytes], process: _Process, directory: Path) -> None:
    """Wait for the end of a child and write it down, for every worker."""
    code = child.wait()
    code = code if code >= 0 else 128 - code
    log.info("engine ended", extra={"game_id": directory.name, "pid": process.pid, "exit_code": code})
    # The directory may be gone, or the disk full: then the code is not known.
    with contextlib.suppress(OSError):
        _write_json(directory / _EXIT, {**process._asdict(), "exit_code": code})
