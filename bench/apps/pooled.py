"""The baseline B: psycopg_pool and `execute`, as many connections as threads."""

from __future__ import annotations

import os

import falcon
from psycopg_pool import ConnectionPool

from bench.apps import CONNINFO, application

_THREADS = 4


def create_app() -> falcon.App[falcon.Request, falcon.Response]:
    pool = ConnectionPool(os.environ[CONNINFO], min_size=_THREADS, max_size=_THREADS, open=True, kwargs={"autocommit": True})
    pool.wait()

    def look_up(session_id: str) -> bytes:
        with pool.connection() as connection:
            row = connection.execute("SELECT api.session_get(%s)", [session_id]).fetchone()
        assert row is not None
        return str(row[0]).encode()

    return application(look_up)
