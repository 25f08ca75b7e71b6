"""Load over HTTP, in a closed loop: `python -m bench.load PORT PATH ROWS CONNECTIONS SECONDS`.

Each connection asks for one random session after another, the next as soon as the answer to the last is complete. A server
that closes after an answer is connected to again, which belongs to the time of the next request. Prints Figures as a JSON array.
Any answer but 200 ends it.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

SESSION_ID = "00000000-0000-7000-8000-{:012}"
"""The id of the session of a number from 1; in the order of the numbers, as ids of version 7 are in that of time."""

_WARM_UP = 0.25  # not counted; as a share of what is
_PATIENCE = 10  # seconds without any answer
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n")


class Figures(NamedTuple):
    """What one measurement found. Of the first part of the time only `answers` knows."""

    rate: float
    """Answers a second."""
    p50: float
    """Seconds, as p99."""
    p99: float
    answers: int
    """All of them, also those that are in no other figure."""
    busy: float
    """The share of a core that the load generator took; 0 where that is not known."""


class _Connection:
    """One request under way at a time."""

    def __init__(self, port: int, path: str, rows: int, ready: select.epoll) -> None:
        self._port = port
        self._path = path
        self._rows = rows
        self._ready = ready
        self._received = b""
        self.socket: socket.socket | None = None
        self.started = 0.0

    def ask(self) -> socket.socket:
        """Send the next request; return the socket that the answer will come by."""
        session = SESSION_ID.format(random.randint(1, self._rows))
        self.started = time.perf_counter()
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE)
            self.socket.settimeout(None)  # it is read only when there is something to read
            self._ready.register(self.socket, select.EPOLLIN)
        self._received = b""
        self.socket.sendall(f"GET {self._path}{session} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        return self.socket

    def receive(self) -> bool:
        """Read what there is; return whether the answer is complete. Raises RuntimeError when it is not as expected."""
        assert self.socket is not None
        chunk = self.socket.recv(65536)
        self._received += chunk
        head, blank, body = self._received.partition(b"\r\n\r\n")
        if not blank:
            if not chunk:
                raise RuntimeError("the server hung up")
            return False
        fields = head.lower() + b"\r\n"
        length = _LENGTH.search(fields)
        if not fields.startswith(b"http/1.1 200 ") or length is None or (not chunk and len(body) < int(length[1])):
            raise RuntimeError(f"unexpected answer: {self._received[:500]!r}")
        if b"\r\nconnection: close\r\n" not in fields:
            return len(body) == int(length[1])
        if not chunk:
            self.close()
        return not chunk

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None


def run(port: int, path: str, rows: int, connections: int, seconds: float) -> Figures:
    """Load the server and return the figures; the requests under way at the end are waited for and not counted."""
    ready = select.epoll()
    waiting = [_Connection(port, path, rows, ready) for _ in range(connections)]
    asking: dict[int, _Connection] = {}
    started = due = time.perf_counter()
    cpu = time.process_time()
    begin = started + seconds * _WARM_UP
    end = begin + seconds
    times: list[float] = []
    answers = 0
    while waiting or asking:
        # One after another, as clients come: opened all at once, most connections end up with one process of the server.
        if waiting and time.perf_counter() >= due:
            connection = waiting.pop()
            asking[connection.ask().fileno()] = connection
            due += (begin - started) / 2 / connections
        found = ready.poll(max(0.0, due - time.perf_counter()) if waiting else _PATIENCE)
        if not found and not waiting:
            raise RuntimeError("the server does not answer")
        for descriptor, _ in found:
            connection = asking[descriptor]
            if not connection.receive():
                continue
            answers += 1
            now = time.perf_counter()
            if begin <= now < end:
                times.append(now - connection.started)
            del asking[descriptor]
            if now < end:
                asking[connection.ask().fileno()] = connection
            else:
                connection.close()
    busy = (time.process_time() - cpu) / (time.perf_counter() - started)
    return Figures(len(times) / seconds, percentile(times, 0.5), percentile(times, 0.99), answers, busy)


def percentile(times: Sequence[float], share: float) -> float:
    """Return the time within which that share of all was done. Raises RuntimeError when nothing was."""
    if not times:
        raise RuntimeError("not one answer in the time")
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]))))
