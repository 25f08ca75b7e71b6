"""The servers that are measured: our own program, and the applications of bench.apps under gunicorn."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from app import dsn
from app.supervisor import ROOT, spawn
from bench import data
from bench.apps import CONNINFO
from bench.load import SESSION_ID
from dev import geo_sample
from dev.cluster import Cluster, free_port

WORKERS = 2
THREADS = 4

TICK = 1 / os.sysconf("SC_CLK_TCK")
"""Seconds: no processor time is known more exactly."""

_START = 60  # seconds that a server may take to start, and to stop
_REQUIREMENTS = ROOT / "requirements" / "bench.txt"
_GTHREAD = ("--worker-class=gthread", f"--workers={WORKERS}", f"--threads={THREADS}")


@dataclass(frozen=True)
class Server:
    """One of them: `path` is what stands before a session's id, `log` where its output goes."""

    port: int
    path: str
    process: subprocess.Popen[bytes]
    log: Path


@dataclass(frozen=True)
class _Stock:
    """An application of ours under a stock worker."""

    application: str
    options: tuple[str, ...]
    needs_gevent: bool = False


_STOCK = {
    "B": _Stock("bench.apps.pooled:create_app()", _GTHREAD),
    "bare": _Stock("bench.apps.bare:create_app()", _GTHREAD),
    "gthread, kept": _Stock("bench.apps.prepared:per_thread()", _GTHREAD),
    "sync, kept": _Stock("bench.apps.prepared:per_process()", ("--worker-class=sync", "--workers=4")),
    "gevent, kept": _Stock(
        "bench.apps.prepared:per_process()", ("--worker-class=gevent", f"--workers={WORKERS}"), needs_gevent=True
    ),
}

# Our program, by the exporter of its traces and metrics.
_OURS = {"ours": "none", "ours, telemetry": "otlp"}

NEEDING_GEVENT = tuple(name for name, stock in _STOCK.items() if stock.needs_gevent)


def versions(gevent: Path | None) -> dict[str, str]:
    """Return the versions of what the servers are made of, by name."""
    found = {name: metadata.version(name) for name in ("gunicorn", "falcon", "psycopg")}
    if gevent is not None:
        found |= {d.name: d.version for d in metadata.distributions(name="gevent", path=[str(gevent)])}
    return found


def gevent_packages() -> Path:
    """Return the directory with what requirements/bench.txt pins, installed there if it is not. Raises CalledProcessError.

    Not in .venv: nothing else may come to rely on it.
    """
    lock = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()[:16]
    place = ROOT / ".dev" / f"bench-{sys.implementation.cache_tag}-{lock}"
    if not place.exists():
        unfinished = place.with_name(f"{place.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check", "--require-hashes"]
        subprocess.run([*pip, f"--target={unfinished}", f"--requirement={_REQUIREMENTS}"], check=True)
        unfinished.rename(place)
    return place


@contextlib.contextmanager
def running(
    cluster: Cluster, wanted: Sequence[tuple[str, int]], directory: Path, gevent: Path | None
) -> Iterator[dict[tuple[str, int], Server]]:
    """Run the servers of the names given, each on the database with so many sessions, and check that they answer alike.

    `directory` is for their files; `gevent` is where its packages are.
    """
    servers: dict[tuple[str, int], Server] = {}
    port = free_port()
    collector = spawn([sys.executable, "-m", "bench.collector", str(port)], death_signal=signal.SIGTERM)
    try:
        for name, rows in wanted:
            if name in _OURS:
                servers[name, rows] = _start_ours(cluster, name, rows, directory, port)
            else:
                servers[name, rows] = _start_stock(cluster, name, rows, directory, gevent)
        for (name, rows), server in servers.items():
            answer = first_answer(server, server.path + SESSION_ID.format(1))
            if name != "bare" and answer != data.session(cluster, rows, 1):
                raise RuntimeError(f"{name} does not answer with the session")
        yield servers
    finally:
        stop([server.process for server in servers.values()])
        stop([collector])  # the last: what stops sends what it has still to tell


