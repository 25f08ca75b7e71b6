"""HTTP as bytes: for what no client library would send, and for many requests at the same moment."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Answer:
    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """A connection of bytes."""

    def __init__(self, address: tuple[str, int], timeout: float = 10) -> None:
        self._socket = socket.create_connection(address, timeout=timeout)
        self._buffer = b""

    def send(self, data: bytes) -> Wire:
        self._socket.sendall(data)
        return self

    def finish(self) -> Wire:
        """Say that nothing more will be sent."""
        self._socket.shutdown(socket.SHUT_WR)
        return self

    def read(self) -> bytes:
        """Return all that comes until the other side hangs up."""
        with contextlib.suppress(ConnectionResetError):
            while part := self._socket.recv(65536):
                self._buffer += part
        return self._buffer

    def answer(self, method: str = "GET") -> Answer:
        """Return the next answer."""
        while b"\r\n\r\n" not in self._buffer:
            part = self._socket.recv(65536)
            assert part, f"the server has hung up: {self._buffer!r}"
            self._buffer += part
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = httpx.Headers([(n, v.strip()) for n, _, v in (line.partition(":") for line in lines)])
        code = int(status.split(" ")[1])
        length = 0 if method == "HEAD" or code == 304 else int(headers.get("Content-Length", "0"))
        while len(rest) < length:
            part = self._socket.recv(65536)
            assert part, "the server has hung up within the body"
            rest += part
        self._buffer = rest[length:]
        return Answer(code, headers, rest[:length])

    def close(self) -> None:
        self._socket.close()


def request(method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None) -> bytes:
    """A request as bytes; a body is sent as JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "Host: test", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if body is not None or method != "GET":
        lines += ["Content-Type: application/json", f"Content-Length: {len(content)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def volley(addresses: Sequence[tuple[str, int]], requests: Iterable[bytes]) -> list[Answer]:
    """Send requests at the same moment, each on a connection of its own, to the addresses in turn; return the answers."""
    whole = list(requests)
    with contextlib.ExitStack() as stack:
        wires = [Wire(addresses[n % len(addresses)], 60) for n in range(len(whole))]
        for wire in wires:
            stack.callback(wire.close)
        for wire, data in zip(wires, whole, strict=True):
            wire.send(data)
        return [wire.answer() for wire in wires]
