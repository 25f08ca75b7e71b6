"""Where a stream goes on: cursors, epochs, the window, and gateways that are slow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import psycopg
import pytest

from tests.postgres import Database
from tests.push import ENVIRONMENT, ROOT, Start, Streamer, Subscribe, emit, memory, number, purge, raw_call, settled, value
from tests.services import until

# Resuming


def test_the_start_of_a_stream_is_told_at_once_and_is_fresh_without_a_cursor(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    emit(connection, 1)
    settled(connection)
    one = gateway(streamer.target)  # returns when it is told, and nothing has happened since
    assert one.client.resume == "fresh"
    emit(connection, 2)
    one.wait_for([2])
    assert one.client.gaps == 0


def test_a_cursor_resumes_exactly_after_it(
    streamer: Streamer, start: Start, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 20)
    one.wait_for(list(range(1, 21)))
    one.close()
    emit(connection, 21, 30)
    settled(connection)
    for target in (streamer.target, start().ready().target):  # the second has only the table to read from
        again = gateway(target, "another", one.events[4].cursor)
        assert again.client.resume == "exact"
        again.wait_for(list(range(6, 31)))
        last = gateway(target, "another", again.events[-1].cursor)
        assert last.client.resume == "exact"
    emit(connection, 31)
    last.wait_for([31])


@pytest.mark.parametrize(
    "make",
    [
        lambda cursor: "x",
        lambda cursor: cursor + "0",
        lambda cursor: cursor.replace("-", "\0"),
        lambda cursor: "9" * 19 + cursor[19:],
        lambda cursor: f"{int(cursor[:19]) + 1:019}{cursor[19:]}",
        lambda cursor: "x" * 50_000,
        lambda cursor: cursor[:20] + "١" * 19,
    ],
    ids=["not ours", "longer", "with a zero byte", "no epoch", "other epoch", "far too long", "other digits"],
)
def test_what_is_no_cursor_of_this_stream_starts_fresh(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], make: Callable[[str], str]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 2)
    one.wait_for([1, 2])
    again = gateway(streamer.target, "another", make(one.events[0].cursor))
    assert (again.client.resume, again.client.gaps) == ("fresh", 1)
    emit(connection, 3)
    again.wait_for([3])


@pytest.mark.parametrize("position", [4, 10**18, 10**19 - 1])
def test_a_cursor_ahead_of_the_stream_starts_fresh_and_is_logged(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], position: int
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 3)
    one.wait_for([1, 2, 3])
    ahead = one.events[-1].cursor[:20] + f"{position:019}"
    again = gateway(streamer.target, "another", ahead)
    assert again.client.resume == "fresh"
    assert streamer.wait_for("ahead of the stream")["gateway_client_id"] == "another"
    emit(connection, 4)
    again.wait_for([4])


def test_resume_is_exact_until_something_after_the_cursor_was_deleted(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 10)
    one.wait_for(list(range(1, 11)))
    purge(connection, 5)
    exact = gateway(streamer.target, "exact", one.events[4].cursor)
    assert exact.client.resume == "exact"
    exact.wait_for([6, 7, 8, 9, 10])
    fresh = gateway(streamer.target, "fresh", one.events[3].cursor)
    assert fresh.client.resume == "fresh"
    purge(connection, 5)
    idle = gateway(streamer.target, "idle", one.events[9].cursor)
    assert idle.client.resume == "exact"
    emit(connection, 11)
    fresh.wait_for([11])
    idle.wait_for([11])


def test_a_head_that_went_back_makes_every_gateway_start_fresh(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 10)
    one.wait_for(list(range(1, 11)))
    with connection.transaction():  # as a backup that was made earlier
        connection.execute("DELETE FROM backend.push_events WHERE position > 3")
    until(lambda: one.gaps_at == [10])
    assert one.client.resume == "fresh"
    streamer.wait_for("another history")
    emit(connection, 11)
    one.wait_for([*range(1, 11), 11])


@pytest.mark.parametrize("idle", [True, False], ids=["idle", "with events"])
def test_a_new_epoch_makes_every_gateway_start_fresh(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], idle: bool
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 10)
    one.wait_for(list(range(1, 11)))
    with connection.transaction():
        connection.execute("UPDATE backend.push_epoch SET epoch = epoch + 1")
        if not idle:
            emit(connection, 11)
    until(lambda: one.gaps_at == [10])  # and nothing of the new epoch before it
    assert one.client.resume == "fresh"
    streamer.wait_for("another history")
    emit(connection, 12)
    until(lambda: one.numbers()[-1] == 12)
    assert one.cursors() == sorted(one.cursors())


def begin_epoch(**variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("BACKEND_")} | ENVIRONMENT | variables
    return subprocess.run(
        [sys.executable, "-m", "app", "epoch"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_an_operator_begins_a_new_epoch(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any], database: Database
) -> None:
    one = gateway(streamer.target)
    emit(connection, 1, 3)
    one.wait_for([1, 2, 3])
    before = one.client.cursor
    done = begin_epoch(
        BACKEND_POSTGRES_DSN=database.dsn("galaxy_push"), BACKEND_POSTGRES_DSN_DEPLOY=database.dsn("galaxy_deploy")
    )
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: one.gaps_at == [3])
    until(lambda: one.client.cursor == done.stdout.strip() > before)
    assert gateway(streamer.target, "another", before).client.gaps == 1
    emit(connection, 4)
    one.wait_for([1, 2, 3, 4])
    assert one.cursors() == sorted(one.cursors())


def test_an_epoch_is_begun_by_the_login_that_deploys(database: Database) -> None:
    refused = begin_epoch(BACKEND_POSTGRES_DSN=database.dsn("galaxy_push"))
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("no new epoch: 42501")
    doors = {f"BACKEND_POSTGRES_DSN_{door}": database.dsn(f"galaxy_{door.lower()}") for door in ("API", "PUSH", "WORKER")}
    missing = begin_epoch(**doors)
    assert (missing.returncode, missing.stdout) == (78, "")
    assert "BACKEND_POSTGRES_DSN_DEPLOY" in missing.stderr


# A gateway that is slow


def test_a_gateway_that_does_not_read_holds_up_nobody_and_misses_nothing(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    one = gateway(streamer.target)
    with raw_call(streamer.target, "slow") as slow:
        slow.initial_metadata()
        before = memory(streamer.process.pid)
        # More, in number and in bytes, than a streamer keeps in memory.
        for first in range(1, 30_001, 3000):
            emit(connection, first, first + 2999, padding=2000)
        until(lambda: len(one.events) == 30_000)
        assert one.numbers() == list(range(1, 30_001))
        assert memory(streamer.process.pid) - before < 64 * 1024 * 1024
        assert [number(next(slow)) for _ in range(30_000)] == list(range(1, 30_001))


def test_what_leaves_the_window_before_a_slow_gateway_reads_it_is_counted_and_logged(
    streamer: Streamer, connection: psycopg.Connection[Any]
) -> None:
    with raw_call(streamer.target, "slow") as slow:
        slow.initial_metadata()
        for first in range(1, 20_001, 2000):
            emit(connection, first, first + 1999, padding=2000)
        settled(connection)
        until(lambda: value(connection, "SELECT backend.push_head() = 20000"))
        purge(connection, 15_000)
        connection.execute("SELECT 1")
        numbers = [number(next(slow))]
        while numbers[-1] < 20_000:
            numbers.append(number(next(slow)))
    assert numbers == sorted(set(numbers))
    lost = streamer.wait_for("left the window")
    assert lost["gateway_client_id"] == "slow"
    assert lost["events"] == 20_000 - len(numbers)


def test_a_gateway_that_does_not_read_can_be_replaced(
    streamer: Streamer, gateway: Subscribe, connection: psycopg.Connection[Any]
) -> None:
    with raw_call(streamer.target, "same") as slow:
        slow.initial_metadata()
        emit(connection, 1, 5000, padding=2000)
        settled(connection)
        newer = gateway(streamer.target, "same")
        with pytest.raises(grpc.RpcError):
            for _ in slow:
                pass
        assert slow.code() is grpc.StatusCode.ABORTED
        emit(connection, 5001)
        newer.wait_for([5001])
