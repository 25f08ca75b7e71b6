"""`python -m app serve`: the api, the worker and the push streamer of one machine, kept running.

A program that ends is started again. At SIGTERM or SIGINT they stop one after another: the api first, so that
nothing new comes in; then the worker; the streamer last, so that what the others committed is still sent. A
second signal kills them. They cannot outlive the supervisor, not even when it is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from app import dsn, logs
from app.config import FLUSH_SECONDS, Config
from app.schema import EX_CONFIG

ROOT = Path(__file__).resolve().parent.parent
# Seconds that a program may take beyond its own budget, which it is expected to keep by itself: to send its last spans, and more.
MARGIN = 2.0 + FLUSH_SECONDS

log = logging.getLogger("galaxy.serve")

HEALTH_SOCKET = "GALAXY_PUSH_HEALTH_SOCKET"
"""The variable by which the api and the streamer under one `serve` are told where the one asks for the other's health."""

_PR_SET_PDEATHSIG = 1
_STOP = frozenset({signal.SIGTERM, signal.SIGINT})
_SIGNALS = _STOP | {signal.SIGCHLD}

# Looked up before any fork: a forked child should do as little as possible.
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Program:
    """What to run, and how many seconds it may take to stop before it is killed."""

    name: str
    command: Sequence[str]
    stop_timeout: float
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Restarts:
    """When a program is started again, in seconds, and when that is given up.

    The wait doubles from `first_wait` to `longest_wait` while the program ends within `early` of its start.
    When it does so by itself `failures` times in a row, it cannot work; being killed says nothing about that.
    """

    early: float = 5.0
    failures: int = 5
    first_wait: float = 0.5
    longest_wait: float = 5.0


@dataclass
class _Child:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    due: float = 0.0
    wait: float = 0.0
    failures: int = 0


