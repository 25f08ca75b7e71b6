"""Two real clusters for tests, the second a standby of the first that has every commit before it is acknowledged."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from dev.cluster import KILLABLE, Cluster
from tests.postgres import Database
from tests.services import until


@dataclass
class Pair(Database):
    """A database of both clusters: a program's connection string names the two, and the writable one is found.

    `cluster` is the primary; `fail_over` makes the standby that.
    """

    standby: Cluster | None = None

    def dsn(self, login: str) -> str:
        clusters = self._clusters
        hosts = ",".join(quote(str(cluster.socket_directory), safe="") for cluster in clusters)
        ports = ",".join(str(cluster.port) for cluster in clusters)
        return f"postgresql://{login}@/{self.name}?host={hosts}&port={ports}&search_path=backend"

    def __post_init__(self) -> None:
        assert self.standby is not None
        self._clusters = (self.cluster, self.standby)

    def fail_over(self) -> None:
        """Kill the primary in whatever it does, and promote the standby."""
        assert self.standby is not None
        self.cluster.crash()
        self.standby.promote()
        self.cluster = self.standby


@contextlib.contextmanager
def pair(name: str) -> Iterator[Pair]:
    """Two clusters with the schema deployed, gone at the end of the block or with this process."""
    parent = Path(tempfile.mkdtemp(prefix="galaxy-pair-"))
    parent.chmod(0o711)
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, parent, ignore_errors=True)
        primary = Cluster(parent / "a", settings=KILLABLE, die_with_parent=True)
        stack.callback(primary.destroy)
        primary.start()
        primary.create_database(name)
        primary.sqitch(name, "deploy")
        standby = Cluster(parent / "b", settings=KILLABLE, die_with_parent=True, copy_of=primary)
        stack.callback(standby.destroy)
        standby.start()
        with primary.connect() as connection:
            connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            connection.execute("SELECT pg_reload_conf()")
            until(lambda: connection.execute("SELECT FROM pg_stat_replication WHERE sync_state = 'sync'").fetchone() is not None)
        yield Pair(primary, name, standby=standby)
