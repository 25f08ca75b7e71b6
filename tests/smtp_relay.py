"""Relays for tests: real SMTP servers on real sockets.

`FaultyRelay` does what a test tells it to, at any point of the dialogue. `Relay` is a blameless one, aiosmtpd, with
TLS and logins as asked. Each runs in a thread with an event loop of its own; stopped, it may be started again on
the same port. What is sent to them comes out of the outbox: `enqueue` puts it there, `delivery` says what became of it.
"""

from __future__ import annotations

import asyncio
import collections
import datetime
import email.policy
import enum
import ipaddress
import socket
import ssl
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Literal, Self, cast

import psycopg
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from psycopg.types.json import Jsonb

from tests.postgres import Database

Stage = Literal["CONNECT", "EHLO", "MAIL", "RCPT", "DATA", "CONTENT", "TAKEN", "RSET", "QUIT"]
"""Where a dialogue can go wrong: CONTENT is when all of a mail is there and not kept yet, TAKEN when it is kept."""


class Trouble(enum.Enum):
    """What a relay does in place of an answer."""

    CLOSE = "ends the connection in good order"
    RESET = "ends it with a reset"
    STALL = "says nothing until the test calls release()"
    TRICKLE = "begins an answer and never ends it"


Fault = str | bytes | Trouble
"""In place of the usual answer: another one, bytes as they are, or trouble."""


