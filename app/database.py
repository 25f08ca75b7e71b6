"""The one way from the HTTP side to Postgres: a prepared call of one function, in one transaction, in one round trip.

Connections are kept open, as many as a process has threads, and handed out last in first out; statements are prepared through
libpq when a connection is opened, and results stay the bytes that came. Measured against a pool with `execute`: bench/report.md.
"""

from __future__ import annotations

import collections
import logging
import random
import select
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import psycopg
from psycopg import pq
from psycopg.errors import error_from_result

from app import metrics, telemetry, turns

log = logging.getLogger("galaxy.api")

# Serialization failures and deadlocks are nobody's fault and gone the next time.
_TRY_AGAIN = frozenset({"40001", "40P01"})
_TRIES = 4

Value = bytes | None

T = TypeVar("T")


class Calls(Protocol):
    """What the work of a transaction is given: calls functions, one after another."""

    def __call__(self, name: str, parameters: Sequence[Value]) -> list[Value]:
        """Call a function and return the columns of its one row. Raises psycopg.Error."""


@dataclass(frozen=True)
class Statement:
    """A call of one function of the door, with the OIDs of its parameters; `is_read` where the function is STABLE."""

    name: str
    sql: str
    parameter_types: tuple[int, ...]
    is_read: bool


class _Connection:
    """A connection with its statements prepared; used by one thread at a time."""

    def __init__(self, conninfo: str, statements: Mapping[str, Statement], lifetime: float) -> None:
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self.pgconn = self._connection.pgconn
        # Not all of a process's connections are to grow old in the same second.
        self.retire_at = time.monotonic() + lifetime * random.uniform(0.8, 1.0)  # noqa: S311
        self._poll = select.poll()
        self._poll.register(self.pgconn.socket, select.POLLIN)
        for statement in statements.values():
            result = self.pgconn.prepare(statement.name.encode(), statement.sql.encode(), statement.parameter_types)
            if result.status != pq.ExecStatus.COMMAND_OK:
                error = error_from_result(result)
                self.close()
                raise error

    def is_good(self) -> bool:
        """Whether an idle connection can be used: not old, and the server has not hung up (which makes it readable)."""
        if time.monotonic() > self.retire_at:
            return False
        try:
            # A server that hangs up says so first: the end comes only with another read.
            while self._poll.poll(0):
                self.pgconn.consume_input()
        except psycopg.OperationalError:
            return False
        return self.pgconn.status == pq.ConnStatus.OK

    def call(self, statement: Statement, parameters: Sequence[Value]) -> list[Value]:
        """Run the statement; return the columns of its one row as bytes. Raises psycopg.Error."""
        # The stub forgets that a parameter may be null.
        result = self.pgconn.exec_prepared(statement.name.encode(), parameters)  # type: ignore[arg-type]
        if result.status != pq.ExecStatus.TUPLES_OK:
            raise error_from_result(result)
        return [result.get_value(0, column) for column in range(result.nfields)]

    def execute(self, command: bytes) -> None:
        """Run a command that answers with nothing. Raises psycopg.Error."""
        result = self.pgconn.exec_(command)
        if result.status != pq.ExecStatus.COMMAND_OK:
            raise error_from_result(result)

    def close(self) -> None:
        self._connection.close()


class Database:
    """Prepared calls of the functions of one door, from any thread."""

    def __init__(self, conninfo: str, statements: Mapping[str, Statement], lifetime: float) -> None:
        """`lifetime`: seconds after which a connection is replaced. Nothing is opened until `open`."""
        self._conninfo = conninfo
        self._statements = statements
        self._lifetime = lifetime
        # append and pop of a deque need no lock.
        self._idle: collections.deque[_Connection] = collections.deque()
        self._open: set[_Connection] = set()
        metrics.watch_pool(lambda: len(self._open) - len(self._idle))

    def open(self, count: int) -> None:
        """Open so many connections with every statement prepared. Raises psycopg.Error."""
        for _ in range(count):
            self._idle.append(self._connect())

    def close(self) -> None:
        """Close the connections that nobody is using."""
        while self._idle:
            self._drop(self._idle.pop())

    def call(self, name: str, parameters: Sequence[Value]) -> list[Value]:
        """Call a function in a transaction of its own and return the columns of its one row, as bytes in text form.

        Tried again after a serialization failure or a deadlock; a read also after a lost connection. A command is never run
        again when it may have been done. Raises psycopg.Error.
        """
        statement = self._statements[name]
        for tries in range(1, _TRIES + 1):
            connection = self._take()
            try:
                with telemetry.child(f"SQL {name}"):
                    columns = connection.call(statement, parameters)
            except psycopg.Error as error:
                lost = self._give_back(connection)
                if tries < _TRIES and (error.sqlstate in _TRY_AGAIN or (lost and statement.is_read)):
                    _pause(tries)
                    continue
                raise
            except BaseException:
                self._drop(connection)
                raise
            self._idle.append(connection)
            return columns
        raise AssertionError("unreachable")

    def transaction(self, work: Callable[[Calls], T], *, is_undone: Callable[[T], bool] = lambda _: False) -> T:
        """Run several calls of commands in one transaction and return what `work` returns; nothing is committed if it raises.

        What `is_undone` says of is rolled back, once the constraints that wait for the end have been checked.
        All of it is tried again after a serialization failure or a deadlock. Raises psycopg.Error, and what `work` raises.
        """
        for tries in range(1, _TRIES + 1):
            connection = self._take()

            def call(name: str, parameters: Sequence[Value], connection: _Connection = connection) -> list[Value]:
                with telemetry.child(f"SQL {name}"):
                    return connection.call(self._statements[name], parameters)

            try:
                connection.execute(b"BEGIN")
                result = work(call)
                if is_undone(result):
                    connection.execute(b"SET CONSTRAINTS ALL IMMEDIATE")
                    connection.execute(b"ROLLBACK")
                else:
                    connection.execute(b"COMMIT")
            except psycopg.Error as error:
                self._roll_back(connection)
                if tries < _TRIES and error.sqlstate in _TRY_AGAIN:
                    _pause(tries)
                    continue
                raise
            except BaseException:
                # Whatever it was doing ends with the connection.
                self._drop(connection)
                raise
            self._idle.append(connection)
            return result
        raise AssertionError("unreachable")

    def _roll_back(self, connection: _Connection) -> None:
        try:
            if connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
                connection.execute(b"ROLLBACK")
        except psycopg.Error:
            self._drop(connection)
        else:
            self._give_back(connection)

    def _give_back(self, connection: _Connection) -> bool:
        """Keep a connection on which a statement failed, unless it is lost; tell whether it is."""
        lost = connection.pgconn.status != pq.ConnStatus.OK
        if lost:
            self._drop(connection)
        else:
            self._idle.append(connection)
        return lost

    def _take(self) -> _Connection:
        metrics.db_pool_acquires_total.add(1)
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                metrics.db_pool_waits_total.add(1)
                return self._connect()
            if connection.is_good():
                return connection
            self._drop(connection)

    def _connect(self) -> _Connection:
        turns.leave()
        connection = _Connection(self._conninfo, self._statements, self._lifetime)
        self._open.add(connection)
        return connection

    def _drop(self, connection: _Connection) -> None:
        connection.close()
        self._open.discard(connection)


def _pause(tries: int) -> None:
    turns.leave()
    time.sleep(random.uniform(0, 0.005 * 2**tries))  # noqa: S311