def spawn(
    command: Sequence[str],
    *,
    death_signal: signal.Signals = signal.SIGKILL,
    environment: Mapping[str, str] | None = None,
    output: IO[bytes] | None = None,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program that gets `death_signal` when this thread ends, however that happens.

    It has a session of its own, so that the terminal's Ctrl-C does not reach it. `output` takes its standard
    output and error; `descriptors` it inherits. Not for a process with several threads: Python runs in the forked child.
    """
    parent = os.getpid()

    def prepare() -> None:
        if _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl")
        if os.getppid() != parent:  # it had died before the signal was asked for
            os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        pass_fds=descriptors,
        preexec_fn=prepare,
    )


class Supervisor:
    """Runs programs; the order in which they are given is the order in which they are stopped."""

    def __init__(self, programs: Sequence[Program], restarts: Restarts = Restarts()) -> None:
        self._children = [_Child(program, wait=restarts.first_wait) for program in programs]
        self._restarts = restarts

    def run(self) -> int:
        """Run until a signal or a program that cannot work; return 0 if all stopped in order, else 1.

        Must be called from the main thread. SIGTERM, SIGINT and SIGCHLD are blocked meanwhile.
        """
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            reason = self._keep_running()
            if reason is not None:
                log.error("stopping", extra={"reason": reason})
                sys.stderr.write(f"serve: {reason}\n")
            return 0 if self._stop() and reason is None else 1
        finally:
            self._kill()
            while signal.sigtimedwait(_SIGNALS, 0) is not None:
                pass  # a signal more must not end us before the exit code is told
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def _keep_running(self) -> str | None:
        """Start what is due until a signal comes (None), or return why it is pointless to go on."""
        while True:
            now = time.monotonic()
            for child in self._children:
                if child.process is None and child.due <= now:
                    self._start(child)
            next_due = min((c.due for c in self._children if c.process is None), default=now + 3600)
            received = signal.sigtimedwait(_SIGNALS, max(0.0, next_due - now))
            if received is not None and received.si_signo in _STOP:
                log.info("stopping", extra={"reason": signal.Signals(received.si_signo).name})
                return None
            for child, code in self._ended():
                reason = self._judge(child, code)
                if reason is not None:
                    return reason

    def _start(self, child: _Child) -> None:
        child.started = time.monotonic()
        child.process = spawn(child.program.command, environment=child.program.environment)
        log.info("program started", extra={"program": child.program.name, "pid": child.process.pid})

    def _ended(self) -> Iterator[tuple[_Child, int]]:
        """Yield the children that have ended, with their exit codes; a negative one is a signal."""
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None:
                return
            child = next((c for c in self._children if c.process and c.process.pid == found.si_pid), None)
            if child is None or child.process is None:
                os.waitpid(found.si_pid, 0)  # an orphan: in a container the supervisor may be process 1
                continue
            # Before its number can be anybody else's: what it leaves behind would hold its port.
            os.killpg(found.si_pid, signal.SIGKILL)
            code = child.process.wait()
            child.process = None
            yield child, code

    def _judge(self, child: _Child, code: int) -> str | None:
        """Plan the restart of a child that has ended, or return why there should be none."""
        name, restarts = child.program.name, self._restarts
        now = time.monotonic()
        lived = now - child.started
        fields = {"program": name, "exit_code": code, "seconds": round(lived, 3)}
        if code == EX_CONFIG:
            return f"{name} refuses its configuration (exit code {EX_CONFIG})"
        if lived >= restarts.early:
            child.failures, child.wait = 0, restarts.first_wait
        elif code >= 0:
            child.failures += 1
        if child.failures >= restarts.failures:
            return (
                f"{name} ended {child.failures} times in a row within {restarts.early:g} s of its start,"
                f" the last time with exit code {code}"
            )
        log.warning("program ended", extra={**fields, "restart_in": child.wait})
        child.due = now + child.wait
        child.wait = min(2 * child.wait, restarts.longest_wait)
        return None

    def _stop(self) -> bool:
        """Stop the programs in order; false if any had to be killed."""
        in_order = True
        for child in self._children:
            if child.process is not None:
                log.info("stopping program", extra={"program": child.program.name})
                os.kill(child.process.pid, signal.SIGTERM)
                in_order &= self._await_end(child)
        return in_order

    def _await_end(self, child: _Child) -> bool:
        """Wait for a program to stop; false if it, or at a second signal all, had to be killed."""
        until = time.monotonic() + child.program.stop_timeout
        while True:
            for ended, code in self._ended():
                log.info("program stopped", extra={"program": ended.program.name, "exit_code": code})
            if child.process is None:
                return True
            left = until - time.monotonic()
            if left <= 0:
                log.error("program killed: it did not stop in time", extra={"program": child.program.name})
                self._kill(child)
                return False
            received = signal.sigtimedwait(_SIGNALS, left)
            if received is not None and received.si_signo in _STOP:
                log.warning("killing all programs: a second signal came")
                self._kill()
                return False

    def _kill(self, *children: _Child) -> None:
        for child in children or self._children:
            if child.process is not None:
                os.killpg(child.process.pid, signal.SIGKILL)
                child.process.wait()
                child.process = None


class SqitchError(Exception):
    """Sqitch failed; the message is all that it printed."""


def sqitch(parameters: Mapping[str, str], command: str, *arguments: str, project: Path = ROOT) -> str:
    """Run `sqitch command` of a project on the database that libpq's `parameters` name, and return what it printed.

    Nothing else of the caller's Postgres or Sqitch settings counts. Raises SqitchError.
    """
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "SQITCH_"))}
    # By the environment, since that keeps a password from the command line, and takes all that libpq knows.
    for option in psycopg.pq.Conninfo.get_defaults():
        keyword = option.keyword.decode()
        if option.envvar is not None and keyword in parameters:
            environment[option.envvar.decode()] = parameters[keyword]
    # A change runs `python3` and must find the packages of this one.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    environment["SQITCH_FULLNAME"] = "galaxy"
    environment["SQITCH_EMAIL"] = "galaxy@localhost"
    environment["LC_ALL"] = "C.UTF-8"
    target = f"db:pg:{quote(parameters.get('dbname', ''), safe='')}"
    try:
        answer = subprocess.run(
            ["sqitch", command, "--target", target, *arguments],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise SqitchError("sqitch is not installed: run dev/setup.sh") from None
    if answer.returncode != 0:
        raise SqitchError(f"sqitch {command} ended with {answer.returncode}:\n{answer.stdout}")
    return answer.stdout


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Keep signals that would end us waiting, from us and from what is started meanwhile."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def deploy(deploy_dsn: str) -> str:
    """Bring the database's schema up to this tree's plan and return Sqitch's output; raises SqitchError."""
    found = conninfo_to_dict(dsn.conninfo(deploy_dsn, application_name="galaxy-deploy"))
    # The scripts set what they need; the search path of the programs is not theirs.
    parameters = {key: str(value) for key, value in found.items() if key != "options"}
    # Where it ends between a change and the note of it in its registry, Sqitch would make the change once more, and fail.
    with _undisturbed():
        return sqitch(parameters, "deploy")


def programs(config: Config, directory: Path) -> list[Program]:
    """Return the three programs in the order in which they stop; `directory` is for what they share."""
    longest = config.shutdown_timeout
    kinds = (
        ("api", min(config.http_shutdown_timeout, longest), 0),
        ("worker", longest, 2),
        ("push", min(config.grpc_push_shutdown_timeout, longest), 1),
    )
    return [
        Program(
            name=name,
            command=[sys.executable, "-m", "app", name],
            stop_timeout=budget + MARGIN,
            environment={**os.environ, **_scrape_address(config, offset), HEALTH_SOCKET: str(directory / "push.sock")},
        )
        for name, budget, offset in kinds
    ]


def _scrape_address(config: Config, offset: int) -> dict[str, str]:
    """Give each program a Prometheus address of its own: the configured one, or a port after it."""
    address = config.otel_prometheus_listen_addr
    if config.otel_metrics_exporter != "prometheus" or address.port == 0:
        return {}
    moved = address._replace(port=address.port + offset)
    return {"BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR": str(moved)}


def main(config: Config) -> int:
    """Run the three programs until a signal, in development after a deploy; return the exit code."""
    logs.configure(config.service_name, config.logging_level)
    if config.development and config.postgres_dsn_deploy is not None:
        try:
            deploy(config.postgres_dsn_deploy)
        except SqitchError as error:
            sys.stderr.write(f"serve: {error}\n")
            return 1
        log.info("schema deployed")
    with tempfile.TemporaryDirectory(prefix="galaxy-serve-") as directory:
        return Supervisor(programs(config, Path(directory))).run()
