"""Streamers, gateways and what may go wrong between them, for the tests of the push stream: a pytest plugin."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from grpc_health.v1 import health_pb2, health_pb2_grpc
from psycopg.conninfo import conninfo_to_dict

from app import dsn
from dev.push_client import PushClient, ReplacedError, decode_payload
from proto.push.v1 import push_pb2, push_pb2_grpc
from tests.postgres import Database
from tests.services import until

ROOT = Path(__file__).resolve().parent.parent
COMMAND = [sys.executable, "-m", "app", "push"]
SERVICE = "galaxy.backend.push.v1.Push"

# What every program is told, though the streamer has no use for it.
ENVIRONMENT = {
    "BACKEND_SMTP_HOST": "localhost",
    "BACKEND_SMTP_FROM": "noreply@example.org",
    "BACKEND_RUNTIME_DRIVER": "process",
    "BACKEND_GAME_STATE_ROOT": "/nonexistent/games",
    "BACKEND_GEOIP_DB_PATH": "/nonexistent/geo.mmdb",
    "BACKEND_OTEL_TRACES_EXPORTER": "none",
    "BACKEND_OTEL_METRICS_EXPORTER": "none",
}


class Streamer:
    """A streamer process; `lines` is its log."""

    def __init__(self, push_dsn: str, **variables: str) -> None:
        self.lines: list[dict[str, Any]] = []
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("BACKEND_")}
        own = {"BACKEND_POSTGRES_DSN": push_dsn, "BACKEND_GRPC_PUSH_LISTEN_ADDR": "127.0.0.1:0", **variables}
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            COMMAND,
            cwd=ROOT,
            env=inherited | ENVIRONMENT | own,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line))

    def logged(self, text: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if text in line["msg"]]

    def wait_for(self, text: str, count: int = 1) -> dict[str, Any]:
        with contextlib.suppress(AssertionError):
            until(lambda: len(self.logged(text)) >= count or self.process.poll() is not None)
        assert len(self.logged(text)) >= count, "\n".join(map(str, self.lines))
        return self.logged(text)[count - 1]

    def ready(self) -> Streamer:
        self.wait_for("serving")
        return self

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.wait_for('listening')['port']}"

    def ended(self, timeout: float = 20) -> int:
        """Wait for the end and return the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def terminate(self) -> int:
        self.process.terminate()
        return self.ended()

    def kill(self) -> None:
        self.process.kill()
        self.ended()

    def close(self) -> None:
        """Kill it, if it still runs, and check that it had no trouble that it did not foresee."""
        self.kill()
        assert self.process.stdout is not None
        self.process.stdout.close()
        assert not [line for line in self.lines if "exception" in line]
        with self._errors as errors:
            errors.seek(0)
            text = errors.read()
        assert "Fatal Python error" not in text, text
        assert "Traceback" not in text, text
        assert "Warning" not in text, text


class Gateway:
    """A gateway that keeps every event; `error` is what ended it, if anything did."""

    def __init__(self, target: str, name: str = "gateway", cursor: str = "", **options: Any) -> None:
        self.events: list[push_pb2.PushEvent] = []
        self.error: Exception | None = None
        self.gaps_at: list[int] = []  # how many events had come when it was told of each gap
        on_gap = lambda: self.gaps_at.append(len(self.events))  # noqa: E731
        self.client = PushClient(target, name, cursor=cursor, on_gap=on_gap, **options)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> Gateway:
        """Subscribe, and return when the stream is open: what is committed from now on will come."""
        self._thread.start()
        until(lambda: self.client.resume or self.error)
        return self

    def _run(self) -> None:
        try:
            self.events.extend(self.client)
        except (ReplacedError, grpc.RpcError) as error:
            self.error = error

    def numbers(self) -> list[int]:
        return [number(event) for event in list(self.events)]

    def cursors(self) -> list[str]:
        return [event.cursor for event in list(self.events)]

    def wait_for(self, numbers: list[int]) -> None:
        """Wait for exactly these events, in this order."""
        until(lambda: len(self.events) >= len(numbers))
        assert self.numbers() == numbers

    def close(self) -> None:
        self.client.close()
        if self._thread.ident is not None:
            self._thread.join(10)


def number(event: push_pb2.PushEvent) -> int:
    told = decode_payload(event.client_event.kind, event.client_event.payload)
    assert told is not None
    return int(told["n"])


def emit(connection: psycopg.Connection[Any], first: int, last: int | None = None, padding: int = 0) -> None:
    """Make an event for each number from `first` to `last`, in one statement."""
    connection.execute(
        """
        SELECT backend.push_client_event(gen_random_uuid(), NULL, 'test',
                   jsonb_build_object('n', n, 'padding', repeat('x', %s)), gen_random_uuid(), 'request')
          FROM generate_series(%s::int, %s::int) AS n
        """,
        [padding, first, first if last is None else last],
    )


def purge(connection: psycopg.Connection[Any], count: int) -> None:
    """Delete the oldest events, as retention does."""
    connection.execute(
        """
        WITH gone AS (
            DELETE FROM backend.push_events WHERE position IN (
                SELECT position FROM backend.push_events ORDER BY position LIMIT %s) RETURNING position
        )
        UPDATE backend.push_epoch SET purged_through = (SELECT max(position) FROM gone)
        """,
        [count],
    )


