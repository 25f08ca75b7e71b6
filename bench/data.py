"""The cluster that everything is measured on, and its databases with so many sessions to look into."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from bench import pgbench
from bench.load import SESSION_ID, Figures
from dev.cluster import DURABLE, Cluster, throw_away

# A million sessions with their indexes fit. Commits are flushed to the disk, without which waking anybody costs little.
_SETTINGS: Mapping[str, str] = {**DURABLE, "shared_buffers": "512MB", "max_wal_size": "4GB"}

_TEMPLATE = "deployed"

SESSIONS_PER_ACCOUNT = 4

# Without triggers and foreign keys: a million rows in seconds.
_FILL = """
    SET session_replication_role = replica;
    INSERT INTO backend.accounts (user_id, user_name, display_name)
    SELECT {id}, 'player-' || i, 'player-' || i FROM generate_series(0, {rows} / {per_account}) AS i;
    INSERT INTO backend.device_sessions (device_session_id, user_id, kind, client_public_key)
    SELECT {id}, {account}, 'key', sha256(i::text::bytea) FROM generate_series(1, {rows}) AS i;
"""

_PREFIX = SESSION_ID.partition("{")[0]


def id_of(number: str) -> str:
    """Return SESSION_ID of a number, in SQL."""
    return f"('{_PREFIX}' || lpad(({number})::text, 12, '0'))::uuid"


@contextlib.contextmanager
def deployed(settings: Mapping[str, str] = _SETTINGS) -> Iterator[Cluster]:
    """A throw-away cluster where `database` finds the schema deployed."""
    with throw_away(settings) as cluster:
        cluster.create_database(_TEMPLATE)
        cluster.sqitch(_TEMPLATE, "deploy")
        yield cluster


@contextlib.contextmanager
def database(cluster: Cluster, name: str) -> Iterator[str]:
    """A database with the schema and nothing in it, by its name; dropped at the end."""
    cluster.create_database(name, template=_TEMPLATE)
    try:
        yield name
    finally:
        cluster.drop_database(name)


@contextlib.contextmanager
def sessions(cluster: Cluster, rows: Sequence[int]) -> Iterator[None]:
    """A database for each number of sessions, named by `name`."""
    with contextlib.ExitStack() as stack:
        for count in rows:
            stack.enter_context(database(cluster, name(count)))
            _fill(cluster, count)
        settle(cluster)
        yield


def settle(cluster: Cluster) -> None:
    """Write down what a fill has left to be written, so that nobody is measured with it."""
    with cluster.connect() as connection:
        connection.execute("CHECKPOINT")


def name(rows: int) -> str:
    return f"sessions_{rows}"


def _fill(cluster: Cluster, rows: int) -> None:
    statements = _FILL.format(
        id=id_of("i"), account=id_of(f"i / {SESSIONS_PER_ACCOUNT}"), rows=rows, per_account=SESSIONS_PER_ACCOUNT
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


def look_up(cluster: Cluster, rows: int, connections: int, seconds: float) -> Figures:
    """Look sessions up without HTTP and without Python, for at least a second."""
    script = f"\\set number random(1, {rows})\nSELECT api.session_get({id_of(':number')});\n"
    return pgbench.figures(pgbench.run(cluster, name(rows), script, clients=connections, seconds=seconds))
