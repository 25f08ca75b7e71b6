"""Real databases for tests: a pytest plugin.

One throw-away cluster serves a whole run, xdist's workers included. The schema is deployed once, into a
template; every test that asks for a `database` gets a copy of its own. Nothing of it outlives the run, not
even when pytest is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

from dev.cluster import Cluster

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "galaxy_template"


@dataclass(frozen=True)
class _Run:
    """What the processes of one run share: a directory, and the process that outlives the others."""

    directory: Path
    controller: int

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        with (self.directory / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


_RUN = pytest.StashKey[_Run]()


def pytest_configure(config: pytest.Config) -> None:
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[_RUN] = _Run(Path(worker["galaxy_directory"]), worker["galaxy_controller"])
        return
    directory = Path(tempfile.mkdtemp(prefix="galaxy-tests-"))
    directory.chmod(0o711)  # the server's user must get through
    config.stash[_RUN] = _Run(directory, os.getpid())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    run = node.config.stash[_RUN]
    node.workerinput["galaxy_directory"] = str(run.directory)
    node.workerinput["galaxy_controller"] = run.controller


def pytest_unconfigure(config: pytest.Config) -> None:
    run = config.stash[_RUN]
    if run.controller != os.getpid():
        return
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        guard = os.pidfd_open(int((run.directory / "guard.pid").read_text()))
        signal.pidfd_send_signal(guard, signal.SIGTERM)
        ended = select.poll()
        ended.register(guard, select.POLLIN)
        ended.poll(30_000)
        os.close(guard)
    shutil.rmtree(run.directory, ignore_errors=True)


def _as_new(connection: psycopg.Connection[Any]) -> None:
    connection.autocommit = True
    connection.execute("RESET ALL")


@dataclass
class Database:
    """A database of one test's own; `cluster` has what is not here."""

    cluster: Cluster
    name: str
    _opened: list[psycopg.Connection[Any]] = field(default_factory=list)
    _lent: ConnectionPool | None = None

    def dsn(self, login: str) -> str:
        """Return the connection string for a program of ours, as BACKEND_POSTGRES_DSN_… takes it."""
        return self.cluster.dsn(login, self.name)

    def connect(self, login: str = "postgres", **parameters: Any) -> psycopg.Connection[Any]:
        """Connect with the search path of our programs and autocommit; closed by itself after the test."""
        connection = self.cluster.connect(self.name, login, **{"options": "-csearch_path=backend", **parameters})
        self._opened.append(connection)
        return connection

    def borrow(self) -> contextlib.AbstractContextManager[psycopg.Connection[Any]]:
        """Lend such a connection for a block; it is kept for the next one, with what it has compiled and planned."""
        if self._lent is None:
            self._lent = ConnectionPool(
                make_conninfo(
                    host=str(self.cluster.socket_directory),
                    port=self.cluster.port,
                    user="postgres",
                    dbname=self.name,
                    options="-csearch_path=backend",
                ),
                kwargs={"autocommit": True},
                min_size=0,
                max_size=64,
                open=True,
                reset=_as_new,
            )
        return self._lent.connection()

    def drop(self) -> None:
        if self._lent is not None:
            self._lent.close()
        for connection in self._opened:
            connection.close()
        self.cluster.drop_database(self.name)


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Cluster:
    """The cluster of this run; tests must not stop it: who wants to start their own (`dev.cluster`)."""
    run = pytestconfig.stash[_RUN]
    found = Cluster(run.directory / "postgres")
    with run.lock():
        if not (run.directory / "guard.pid").exists():
            _start_guard(run)
    if found.pid is None:
        pytest.fail(f"this run's cluster has ended: {(run.directory / 'guard.log').read_text()}", pytrace=False)
    return found


def _start_guard(run: _Run) -> None:
    with (run.directory / "guard.log").open("wb") as log:
        guard = subprocess.Popen(
            [sys.executable, "-m", "dev.cluster", "guard", run.directory, str(run.controller)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    (run.directory / "guard.pid").write_text(str(guard.pid))
    assert guard.stdout is not None
    with guard.stdout as output:
        output.readline()  # "ready", or nothing if it has failed
    guard.returncode = 0  # it is not ours to wait for, and Popen would warn of that


@pytest.fixture(scope="session")
def template_database(cluster: Cluster, pytestconfig: pytest.Config) -> str:
    """The name of a database with the schema deployed and nothing in it, to be copied."""
    run = pytestconfig.stash[_RUN]
    failed = run.directory / "template.failed"
    with run.lock():
        if failed.exists():
            pytest.fail(failed.read_text(), pytrace=False)
        if not cluster.has_database(TEMPLATE):
            try:
                cluster.create_database(TEMPLATE)
                cluster.sqitch(TEMPLATE, "deploy")
            except Exception as error:
                failed.write_text(f"the schema cannot be deployed: {error}")
                raise
            with cluster.connect() as connection:
                connection.execute("ALTER DATABASE galaxy_template IS_TEMPLATE true ALLOW_CONNECTIONS false")
    return TEMPLATE


@pytest.fixture
def make_database(cluster: Cluster, template_database: str) -> Iterator[Callable[[], Database]]:
    """Make databases, each a fresh copy of the template; all are dropped after the test."""
    made: list[Database] = []

    def make() -> Database:
        database = Database(cluster, f"test_{secrets.token_hex(8)}")
        cluster.create_database(database.name, template_database)
        made.append(database)
        return database

    yield make
    for database in made:
        database.drop()


@pytest.fixture
def database(make_database: Callable[[], Database]) -> Database:
    """A database of the test's own, with the schema deployed and nothing in it."""
    return make_database()
