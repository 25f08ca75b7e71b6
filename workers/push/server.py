"""The streamer program: wiring, start, signals, shutdown."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import ssl
import sys

import grpc
import psycopg
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from app import config as configuration
from app import dsn, logs, schema, scrape, telemetry
from app.config import Address, Config
from app.supervisor import HEALTH_SOCKET
from workers.database import Backoff, Database, DatabaseError, Watch
from workers.listener import Listener
from workers.push import service
from workers.push.events import Row
from workers.push.sequencer import Sequencer
from workers.push.stream import Stream
from workers.push.subscribers import End, Subscribers

log = logging.getLogger("galaxy.push")

# Seconds between looks without being woken: for events, and for streams that were replaced elsewhere.
POLL_INTERVAL = 0.05
REPLACED_INTERVAL = 2.0

# Seconds between heartbeats. Who was not heard of for fifteen counts as gone (api.program_is_heard).
HEARTBEAT = 4.0

SHUT_DOWN = End("shut_down", grpc.StatusCode.UNAVAILABLE, "This streamer shuts down; resume elsewhere.")
RESTARTED = End("restarted", grpc.StatusCode.UNAVAILABLE, "The stream has begun anew; subscribe again.")

OPTIONS = [
    # Two streamers on one port would share it without a word.
    ("grpc.so_reuseport", 0),
    # A gateway that has vanished without a word is noticed; gateways may ping us every ten seconds.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # what counts in newer versions of gRPC; a minute by default
    ("grpc.keepalive_permit_without_calls", 1),
    # Else it would ask an idle one twice, and never again.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 9_000),
    # A request is an id and a cursor.
    ("grpc.max_receive_message_length", 64 * 1024),
]


class ListenError(Exception):
    """The port cannot be opened."""


def main(config: Config) -> int:
    """Serve until SIGTERM or SIGINT, a second of which ends at once.

    Ends the process with 0 when told to stop; returns 78 when it must not be started as it is, 1 when the port cannot be opened.
    """
    logs.configure(config.service_name, config.logging_level)
    for warning in configuration.warnings(config):
        log.warning(warning)
    try:
        telemetry.configure(config, "push")
        _kept = asyncio.run(_serve(config))
    except (schema.Refused, scrape.ListenError, ListenError) as error:
        log.error("refusing to start", extra={"reason": str(error)})
        sys.stderr.write(f"{error}\n")
        return schema.EX_CONFIG if isinstance(error, schema.Refused) else 1
    telemetry.shutdown()
    sys.stdout.flush()
    # Where its server is forgotten gRPC ends a thread of its own, in a race that can crash a program whose work is done
    # (grpc/grpc#43364). So it is kept, to an end that clears nothing away.
    os._exit(0)


async def _serve(config: Config) -> Streamer:
    # Here, since gRPC's server belongs to the loop in which it is made.
    streamer = Streamer(config)
    await streamer.run()
    return streamer


class Streamer:
    def __init__(self, config: Config) -> None:
        self._config = config
        timeout = {"statement_timeout": str(round(config.postgres_operation_timeout * 1000))}

        def conninfo(given: str, part: str) -> str:
            name = f"{config.service_name}-push-{part}"
            return dsn.conninfo(given, application_name=name, settings=timeout, connect_timeout="5")

        def database(given: str, part: str) -> Database:
            return Database(
                conninfo(given, part),
                timeout=config.postgres_operation_timeout,
                lifetime=config.postgres_conn_max_lifetime,
            )

        # The sequencer takes the direct way as well: it holds a lock of its session.
        self._databases = [
            database(config.postgres_listen_dsn, "sequencer"),
            database(config.postgres_dsn_push, "stream"),
            database(config.postgres_dsn_push, "service"),
        ]
        direct, tail, self._database = self._databases

        self._changed = asyncio.Event()
        self._stream = Stream(tail, self._database, lambda: self._subscribers.end_all(RESTARTED))
        self._subscribers = Subscribers(self._database)
        self._sequencer = Sequencer(direct, self._on_moved)
        changed = self._changed.set
        self._sequence = Watch("sequencer", self._sequencer.sequence, POLL_INTERVAL, changed)
        self._follow = Watch("stream", self._stream.follow, POLL_INTERVAL, changed)
        self._end_replaced = Watch("subscribers", self._subscribers.end_replaced, REPLACED_INTERVAL, changed)
        self._heartbeat = Watch("heartbeat", self._beat, HEARTBEAT, changed)
        self._listener = Listener(
            conninfo(config.postgres_listen_dsn, "listener"),
            "BACKEND_POSTGRES_LISTEN_DSN",
            self._database,
            {
                "galaxy_push_subscribers": self._end_replaced.wake,
                "galaxy_push_pending": self._sequence.wake,
                "galaxy_push_events": self._follow.wake,
            },
            ourselves=direct,
        )
        self._service = service.PushService(self._stream, self._subscribers, config.internal_token, self._end_replaced.wake)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(options=OPTIONS)

    def _on_moved(self, rows: list[Row]) -> None:
        if not self._stream.append(rows):
            self._follow.wake()

    async def run(self) -> None:
        """Serve until told to stop. Raises schema.Refused and ListenError."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, _on_signal, number, stop)
        try:
            await self._listen()
            checking = asyncio.create_task(self._check_database())
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait((checking, stopping), return_when=asyncio.FIRST_COMPLETED)
            if checking.done():
                checking.result()
                await self._work(stop)
            checking.cancel()
        finally:
            await self._server.stop(None)
            for database in self._databases:
                await database.close()
        log.info("stopped")

    async def _work(self, stop: asyncio.Event) -> None:
        parts = (self._sequence, self._follow, self._end_replaced, self._heartbeat, self._listener)
        # Whatever ends one of them is a fault of ours and ends the program.
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(part.run()) for part in parts]
            tasks.append(group.create_task(self._report_health()))
            await stop.wait()
            await self._shut_down()
            for task in tasks:
                task.cancel()

    async def _listen(self) -> None:
        """Open the port. Probes are answered from here on, with NOT_SERVING."""
        self._server.add_generic_rpc_handlers((self._service.handlers(),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((service.NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)
        host, port = self._config.grpc_push_listen_addr
        address = str(Address(host or "::", port))
        credentials = self._credentials()
        try:
            if credentials is None:
                port = self._server.add_insecure_port(address)
            else:
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise ListenError(f"cannot listen on {address} (BACKEND_GRPC_PUSH_LISTEN_ADDR): {error}") from error
        if health_socket := os.environ.get(HEALTH_SOCKET):
            # Where `serve` runs both, the api asks how we are: without certificates, which are for gateways.
            self._server.add_insecure_port(f"unix:{health_socket}")
        await self._server.start()
        log.info("listening", extra={"address": address, "port": port, "tls": credentials is not None})

    def _credentials(self) -> grpc.ServerCredentials | None:
        config = self._config
        certificate, key, client_ca = config.grpc_push_tls_cert, config.grpc_push_tls_key, config.grpc_push_tls_client_ca
        if certificate is None or key is None:
            return None
        try:
            # gRPC would say no more of a file that it cannot use than that the port cannot be opened.
            check = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            check.load_cert_chain(certificate, key, password="")  # else it would ask the terminal for one
            if client_ca is not None:
                check.load_verify_locations(client_ca)
            return grpc.ssl_server_credentials(
                [(key.read_bytes(), certificate.read_bytes())],
                client_ca.read_bytes() if client_ca else None,
                require_client_auth=client_ca is not None,
            )
        except OSError as error:  # SSLError is one, too
            names = "BACKEND_GRPC_PUSH_TLS_CERT, _KEY or _CLIENT_CA"
            raise schema.Refused(f"{names} names a file that cannot be used: {error}") from error

    async def _check_database(self) -> None:
        """Wait for the database. Raises schema.Refused when we must not work on it, or not as this login."""
        backoff = Backoff()
        while True:
            try:
                user, is_superuser, member_of = (await self._database.fetch(schema.LOGIN_QUERY))[0]
                deployed = await self._deployed_changes()
                break
            except DatabaseError as trouble:
                log.warning("waiting for the database", extra={"error": str(trouble)})
                await backoff.wait()
        problem = schema.login_problem(is_superuser, member_of, "backend_push", user)
        if problem and not self._config.development:
            raise schema.Refused(problem)
        schema.check_deployed(deployed)

    async def _deployed_changes(self) -> set[str]:
        try:
            return {row[0] for row in await self._database.fetch("SELECT push.schema_changes()")}
        except DatabaseError as trouble:
            # No such function, or not for us.
            if isinstance(trouble.__cause__, psycopg.ProgrammingError):
                return set()
            raise

    async def _report_health(self) -> None:
        status = health_pb2.HealthCheckResponse
        while True:
            self._changed.clear()
            is_well = self._sequence.is_well and self._follow.is_well
            if is_well != self._service.is_open:
                self._service.is_open = is_well
                await self._set_health(status.SERVING if is_well else status.NOT_SERVING)
                log.info("serving" if is_well else "not serving")
                self._heartbeat.wake()
            await self._changed.wait()

    async def _beat(self) -> None:
        """Be heard of by the api, wherever it is, while we serve."""
        if self._service.is_open:
            await self._database.fetch("SELECT push.streamer_beat()")

    async def _set_health(self, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        for name in ("", service.NAME):
            await self._health.set(name, status)

    async def _shut_down(self) -> None:
        timeout = self._config.grpc_push_shutdown_timeout
        log.info("shutting down")
        await self._health.enter_graceful_shutdown()
        refusing = asyncio.create_task(self._server.stop(timeout))
        try:
            async with asyncio.timeout(timeout * 0.8):
                await self._sequencer.sequence()
                await self._subscribers.delivered((await self._stream.resume("")).position)
        except (TimeoutError, DatabaseError):
            log.warning("not everything committed could be sent in time; gateways resume elsewhere")
        self._subscribers.end_all(SHUT_DOWN)
        # The streams end by themselves now; probes that watch the health would stay.
        await self._server.stop(min(1.0, timeout * 0.2))
        await refusing
        await self._subscribers.released()


def _on_signal(number: int, stop: asyncio.Event) -> None:
    if stop.is_set():
        os._exit(128 + number)
    stop.set()