def settings(cluster: Cluster, database: str, directory: Path, **others: str) -> dict[str, str]:
    """Return the variables of our programs on a database, without exporters of telemetry; `directory` is for their files."""
    geo = directory / "geo.mmdb"
    if not geo.exists():
        geo_sample.write(geo)
    doors = ("API", "PUSH", "WORKER")
    return {
        **{f"BACKEND_POSTGRES_DSN_{door}": cluster.dsn(f"galaxy_{door.lower()}", database) for door in doors},
        "BACKEND_SMTP_HOST": "127.0.0.1",
        "BACKEND_SMTP_FROM": "galaxy@galaxy.example",
        "BACKEND_RUNTIME_DRIVER": "process",
        "BACKEND_GAME_STATE_ROOT": str(directory / "games"),
        "BACKEND_GEOIP_DB_PATH": str(geo),
        "BACKEND_OTEL_TRACES_EXPORTER": "none",
        "BACKEND_OTEL_METRICS_EXPORTER": "none",
        **others,
    }


def start_api(cluster: Cluster, database: str, directory: Path, log: str, **others: str) -> Server:
    """Start our HTTP program, with WORKERS and THREADS; `path` of what is returned is that of the session look-up."""
    port = free_port()
    given = {
        "BACKEND_HTTP_LISTEN_ADDR": f"127.0.0.1:{port}",
        "BACKEND_HTTP_WORKERS": str(WORKERS),
        "BACKEND_HTTP_THREADS": str(THREADS),
        **others,
    }
    file = directory / f"{log}.log"
    process = spawn_module(["app", "api"], settings(cluster, database, directory, **given), file)
    return Server(port, "/api/v1/internal/sessions/", process, file)


def _start_ours(cluster: Cluster, name: str, rows: int, directory: Path, collector: int) -> Server:
    telemetry = {
        "BACKEND_OTEL_TRACES_EXPORTER": _OURS[name],
        "BACKEND_OTEL_METRICS_EXPORTER": _OURS[name],
        "BACKEND_OTEL_PROTOCOL": "http/protobuf",
        "BACKEND_OTEL_ENDPOINT": f"http://127.0.0.1:{collector}",
    }
    return start_api(cluster, data.name(rows), directory, f"{name} {rows}", **telemetry)


def _start_stock(cluster: Cluster, name: str, rows: int, directory: Path, gevent: Path | None) -> Server:
    stock = _STOCK[name]
    port = free_port()
    command = ["gunicorn", *stock.options, f"--bind=127.0.0.1:{port}", "--keep-alive=75", "--no-control-socket"]
    # By the same socket and with the same search path as ours.
    environment = {CONNINFO: dsn.conninfo(cluster.dsn("galaxy_api", data.name(rows)), application_name="bench")}
    if stock.needs_gevent:
        environment["PYTHONPATH"] = str(gevent)
    log = directory / f"{name} {rows}.log"
    return Server(port, "/sessions/", spawn_module([*command, stock.application], environment, log), log)


def spawn_module(module: Sequence[str], settings: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Run a module with its arguments; nothing that the caller's environment says of its own counts."""
    own = ("BACKEND_", "OTEL_", "PG", "GUNICORN_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)} | dict(settings)
    with log.open("wb") as output:
        return spawn([sys.executable, "-m", *module], death_signal=signal.SIGTERM, environment=environment, output=output)


def first_answer(server: Server, path: str) -> bytes:
    """Ask until there is an answer 200, and return its body. Raises RuntimeError with what the server says."""
    until = time.monotonic() + _START
    while server.process.poll() is None and time.monotonic() < until:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer.read()
        time.sleep(0.01)
    raise RuntimeError(f"{server.log.stem} does not answer:\n{server.log.read_text(errors='replace')[-3000:]}")


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes; those that do not are killed."""
    for process in processes:
        process.terminate()
    until = time.monotonic() + _START
    for process in processes:
        try:
            process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cpu_seconds(parent: int) -> float:
    """Return the processor time that a process and its children have taken so far, those that have ended too."""
    total = 0
    for pid in (parent, *Path(f"/proc/{parent}/task/{parent}/children").read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # utime, stime, cutime, cstime, counted after the name, which may hold anything
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return total * TICK
