"""Kept connections with the statement prepared through libpq, and the bytes passed through."""

from __future__ import annotations

import os
import threading

import falcon
from psycopg import pq

from bench.apps import CONNINFO, application

_UUID = 2950  # the type's OID


class _Connection:
    def __init__(self) -> None:
        self._pgconn = pq.PGconn.connect(os.environ[CONNINFO].encode())
        _expect(self._pgconn.prepare(b"look_up", b"SELECT api.session_get($1)", [_UUID]), pq.ExecStatus.COMMAND_OK)

    def look_up(self, session_id: str) -> bytes:
        result = self._pgconn.exec_prepared(b"look_up", [session_id.encode()])
        _expect(result, pq.ExecStatus.TUPLES_OK)
        return result.get_value(0, 0) or b""


def _expect(result: pq.abc.PGresult, status: pq.ExecStatus) -> None:
    if result.status != status:
        raise RuntimeError(result.error_message.decode())


def per_process() -> falcon.App[falcon.Request, falcon.Response]:
    """One connection for the whole process: where one request runs at a time, or where a call holds up all others (gevent)."""
    return application(_Connection().look_up)


def per_thread() -> falcon.App[falcon.Request, falcon.Response]:
    """A connection for each thread."""
    local = threading.local()

    def look_up(session_id: str) -> bytes:
        connection: _Connection | None = getattr(local, "connection", None)
        if connection is None:
            connection = local.connection = _Connection()
        return connection.look_up(session_id)

    return application(look_up)
