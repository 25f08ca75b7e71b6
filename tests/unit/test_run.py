"""What `make run` takes for itself."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dev import run
from dev.run import Ports


@pytest.fixture
def first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker_id: str) -> int:
    """The first of three ports in a row where nobody listens, in a directory of locks of this test's own."""
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    # Each of the processes that run tests looks among ports of its own.
    start = 20_000 + 1_000 * int(worker_id.removeprefix("gw").replace("master", "0"))
    return next(port for port in range(start, start + 1_000, 3) if all(run.is_free(p) for p in range(port, port + 3)))


def test_of_two_runs_each_has_ports_of_its_own(first: int) -> None:
    one, other = Ports(), Ports()
    assert one.take(first, 1)
    # Nobody listens there yet, or just now.
    assert not other.take(first, 1)
    assert other.take(first + 1, 1)


def test_ports_in_a_row_are_taken_together_or_not_at_all(first: int) -> None:
    one, other = Ports(), Ports()
    assert other.take(first + 2, 1)
    assert not one.take(first, 3)
    assert other.take(first, 2)


def test_a_port_where_somebody_listens_is_not_taken(first: int) -> None:
    with socket.create_server(("127.0.0.1", first)):
        assert not Ports().take(first, 1)
    assert Ports().take(first, 1)


def test_a_run_takes_a_port_once(first: int) -> None:
    ports = Ports()
    assert ports.take(first, 1)
    assert not ports.take(first, 1)
    assert not ports.take(65535, 2)
