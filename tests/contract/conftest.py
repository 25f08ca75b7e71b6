"""Fixtures of the contract's tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from dev.cluster import Cluster
from tests.contract.games import engines_in
from tests.contract.requests import Stall, World
from tests.postgres import Database
from tests.services import Api, StartProgram, session_database


@pytest.fixture(scope="session", autouse=True)
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The engines that games of these tests are played with; each starts when it is asked for."""
    with engines_in(tmp_path_factory.mktemp("engines")):
        yield


@pytest.fixture(scope="session")
def world(shared_api: Api, shared_database: Database) -> World:
    """What requests are made of."""
    return World(shared_api, shared_database)


@pytest.fixture(scope="session")
def impatient_world(cluster: Cluster, template_database: str, session_starter: StartProgram) -> Iterator[World]:
    """A world whose API gives up on its database after a quarter of a second."""
    with session_database(cluster, template_database, "impatient") as database:
        api = session_starter("api", database, BACKEND_POSTGRES_OPERATION_TIMEOUT="250ms")
        assert isinstance(api, Api)
        yield World(api.wait_ready(), database)
        api.close()


@pytest.fixture
def stalled(impatient_world: World) -> Stall:
    """Make every function of the impatient world wait for longer than its API does."""

    @contextlib.contextmanager
    def stall() -> Iterator[None]:
        with impatient_world.connect() as connection, connection.transaction():
            rows = connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('backend', 'sqitch')"
            ).fetchall()
            connection.execute("LOCK TABLE " + ", ".join(row[0] for row in rows))
            yield

    return stall
