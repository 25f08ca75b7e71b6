"""Load over HTTP, in a closed loop: `python -m bench.load PORT REQUEST ORDER ROWS CONNECTIONS SECONDS`.

Each connection sends one request after another, the next as soon as the answer to the last is complete. REQUEST is what is sent,
lines ended by `\\n`, with `{id}` for the id of a number: one to ROWS by chance (ORDER `random`), or each of them once (`each`). A
server that closes after an answer is connected to again, which belongs to the time of the next request. Prints Figures as a JSON
array. Any answer but 200 ends it.
"""

from __future__ import annotations

import json
import random
import re
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from app.supervisor import ROOT

SESSION_ID = "00000000-0000-7000-8000-{:012}"
"""The id of the thing of a number; in the order of the numbers, as ids of version 7 are in that of time."""

WARM_UP = 0.25
"""The time that is not counted, as a share of what is."""

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

    def __init__(self, port: int, requests: Iterator[bytes], ready: select.epoll) -> None:
        self._port = port
        self._requests = requests
        self._ready = ready
        self._received = b""
        self.socket: socket.socket | None = None
        self.started = 0.0

    def ask(self) -> socket.socket:
        """Send the next request; return the socket that the answer will come by."""
        request = next(self._requests)
        self.started = time.perf_counter()
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=_PATIENCE)
            self.socket.settimeout(None)  # it is read only when there is something to read
            self._ready.register(self.socket, select.EPOLLIN)
        self._received = b""
        self.socket.sendall(request)
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


def _requests(template: str, order: str, rows: int) -> Iterator[bytes]:
    """Return what to send. Raises RuntimeError when each has been sent."""
    text = f"{template}\nHost: 127.0.0.1\n\n".replace("\n", "\r\n")
    numbers = range(1, rows + 1) if order == "each" else iter(lambda: random.randint(1, rows), None)
    for number in numbers:
        yield text.replace("{id}", SESSION_ID.format(number)).encode()
    raise RuntimeError("every request has been sent: there must be more of them")


def run(port: int, requests: Iterator[bytes], connections: int, seconds: float) -> Figures:
    """Load the server and return the figures; the requests under way at the end are waited for and not counted."""
    ready = select.epoll()
    waiting = [_Connection(port, requests, ready) for _ in range(connections)]
    asking: dict[int, _Connection] = {}
    started = due = time.perf_counter()
    cpu = time.process_time()
    begin = started + seconds * WARM_UP
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


def elsewhere(port: int, request: str, rows: int, connections: int, seconds: float, *, order: str = "random") -> Figures:
    """Run this in a process of its own and return what it found. Raises RuntimeError with what it says when it fails."""
    answer = subprocess.run(
        [sys.executable, "-m", "bench.load", *map(str, (port, request, order, rows, connections, seconds))],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds * 2 + 60,
    )
    if answer.returncode != 0:
        raise RuntimeError(f"the load failed:\n{answer.stderr}")
    return Figures(*json.loads(answer.stdout))


def main(arguments: Sequence[str]) -> None:
    port, request, order, rows, connections, seconds = arguments
    print(json.dumps(run(int(port), _requests(request, order, int(rows)), int(connections), float(seconds))))


if __name__ == "__main__":
    main(sys.argv[1:])