@dataclass(frozen=True)
class Received:
    """A mail that a relay has taken; `sender` and `recipients` are the envelope's."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes
    connection: int
    is_encrypted: bool = False
    login: str | None = None

    @property
    def message(self) -> EmailMessage:
        return BytesParser(policy=email.policy.default).parsebytes(self.raw)

    @property
    def message_id(self) -> str:
        return str(self.message["Message-ID"])

    def body(self, kind: str = "plain") -> str:
        part = cast("EmailMessage | None", self.message.get_body((kind,)))
        assert part is not None, f"there is no {kind} body"
        return str(part.get_content()).replace("\r\n", "\n")


class _Server(ABC):
    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.received: list[Received] = []
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop
        self._stopping: asyncio.Event

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen: the first time on any free port, then on that one."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.port = listener.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._run(listener, ready),), name="relay")
        self._thread.start()
        assert ready.wait(10)

    def stop(self) -> None:
        """Stop listening and drop every connection; what was received stays."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join()
            self._thread = None

    def wait(self, count: int = 1, timeout: float = 20) -> list[Received]:
        """Return what was received as soon as it is `count` mails or more."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.received) >= count, timeout), f"{len(self.received)} of {count} mails"
            return list(self.received)

    def _keep(self, mail: Received) -> None:
        with self._changed:
            self.received.append(mail)
            self._changed.notify_all()

    async def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        server = await self._listen(listener)
        ready.set()
        await self._stopping.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._drop()
        await asyncio.sleep(0.01)  # the transports end in later rounds of the loop

    @abstractmethod
    async def _listen(self, listener: socket.socket) -> asyncio.Server: ...

    @abstractmethod
    def _drop(self) -> None:
        """Abort what connections are left."""


# -- one that fails as it is told


@dataclass(eq=False)
class _Link:
    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, text: str | bytes) -> None:
        self.writer.write(text if isinstance(text, bytes) else text.encode() + b"\r\n")
        await self.writer.drain()


class _EndedError(Exception):
    """The connection is over."""


class FaultyRelay(_Server):
    """A relay without TLS or logins that meets every mail with what `fail`, `always` or `plan` have prepared."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: collections.Counter[Stage] = collections.Counter()
        self.plan: Callable[[Stage], Fault | None] | None = None
        """Asked at each stage of each mail for which nothing else is prepared."""
        self._next: dict[Stage, collections.deque[Fault]] = collections.defaultdict(collections.deque)
        self._always: dict[Stage, Fault] = {}
        self._held: asyncio.Event
        self._links: set[_Link] = set()

    def fail(self, stage: Stage, *faults: Fault) -> None:
        """Meet the next ones at this stage with these, one after the other."""
        with self._changed:
            self._next[stage].extend(faults)

    def always(self, stage: Stage, fault: Fault | None) -> None:
        """Meet each one at this stage with this; None ends that."""
        with self._changed:
            self._always.pop(stage, None)
            if fault is not None:
                self._always[stage] = fault

    def wait_for(self, stage: Stage, count: int = 1, timeout: float = 20) -> None:
        """Wait until a stage has been reached so many times in all."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.reached[stage] >= count, timeout), f"{stage}: {self.reached}"

    def release(self) -> None:
        """Let those that stall go on as if nothing had been."""
        self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        self._held.set()
        self._held = asyncio.Event()

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        self._held = asyncio.Event()
        self._links = set()
        return await asyncio.start_server(self._serve, sock=listener, limit=1 << 20)

    def _drop(self) -> None:
        for link in self._links:
            link.writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        link = _Link(self.connections, reader, writer)
        self._links.add(link)
        try:
            await self._converse(link)
        except (_EndedError, ConnectionError, asyncio.CancelledError):
            pass  # cancelled when the relay stops
        finally:
            self._links.discard(link)
            writer.close()

    def _prepared(self, stage: Stage) -> Fault | None:
        """Note that a stage is reached, and return what is to happen in place of the usual."""
        with self._changed:
            self.reached[stage] += 1
            self._changed.notify_all()
            if self._next[stage]:
                return self._next[stage].popleft()
            if stage in self._always:
                return self._always[stage]
        return None if self.plan is None else self.plan(stage)

    async def _answer(self, link: _Link, stage: Stage, usual: str) -> bool:
        """Say something; true when it was the usual."""
        fault = self._prepared(stage)
        if isinstance(fault, Trouble):
            await self._trouble(link, fault)
            fault = None
        await link.say(usual if fault is None else fault)
        return fault is None

    async def _trouble(self, link: _Link, trouble: Trouble) -> None:
        match trouble:
            case Trouble.STALL:
                await self._held.wait()
            case Trouble.TRICKLE:
                while True:
                    await link.say("250-and")
                    await asyncio.sleep(0.02)
            case Trouble.CLOSE:
                raise _EndedError
            case Trouble.RESET:
                # To linger for no time is to reset.
                link.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                link.writer.transport.abort()
                raise _EndedError

    async def _converse(self, link: _Link) -> None:
        await self._answer(link, "CONNECT", "220 relay.test ready")
        sender = ""
        recipients: list[str] = []
        while line := (await link.reader.readline()).decode("ascii").strip():
            match line.split(" ", 1)[0].upper():
                case "EHLO" | "HELO":
                    # Nothing more: no 8BITMIME, no SMTPUTF8.
                    await self._answer(link, "EHLO", "250 relay.test")
                case "MAIL":
                    if await self._answer(link, "MAIL", "250 2.1.0 ok"):
                        sender, recipients = _address(line), []
                case "RCPT":
                    if await self._answer(link, "RCPT", "250 2.1.5 ok"):
                        recipients.append(_address(line))
                case "DATA" if not recipients:
                    await link.say("503 5.5.1 to whom?")
                case "DATA":
                    if await self._answer(link, "DATA", "354 go on"):
                        await self._take(link, sender, tuple(recipients))
                        recipients = []
                case "RSET":
                    recipients = []
                    await self._answer(link, "RSET", "250 2.0.0 ok")
                case "QUIT":
                    await self._answer(link, "QUIT", "221 2.0.0 bye")
                    return
                case _:
                    await link.say("502 5.5.2 what?")

    async def _take(self, link: _Link, sender: str, recipients: tuple[str, ...]) -> None:
        lines: list[bytes] = []
        while (line := await link.reader.readline()) != b".\r\n":
            if not line.endswith(b"\r\n"):
                raise _EndedError
            lines.append(line[1:] if line.startswith(b".") else line)
        fault = self._prepared("CONTENT")
        if isinstance(fault, Trouble):
            await self._trouble(link, fault)
        elif fault is not None:
            await link.say(fault)
            return
        self._keep(Received(sender, recipients, b"".join(lines), link.number))
        await self._answer(link, "TAKEN", "250 2.0.0 taken")


def _address(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]


# -- one without fault


class Relay(_Server):
    """A relay that takes every mail; `login` (a name and a password) must be shown before, where it is given.

    With `tls` the connection is encrypted from the start (`is_implicit`), or may be by STARTTLS.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        is_implicit: bool = False,
        login: tuple[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.refused_logins = 0
        self._tls = tls
        self._is_implicit = is_implicit
        self._login = login
        self._talks: list[SMTP] = []

    async def _listen(self, listener: socket.socket) -> asyncio.Server:
        return await self._loop.create_server(self._talk, sock=listener, ssl=self._tls if self._is_implicit else None)

    def _talk(self) -> SMTP:
        self.connections += 1
        by_starttls = self._tls is not None and not self._is_implicit
        talk = SMTP(
            self,
            hostname="relay.test",
            tls_context=self._tls if by_starttls else None,
            authenticator=self._check_login,
            auth_require_tls=by_starttls,
            auth_exclude_mechanism=() if self._login else ("LOGIN", "PLAIN"),
            loop=self._loop,
        )
        self._talks.append(talk)
        return talk

    def _drop(self) -> None:
        for talk in self._talks:
            # One over TLS that was closed twice has nothing left to abort.
            if isinstance(talk.transport, asyncio.Transport) and not talk.transport.is_closing():
                talk.transport.abort()

    def _check_login(self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: LoginPassword) -> AuthResult:
        shown = (data.login.decode(), data.password.decode())
        if shown != self._login:
            self.refused_logins += 1
            return AuthResult(success=False, handled=False)
        return AuthResult(success=True, auth_data=shown[0])

    # Called by aiosmtpd, which finds them by their names.
    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if self._login and not session.authenticated:
            return "530 5.7.0 authentication required"
        envelope.mail_from = address
        return "250 2.1.0 ok"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw = cast(bytes, envelope.content)
        encrypted = self._is_implicit or session.ssl is not None
        login = cast("str | None", session.auth_data)
        self._keep(Received(envelope.mail_from or "", tuple(envelope.rcpt_tos), raw, self.connections, encrypted, login))
        return "250 2.0.0 taken"


# -- certificates


class Authority:
    """A certificate authority of a test's own; `file` is its certificate."""

    def __init__(self, directory: Path, name: str = "authority") -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Test {name}")])
        certificate = (
            self._certificate(self._name, self._key.public_key(), datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _certificate(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: datetime.timedelta
    ) -> x509.CertificateBuilder:
        # It began two days ago, so that one with a lifetime below zero is over.
        moment = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(moment - datetime.timedelta(days=2))
            .not_valid_after(moment + lifetime)
        )

    def server(self, host: str = "127.0.0.1", lifetime: datetime.timedelta = datetime.timedelta(days=1)) -> ssl.SSLContext:
        """Return what a server at `host`, an address or a name, needs for TLS."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        certificate = (
            self._certificate(x509.Name([]), key.public_key(), lifetime)
            .add_extension(x509.SubjectAlternativeName([name]), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        path = self._directory / f"{certificate.serial_number:x}.pem"
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


# -- mail to be sent


def worker_environment(database: Database, port: int, **variables: str) -> dict[str, str]:
    """Return what a job program over this database, or a part of one, must be told to send by a relay at this port."""
    return {
        "BACKEND_POSTGRES_DSN": database.dsn("galaxy_worker"),
        "BACKEND_GAME_STATE_ROOT": "/nonexistent/games",
        "BACKEND_GEOIP_DB_PATH": "/nonexistent/geo.mmdb",
        "BACKEND_RUNTIME_DRIVER": "process",
        "BACKEND_SMTP_HOST": "127.0.0.1",
        "BACKEND_SMTP_PORT": str(port),
        "BACKEND_SMTP_FROM": "Galaxy <noreply@galaxy.example>",
        "BACKEND_SMTP_TLS_MODE": "none",
        "BACKEND_OTEL_TRACES_EXPORTER": "none",
        "BACKEND_OTEL_METRICS_EXPORTER": "none",
        **variables,
    }


def enqueue(
    connection: psycopg.Connection[Any],
    key: str = "1",
    to: str = "ada@example.org",
    *,
    values: Mapping[str, str] = MappingProxyType({"name": "Ada"}),
    priority: int = 0,
    expires_in: str | None = None,
    request_id: str = "",
    traceparent: str = "",
) -> str:
    """Put a mail that is no secret in the outbox, as a function of the API would, and return its delivery's id."""
    with connection.transaction():
        connection.execute(
            """
            INSERT INTO backend.mail_templates (template_id, subject, body_text, body_html, priority)
            VALUES ('test.note.' || %(priority)s, 'A note for {{name}}', 'Hello {{name}}', '<p>Hello {{name}}</p>', %(priority)s)
            ON CONFLICT DO NOTHING
            """,
            {"priority": priority},
        )
        row = connection.execute(
            """
            SELECT set_config('backend.request_id', %s, true), set_config('backend.traceparent', %s, true),
                   backend.mail_enqueue('test.note.' || %s, %s, %s, %s, NULL, backend.now() + %s::interval)
            """,
            [request_id, traceparent, priority, key, [to], Jsonb(dict(values)), expires_in],
        ).fetchone()
    assert row is not None
    return str(row[2])


def enqueue_many(connection: psycopg.Connection[Any], count: int) -> set[str]:
    """Put so many mails to as many people in the outbox at once, and return their deliveries' ids."""
    enqueue(connection)
    rows = connection.execute(
        """
        SELECT backend.mail_enqueue('test.note.0', 'many-' || n, ARRAY['person-' || n || '@example.org'], '{"name": "you"}')
          FROM generate_series(2, %s) AS n
        UNION ALL SELECT delivery_id FROM backend.mail_deliveries
        """,
        [count],
    ).fetchall()
    return {str(row[0]) for row in rows}


@dataclass(frozen=True)
class Attempt:
    number: int
    outcome: str
    error: str | None
    is_reported: bool


@dataclass(frozen=True)
class Delivery:
    """What the outbox knows of a mail; `due_in` is in seconds by the platform's clock."""

    status: str
    attempts: list[Attempt]
    due_in: float
    is_leased: bool
    body: str | None
    dead_letter: str | None

    @property
    def outcomes(self) -> list[str]:
        return [attempt.outcome for attempt in self.attempts]


def delivery(connection: psycopg.Connection[Any], delivery_id: str) -> Delivery:
    row = connection.execute(
        """
        SELECT d.status, extract(epoch FROM d.next_attempt_at - backend.now())::float, d.lease_until > backend.now(),
               p.body_text, l.reason
          FROM backend.mail_deliveries AS d JOIN backend.mail_payloads AS p USING (payload_id)
          LEFT JOIN backend.mail_dead_letters AS l USING (delivery_id)
         WHERE d.delivery_id = %s
        """,
        [delivery_id],
    ).fetchone()
    attempts = connection.execute(
        """
        SELECT attempt_no, outcome, error, finished_at IS NOT NULL FROM backend.mail_attempts
         WHERE delivery_id = %s ORDER BY attempt_no
        """,
        [delivery_id],
    ).fetchall()
    assert row is not None
    return Delivery(row[0], [Attempt(*attempt) for attempt in attempts], row[1], bool(row[2]), row[3], row[4])
