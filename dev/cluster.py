"""Private Postgres clusters: for `make run`, the tests and the benchmarks.

A cluster lives in one directory, listens on a Unix socket and on a TCP port of 127.0.0.1, and trusts
whoever can connect to it: it is for one machine and for nothing of value. It never touches the system's
own clusters.

Postgres refuses to run as root. Started by root, it runs as the system user `postgres`; and where that
user cannot reach the directory (a clone under /root), the files are kept under /var/tmp, with a symbolic
link at the intended place.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import os
import pwd
import re
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal
from urllib.parse import quote

import psycopg
from psycopg import sql

from app.supervisor import ROOT, sqitch

MINIMUM_MAJOR = 15
DEPLOY_LOGIN = "galaxy_deploy"

StopMode = Literal["fast", "immediate"]
_STOP_SIGNALS: Mapping[str, signal.Signals] = {"fast": signal.SIGINT, "immediate": signal.SIGQUIT}

# What a server may lose is decided by these. After `crash()` only the first two have kept every commit.
DURABLE: Mapping[str, str] = MappingProxyType({})
KILLABLE: Mapping[str, str] = MappingProxyType({"fsync": "off", "full_page_writes": "off"})
THROW_AWAY: Mapping[str, str] = MappingProxyType({**KILLABLE, "synchronous_commit": "off"})

_ALWAYS = {
    "max_connections": "300",
    "max_prepared_transactions": "0",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements carry codes and addresses, and messages quote them: none of it may reach a log. An error is
    # for its client, who gets all of it; the log keeps what the server itself has to say.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class ClusterError(Exception):
    """The cluster cannot be made, started or used; the message says why and what to do."""


def find_binaries() -> Path:
    """Return the directory of the server's programs: that of PATH, else the newest; version 15 or later."""
    places = [Path(found).resolve().parent for found in (shutil.which("postgres"),) if found]
    installed = (Path(name) for name in glob.glob("/usr/lib/postgresql/*/bin"))
    places += sorted(installed, key=lambda place: _number(place.parent.name), reverse=True)
    for place in places:
        if (place / "postgres").is_file() and (place / "initdb").is_file() and _major(place) >= MINIMUM_MAJOR:
            return place
    raise ClusterError(f"no Postgres server of version {MINIMUM_MAJOR} or newer was found: run dev/setup.sh")


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def _major(binaries: Path) -> int:
    answer = subprocess.run([binaries / "postgres", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"\b(\d+)", answer.stdout)
    return int(found[1]) if found else 0


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_for(pidfd: int, timeout: float | None = None) -> bool:
    """Wait for a process to end; false when `timeout` seconds did not suffice."""
    poll = select.poll()  # select() takes no descriptor above 1023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout is None else timeout * 1000))


class Cluster:
    """One Postgres cluster in `directory`, made by the first `start`.

    `port` 0 takes a free one at the first start and keeps it. `settings` are written to the server's
    configuration at every start. With `die_with_parent` the server stops however its starter ends; it must
    then be started from a thread that lives as long as it should. A cluster that another process runs is
    reached by `Cluster(directory)`. With `copy_of` the first start makes it a standby of that running cluster, which it
    follows until it is promoted. As a context manager it is started, and stopped at the end.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] = DURABLE,
        die_with_parent: bool = False,
        copy_of: Cluster | None = None,
    ) -> None:
        self.directory = Path(os.path.abspath(directory))
        self.settings = {**_ALWAYS, **settings}
        self.die_with_parent = die_with_parent
        self.copy_of = copy_of
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = pwd.getpwuid(os.geteuid())
        self._as_owner: list[str] = []
        if os.geteuid() == 0:
            self._owner = _postgres_user()
            self._as_owner = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
        short = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:16]
        self.socket_directory = Path("/tmp") / f"galaxy-{short}"  # noqa: S108  # a socket's path has at most 107 bytes
        self._elsewhere = Path("/var/tmp") / f"galaxy-{short}"  # noqa: S108  # see the module's docstring

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    # -- where it is

    @property
    def data(self) -> Path:
        return self.directory.resolve() / "data"

    @property
    def log(self) -> Path:
        return self.directory / "postgres.log"

    @property
    def pid(self) -> int | None:
        """The running postmaster's process id, whoever started it; None when there is none."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            # The file outlives a killed server, and its number may be anybody's now.
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            return pid if os.fsencode(self.data) in command else None
        except (OSError, ValueError):
            return None

    @property
    def port(self) -> int:
        """The TCP port, which also names the socket; raises ClusterError before the first start."""
        if not self._port:
            with contextlib.suppress(OSError, ValueError, IndexError):
                self._port = int((self.data / "postmaster.pid").read_text().split("\n")[3])
        if not self._port:
            raise ClusterError(f"the cluster in {self.directory} has not been started")
        return self._port

    def dsn(self, login: str, database: str) -> str:
        """Return a connection string for our programs: by the socket, the search path pinned as pgx does."""
        host = quote(str(self.socket_directory), safe="")
        return (
            f"postgresql://{quote(login, safe='')}@/{quote(database, safe='')}?host={host}&port={self.port}&search_path=backend"
        )

    def connect(self, database: str = "postgres", login: str = "postgres", **parameters: Any) -> psycopg.Connection[Any]:
        """Connect by the socket, with autocommit; `parameters` are psycopg's or libpq's, and win."""
        defaults: dict[str, Any] = {
            "host": str(self.socket_directory),
            "port": self.port,
            "user": login,
            "dbname": database,
            "autocommit": True,
            "connect_timeout": 10,
        }
        return psycopg.connect(**defaults | parameters)

    # -- its life

    def start(self, timeout: float = 60) -> None:
        """Make the cluster if it is not there, start it and wait until it answers.

        Raises ClusterError with the server's last words.
        """
        if self._process is not None and self._process.poll() is None:
            raise ClusterError(f"the cluster in {self.directory} has been started already")
        binaries = find_binaries()
        self._make_directories()
        if not self.data.exists():
            self._initialise(binaries)
        # Killed, its former owner left it running. It goes before a second server finds the lock file.
        self.stop()
        self._write_settings()
        fixed = bool(self._port)
        for _ in range(1 if fixed else 5):
            self._port = self._port if fixed else free_port()
            if self._run(binaries, timeout):
                self._create_deploy_login()
                return
        raise ClusterError(f"Postgres does not start in {self.directory}:\n{self._log_tail()}")

    def stop(self, mode: StopMode = "fast", timeout: float = 60) -> None:
        """Stop the server, if it runs, and wait for its end; after `timeout` seconds it is killed."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                ended = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(ended, _STOP_SIGNALS[mode])
                    if not _wait_for(ended, timeout):
                        self.crash()
                finally:
                    os.close(ended)
        self._reap()

    def crash(self) -> None:
        """Kill the postmaster and its children at once (kill -9)."""
        pid = self.pid
        if pid is None:
            raise ClusterError(f"no server runs in {self.directory}")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        # They share memory with the postmaster, and no new one starts while any of them is left.
        family = [os.pidfd_open(pid)]
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                family.append(os.pidfd_open(int(child)))
        for member in family:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(member, signal.SIGKILL)
        for member in family:
            _wait_for(member)
            os.close(member)
        self._reap()

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start on the same port and socket."""
        port = self.port
        self.stop(mode)
        self._port = port
        self.start()

    def promote(self) -> None:
        """Make a standby a primary, and wait until it can be written to."""
        with self.connect() as connection:
            connection.execute("SELECT pg_promote(wait => true, wait_seconds => 60)")

    def destroy(self) -> None:
        """Stop the server and remove all of its files."""
        self.stop("immediate")
        shutil.rmtree(self.socket_directory, ignore_errors=True)
        if self.directory.is_symlink():
            self.directory.unlink()
            shutil.rmtree(self._elsewhere, ignore_errors=True)
        else:
            shutil.rmtree(self.directory, ignore_errors=True)

    # -- its databases

    def has_database(self, name: str) -> bool:
        with self.connect() as connection:
            found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [name])
            return found.fetchone() is not None

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create a database that the deploying login owns, as a copy of `template` if one is given."""
        statement = sql.SQL("CREATE DATABASE {} OWNER {}{}").format(
            sql.Identifier(name),
            sql.Identifier(DEPLOY_LOGIN),
            sql.SQL(" TEMPLATE {}").format(sql.Identifier(template)) if template is not None else sql.SQL(""),
        )
        with self.connect() as connection:
            connection.execute(statement)

    def drop_database(self, name: str) -> None:
        """Drop a database if it exists, with the connections to it."""
        statement = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        with self.connect() as connection:
            connection.execute(statement)

    def sqitch(self, database: str, command: str, *arguments: str, project: Path = ROOT) -> str:
        """Run `sqitch command --target … arguments…` of this project as the deploying login and return its output.

        Raises SqitchError with that output when it fails.
        """
        parameters = {
            "host": str(self.socket_directory),
            "port": str(self.port),
            "user": DEPLOY_LOGIN,
            "dbname": database,
        }
        return sqitch(parameters, command, *arguments, project=project)

    # -- inside

    def _make_directories(self) -> None:
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        self._make_private(self.socket_directory)
        if self.directory.is_symlink():
            if self.directory.readlink() != self._elsewhere:
                raise ClusterError(f"{self.directory} is a symbolic link that is not ours: remove it")
            self._make_private(self._elsewhere)
        elif self._owner_reaches(self.directory.parent):
            self._make_private(self.directory)
        else:
            self._make_private(self._elsewhere)
            self.directory.symlink_to(self._elsewhere)

    def _owner_reaches(self, directory: Path) -> bool:
        if not self._as_owner:
            return True
        tried = subprocess.run([*self._as_owner, "test", "-x", directory], cwd="/", check=False)
        return tried.returncode == 0

    def _make_private(self, directory: Path) -> None:
        """Make a directory for the server's user alone; one that somebody else put there is refused."""
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = directory.lstat()
        ours = (os.geteuid(), self._owner.pw_uid)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid not in ours or found.st_mode & 0o077:
            raise ClusterError(f"{directory} is in the way: it is not a private directory of ours")
        os.chown(directory, self._owner.pw_uid, self._owner.pw_gid)

    def _initialise(self, binaries: Path) -> None:
        # Renamed when it is complete, so that an interrupted one is never taken for a cluster.
        unfinished = self.data.with_name("data.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        answer = subprocess.run(
            [*self._as_owner, *(self._init(binaries, unfinished) if self.copy_of is None else self._copy(binaries, unfinished))],
            cwd="/",
            env=self._environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if answer.returncode != 0:
            raise ClusterError(f"the cluster cannot be made ({answer.returncode}):\n{answer.stdout}")
        if self.copy_of is None:
            with (unfinished / "postgresql.conf").open("a") as configuration:
                configuration.write("\ninclude = 'galaxy.conf'\n")
        unfinished.rename(self.data)

    def _init(self, binaries: Path, directory: Path) -> list[str]:
        return [
            str(binaries / "initdb"),
            f"--pgdata={directory}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--data-checksums",
            "--no-instructions",
            *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
        ]

    def _copy(self, binaries: Path, directory: Path) -> list[str]:
        assert self.copy_of is not None
        return [
            str(binaries / "pg_basebackup"),
            f"--pgdata={directory}",
            f"--host={self.copy_of.socket_directory}",
            f"--port={self.copy_of.port}",
            "--username=postgres",
            "--checkpoint=fast",
            "--write-recovery-conf",
            *(["--no-sync"] if self.settings.get("fsync") == "off" else []),
        ]

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def _write_settings(self) -> None:
        lines = [f"{name} = '{value}'\n" for name, value in self.settings.items()]
        configuration = self.data / "galaxy.conf"
        configuration.write_text("".join(lines))
        os.chown(configuration, self._owner.pw_uid, self._owner.pw_gid)

    def _run(self, binaries: Path, timeout: float) -> bool:
        command = [
            *self._as_owner,
            *self._mortal(),
            str(binaries / "postgres"),
            "-D",
            str(self.data),
            "-c",
            f"port={self._port}",
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            f"unix_socket_directories={self.socket_directory}",
        ]
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal is for the starter, who stops things in order.
            self._process = subprocess.Popen(
                command,
                cwd="/",
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + timeout
        while self._process.poll() is None:
            try:
                self.connect().close()
                return True
            except psycopg.OperationalError as error:
                if time.monotonic() > until:
                    self._process.kill()
                    self._reap()
                    raise ClusterError(f"Postgres does not answer: {error}\n{self._log_tail()}") from error
                time.sleep(0.02)
        self._process = None
        return False

    def _mortal(self) -> list[str]:
        """Return the command prefix that makes the server end when its parent does, whenever that is."""
        if not self.die_with_parent:
            return []
        # The parent may have died before the signal was asked for: then the shell already has another one.
        script = '[ "$PPID" = "$0" ] && exec "$@"'
        death = "INT" if self.settings.get("fsync") != "off" else "QUIT"
        return ["setpriv", "--pdeathsig", death, "sh", "-c", script, str(os.getpid())]

    def _create_deploy_login(self) -> None:
        with self.connect() as connection:
            found = connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [DEPLOY_LOGIN])
            if found.fetchone() is None:
                role = sql.Identifier(DEPLOY_LOGIN)
                connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE").format(role))

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
            self._process = None

    def _log_tail(self) -> str:
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        except OSError:
            return ""


def _postgres_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        raise ClusterError("Postgres refuses to run as root, and there is no system user postgres") from None


@contextlib.contextmanager
def throw_away(settings: Mapping[str, str] = THROW_AWAY) -> Iterator[Cluster]:
    """A running cluster in a temporary directory, gone at the end of the block or with this process."""
    parent = Path(tempfile.mkdtemp(prefix="galaxy-cluster-"))
    parent.chmod(0o711)
    cluster = Cluster(parent / "postgres", settings=settings, die_with_parent=True)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.destroy()
        shutil.rmtree(parent, ignore_errors=True)


def guard(directory: Path, owner: int) -> None:
    """Run a throw-away cluster in `directory`/postgres until the process `owner` ends or SIGTERM comes.

    Prints `ready` once it answers; removes `directory` at the end. The cluster of a test run is shared by
    processes that come and go, so none of them can be its parent: this is, and it ends with the one process
    that outlives the others, even when that one is killed.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    cluster = Cluster(directory / "postgres", settings=THROW_AWAY, die_with_parent=True)
    try:
        ended = os.pidfd_open(owner)
        cluster.start()
        print("ready", flush=True)
        _wait_for(ended)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        cluster.destroy()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] != "guard":
        sys.exit("usage: python -m dev.cluster guard DIRECTORY OWNER_PID")
    guard(Path(sys.argv[2]), int(sys.argv[3]))
