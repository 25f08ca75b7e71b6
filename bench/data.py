"""The databases that are looked into, each with so many sessions, and pgbench on them."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bench.load import SESSION_ID, Figures, percentile
from dev.cluster import THROW_AWAY, Cluster, find_binaries, throw_away

# A million sessions with their indexes fit; nothing else is to run while something is measured.
_SETTINGS: Mapping[str, str] = {**THROW_AWAY, "shared_buffers": "512MB", "autovacuum": "off"}

SESSIONS_PER_ACCOUNT = 4

# Without triggers and foreign keys: a million rows in seconds.
_FILL = """
    SET session_replication_role = replica;
    INSERT INTO backend.accounts (user_id, user_name, display_name)
    SELECT ({id})::uuid, 'player-' || i, 'player-' || i FROM generate_series(0, {rows} / {per_account}) AS i;
    INSERT INTO backend.device_sessions (device_session_id, user_id, kind, client_public_key)
    SELECT ({id})::uuid, ({account})::uuid, 'key', sha256(i::text::bytea) FROM generate_series(1, {rows}) AS i;
"""

_PREFIX = SESSION_ID.partition("{")[0]


def _id(number: str) -> str:
    """SESSION_ID in SQL."""
    return f"'{_PREFIX}' || lpad(({number})::text, 12, '0')"


@contextlib.contextmanager
def databases(rows: Sequence[int]) -> Iterator[Cluster]:
    """A throw-away cluster with a database of the schema for each number of sessions, named by `name`."""
    with throw_away(_SETTINGS) as cluster:
        cluster.create_database("galaxy")
        cluster.sqitch("galaxy", "deploy")
        for count in rows:
            cluster.create_database(name(count), template="galaxy")
            _fill(cluster, count)
        with cluster.connect() as connection:
            connection.execute("CHECKPOINT")
        yield cluster


def name(rows: int) -> str:
    return f"sessions_{rows}"


def _fill(cluster: Cluster, rows: int) -> None:
    statements = _FILL.format(
        id=_id("i"), account=_id(f"i / {SESSIONS_PER_ACCOUNT}"), rows=rows, per_account=SESSIONS_PER_ACCOUNT
    )
    with cluster.connect(name(rows)) as connection:
        connection.execute(statements.encode())
        connection.execute("VACUUM (ANALYZE) backend.accounts, backend.device_sessions")


def version(cluster: Cluster) -> str:
    with cluster.connect() as connection:
        # Without what a distribution adds to it.
        return (connection.info.parameter_status("server_version") or "").split()[0]


def session(cluster: Cluster, rows: int, number: int) -> bytes:
    """Return the bytes that every server must answer with."""
    with cluster.connect(name(rows), "galaxy_api") as connection:
        row = connection.execute("SELECT api.session_get(%s)", [SESSION_ID.format(number)]).fetchone()
    assert row is not None
    return str(row[0]).encode()


def pgbench(cluster: Cluster, rows: int, connections: int, seconds: float) -> Figures:
    """Look sessions up without HTTP and without Python, for at least a second."""
    with tempfile.TemporaryDirectory() as directory:
        script = Path(directory, "look-up.sql")
        script.write_text(f"\\set number random(1, {rows})\nSELECT api.session_get(({_id(':number')})::uuid);\n")
        answer = subprocess.run(
            [
                find_binaries() / "pgbench",
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={connections}",
                f"--jobs={min(connections, len(os.sched_getaffinity(0)))}",
                f"--time={max(1, round(seconds))}",
                f"--file={script}",
                "--log",
                f"--log-prefix={directory}/log",
                f"--host={cluster.socket_directory}",
                f"--port={cluster.port}",
                "--username=galaxy_api",
                name(rows),
            ],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "PGOPTIONS": "-csearch_path=backend"},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 60,
        )
        rate = re.search(r"^tps = ([0-9.]+)", answer.stdout, re.MULTILINE)
        if answer.returncode != 0 or rate is None:
            raise RuntimeError(f"pgbench ended with {answer.returncode}:\n{answer.stderr}")
        # client, number, microseconds, …
        times = [int(line.split()[2]) / 1e6 for log in Path(directory).glob("log.*") for line in log.read_text().splitlines()]
    return Figures(float(rate[1]), percentile(times, 0.5), percentile(times, 0.99), len(times), busy=0)
