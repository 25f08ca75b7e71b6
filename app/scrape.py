"""One Prometheus address for a program of many processes.

Each process writes its metrics to whoever connects to a Unix socket of its own; a small process beside them answers
Prometheus with the sum. What a process had counted before it ended stays in the sum, so that no counter goes back.
`python -m app.scrape DESCRIPTOR DIRECTORY` is that process; the HTTP program opens the socket and starts it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterable
from http.server import ThreadingHTTPServer
from pathlib import Path

from prometheus_client import (
    GC_COLLECTOR,
    PLATFORM_COLLECTOR,
    PROCESS_COLLECTOR,
    REGISTRY,
    CollectorRegistry,
    MetricsHandler,
    generate_latest,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from app.config import Address

_TIMEOUT = 2.0


class ListenError(Exception):
    """The address cannot be opened."""


def listen(address: Address) -> socket.socket:
    """Open the address where Prometheus asks. Raises ListenError."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family, backlog=64)
    except OSError as error:
        reason = error.strerror or error
        raise ListenError(f"cannot listen on {address} (BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR): {reason}") from error


def serve(listener: socket.socket, registry: Collector) -> None:
    """Answer Prometheus on a socket that listens, from a thread."""
    server = ThreadingHTTPServer(listener.getsockname()[:2], MetricsHandler.factory(registry), bind_and_activate=False)
    server.socket.close()
    server.socket = listener
    threading.Thread(target=server.serve_forever, name="scrape", daemon=True).start()


def serve_own(directory: Path) -> None:
    """Answer on a socket in `directory`, from a thread, with this process's metrics."""
    # A sum of start times or versions says nothing.
    for collector in (GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR):
        REGISTRY.unregister(collector)
    path = directory / f"{os.getpid()}.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()

    def answer() -> None:
        while True:
            connection, _ = listener.accept()
            with connection:
                connection.settimeout(_TIMEOUT)
                try:
                    connection.sendall(generate_latest(REGISTRY))
                except OSError:
                    continue

    threading.Thread(target=answer, name="scrape", daemon=True).start()


def merge(families: Iterable[Metric], into: dict[str, Metric]) -> None:
    """Add the samples of families to those of the same name and labels."""
    for family in families:
        merged = into.setdefault(family.name, Metric(family.name, family.documentation, family.type))
        known = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in merged.samples}
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            known[key] = known.get(key, 0.0) + sample.value
        merged.samples = []
        for (name, labels), value in known.items():
            merged.add_sample(name, dict(labels), value)


class Sum(Collector):
    """The sum over the processes whose sockets are in a directory, those that have ended included."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ended: dict[str, Metric] = {}
        self._last: dict[str, list[Metric]] = {}

    def collect(self) -> Iterable[Metric]:
        """Ask every process; Prometheus calls this at each scrape."""
        present: dict[str, list[Metric]] = {}
        for path in sorted(self._directory.glob("*.sock")):
            try:
                present[path.name] = list(text_string_to_metric_families(_read(path)))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)
            except OSError:
                # Busy, not gone: what it said last stands in for it.
                present[path.name] = self._last.get(path.name, [])
        for name in self._last.keys() - present.keys():
            # A gauge of a process that has ended is nothing; what it had counted stays.
            merge((f for f in self._last[name] if f.type != "gauge"), self._ended)
        self._last = present
        total: dict[str, Metric] = {}
        merge(self._ended.values(), total)
        for families in present.values():
            merge(families, total)
        return list(total.values())


def _read(path: Path) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(str(path))
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts).decode()


def main(arguments: list[str]) -> int:
    """Serve the sum until killed."""
    descriptor, directory = arguments
    registry = CollectorRegistry()
    registry.register(Sum(Path(directory)))
    serve(socket.socket(fileno=int(descriptor)), registry)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