def value(connection: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def settled(connection: psycopg.Connection[Any]) -> None:
    """Wait until everything committed has its place in the stream."""
    until(lambda: value(connection, "SELECT count(*) = 0 FROM backend.push_pending"))


Start = Callable[..., Streamer]
Subscribe = Callable[..., Gateway]
MakeProxy = Callable[..., "PostgresProxy"]


@pytest.fixture
def start(database: Database) -> Iterator[Start]:
    """Start streamers on the test's database; `dsn` and variables may be given."""
    started: list[Streamer] = []

    def start(dsn: str | None = None, **variables: str) -> Streamer:
        started.append(Streamer(dsn or database.dsn("galaxy_push"), **variables))
        return started[-1]

    yield start
    for streamer in started:
        streamer.close()


@pytest.fixture
def streamer(start: Start) -> Streamer:
    return start().ready()


@pytest.fixture
def gateway() -> Iterator[Subscribe]:
    """Subscribe gateways: `gateway(streamer.target, name, cursor)`."""
    made: list[Gateway] = []

    def subscribe(target: str, name: str = "gateway", cursor: str = "", **options: Any) -> Gateway:
        made.append(Gateway(target, name, cursor, **options))
        return made[-1].start()

    yield subscribe
    for one in made:
        one.close()


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    return database.connect()


@contextlib.contextmanager
def raw_call(
    target: str, name: str = "raw", cursor: str = "", token: str | None = None, credentials: Any = None
) -> Iterator[Any]:
    """SubscribePush without any of the client's manners."""
    metadata = (("authorization", token),) if token is not None else ()
    channel = grpc.secure_channel(target, credentials) if credentials is not None else grpc.insecure_channel(target)
    with channel:
        stub = push_pb2_grpc.PushStub(channel)  # type: ignore[no-untyped-call]
        request = push_pb2.GatewaySubscribeRequest(gateway_client_id=name, cursor=cursor)
        yield stub.SubscribePush(request, metadata=metadata, timeout=60)


def refusal(target: str, **options: Any) -> grpc.StatusCode:
    with raw_call(target, **options) as call:
        assert dict(call.initial_metadata()).get("galaxy-resume") is None
        return call.code()  # type: ignore[no-any-return]


def memory(pid: int) -> int:
    """The bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Proxy:
    """A way to a server that can be shut, that can go silent as networks do, and that can swallow notifications as a
    pooler does.

    `address` is where it listens.
    """

    def __init__(self, server: str | tuple[str, int], swallow: bool = False) -> None:
        self._server: Any = server
        self._swallow = swallow
        self._sockets: set[socket.socket] = set()
        self._silenced: set[socket.socket] = set()
        self._is_open = True
        self._is_silent = False
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def shut(self) -> None:
        self._is_open = False
        for one in list(self._sockets):
            self._end(one)

    def open(self) -> None:
        self._is_open = True

    def silence(self) -> None:
        """From now on nothing comes through, and nobody is told."""
        self._is_silent = True
        self._silenced |= self._sockets

    def speak(self) -> None:
        """Let new connections through; those that were silenced stay so."""
        self._is_silent = False

    def close(self) -> None:
        self._end(self._listening)
        self.shut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            if not self._is_open:
                client.close()
                continue
            server = socket.socket(socket.AF_UNIX if isinstance(self._server, str) else socket.AF_INET)
            server.connect(self._server)
            self._sockets |= {client, server}
            if self._is_silent:
                self._silenced |= {client, server}
            for source, sink in ((client, server), (server, client)):
                messages = self._swallow and source is server
                threading.Thread(target=self._pump, args=(source, sink, messages), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, messages: bool) -> None:
        try:
            with source.makefile("rb") as stream:
                while data := _message(stream) if messages else source.recv(65536):
                    is_notification = messages and data[:1] == b"A"
                    if not is_notification and source not in self._silenced:
                        sink.sendall(data)
        except OSError:
            pass
        finally:
            if source not in self._silenced:
                self._end(source)
                self._end(sink)

    def _end(self, one: socket.socket) -> None:
        with contextlib.suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()


class PostgresProxy(Proxy):
    """A way to the test's database; `dsn` is for a streamer."""

    def __init__(self, database: Database, swallow: bool = False) -> None:
        found = conninfo_to_dict(dsn.conninfo(database.dsn("galaxy_push"), application_name="test"))
        host, port = str(found["host"]), int(str(found["port"]))
        super().__init__(f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port), swallow)
        self.dsn = (
            f"postgresql://galaxy_push@{self.address}/{database.name}?search_path=backend&sslmode=disable&gssencmode=disable"
        )


def _message(stream: Any) -> bytes:
    """Read one message of Postgres' protocol: a type, and a length that counts itself."""
    head: bytes = stream.read(5)
    return head + stream.read(int.from_bytes(head[1:]) - 4) if len(head) == 5 else b""


@pytest.fixture
def proxy(database: Database) -> Iterator[MakeProxy]:
    made: list[PostgresProxy] = []

    def make(swallow: bool = False) -> PostgresProxy:
        made.append(PostgresProxy(database, swallow))
        return made[-1]

    yield make
    for one in made:
        one.close()


def health(target: str, service: str) -> int:
    with grpc.insecure_channel(target) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status)


def connected(connection: psycopg.Connection[Any]) -> set[str]:
    """Return the parts of the streamers that are connected to the test's database."""
    names = "SELECT application_name FROM pg_stat_activity WHERE datname = current_database()"
    return {name.rpartition("-push-")[2] for (name,) in connection.execute(names) if "-push-" in name}


class Authority:
    """Makes certificates for 127.0.0.1, as files."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory, self._name = directory, name
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self._subject, self._key, is_authority=True)

    def issue(self, name: str, has_expired: bool = False) -> tuple[Path, Path]:
        """Return the files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key, is_authority=False, has_expired=has_expired)
        key_file = self._directory / f"{self._name}-{name}.key"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return certificate, key_file

    def _sign(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, is_authority: bool, has_expired: bool = False) -> Path:
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=has_expired)
        address = x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([address]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        name = str(subject.rdns[0].rfc4514_string()).removeprefix("CN=")
        file = self._directory / f"{self._name}-{name}.pem"
        file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return file
