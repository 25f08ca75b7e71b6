"""The HTTP program: gunicorn's threaded workers around the application.

Every process opens its connections after the fork, prepares every statement on each, and only then accepts requests.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon
import psycopg
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger
from gunicorn.workers.gthread import TConn, ThreadWorker

from app import config as configuration
from app import contract, dsn, logs, telemetry
from app.application import create_app
from app.config import Config
from app.database import Database, Statement
from app.engines import ENGINE_ACCESS, Engines
from app.errors import ConstraintError, error_body
from app.geo import Geo
from app.identity import Administrators, hash_password
from app.operations import Services
from app.probes import Check, Probes
from app.schema import EX_CONFIG, Refused, check_deployed, check_login
from app.supervisor import spawn

log = logging.getLogger("galaxy.api")

DOOR = "backend_api"


def conninfo(config: Config) -> str:
    """Return libpq's connection string of the HTTP program: settings of rules, and an end to everything that could hang."""
    milliseconds = str(round(config.postgres_operation_timeout * 1000))
    seconds = str(max(1, round(config.postgres_operation_timeout)))
    return dsn.conninfo(
        config.postgres_dsn_api,
        application_name="galaxy-api",
        settings={
            **configuration.database_settings(config),
            "statement_timeout": milliseconds,
            "lock_timeout": milliseconds,
        },
        connect_timeout=seconds,
        keepalives_idle="10",
        keepalives_interval="5",
        keepalives_count="3",
        tcp_user_timeout=milliseconds,
    )


class Preflight:
    """What the document and the database say together. Raises Refused, ContractError, or psycopg.Error when asked too early."""

    def __init__(self, config: Config) -> None:
        self.document = contract.load_document()
        self.operations = contract.operations(self.document)
        with psycopg.connect(conninfo(config), autocommit=True) as connection:
            check_login(connection, DOOR, config.development)
            check_deployed(row[0] for row in connection.execute("SELECT api.schema_changes()"))
            self.calls = contract.bind(self.operations, connection)
            self.constraints = {
                name: ConstraintError(status, code, message)
                for name, status, code, message in connection.execute("SELECT * FROM api.constraint_errors()")
            }


def build(config: Config) -> falcon.App[falcon.Request, falcon.Response]:
    """Make the application of one process, with its connections open."""
    preflight = Preflight(config)
    statements = {name: call.statement for name, call in preflight.calls.items()}
    statements |= {s.name: s for s in _INTERNAL_STATEMENTS}
    database = Database(conninfo(config), statements, config.postgres_conn_max_lifetime)
    database.open(config.http_threads)
    services = Services(
        database=database,
        constraints=preflight.constraints,
        administrators=Administrators(lambda name: _find_hash(database, name)),
        geo=Geo(config.geoip_db_path),
        trusted_proxies=config.http_trusted_proxies,
        internal_token=config.internal_token,
        pepper=(config.auth_pepper or "").encode(),
    )
    probes = Probes(_checks(config, database), preflight.document)
    engines = Engines(
        services,
        call_timeout=min(config.engine_call_timeout, config.http_write_timeout - 1),
        probe_timeout=min(config.engine_probe_timeout, config.http_write_timeout - 1),
        # Engines that hang must leave threads for everything else.
        at_once=max(1, config.http_threads // 2),
    )
    handlers = {**probes.handlers(), **engines.handlers()}
    return create_app(preflight.operations, preflight.calls, services, handlers, config.cors_allowed_origins)


_TEXT = 25
_CREDENTIAL = Statement("administrator_credential", "SELECT api.administrator_credential($1)", (_TEXT,), True)
_CHANGES = Statement("schema_changes", "SELECT array_to_string(ARRAY(SELECT api.schema_changes()), ' ')", (), True)
_INTERNAL_STATEMENTS = (_CREDENTIAL, _CHANGES, ENGINE_ACCESS)


def _find_hash(database: Database, name: str) -> str | None:
    (value,) = database.call(_CREDENTIAL.name, [name.encode()])
    return value.decode() if value is not None else None


def _checks(config: Config, database: Database) -> dict[str, Check]:
    def schema() -> str:
        (value,) = database.call(_CHANGES.name, [])
        check_deployed((value or b"").decode().split())
        return "ok"

    def postgres() -> str:
        database.call(_CREDENTIAL.name, [b""])
        return "ok"

    checks: dict[str, Check] = {"postgres": postgres, "schema": schema}
    # `serve` tells its children so: there the stream is a part of the same whole.
    if os.environ.get("GALAXY_SUPERVISED"):
        checks["push"] = _push_check(config)
    return checks


def _push_check(config: Config) -> Check:
    def push() -> str:
        host = config.grpc_push_listen_addr.host or "127.0.0.1"
        host = "127.0.0.1" if host == "0.0.0.0" else "::1" if host == "::" else host  # noqa: S104
        with socket.create_connection((host, config.grpc_push_listen_addr.port), timeout=1):
            return "ok"

    return push


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, with an end to requests that come too slowly and our error body for what is not HTTP."""

    _deadlines: dict[TConn, float]

    def init_process(self) -> None:
        self._deadlines = {}
        super().init_process()

    def handle(self, conn: TConn) -> Any:
        self._deadlines[conn] = time.monotonic() + self.app.request_deadline
        try:
            return super().handle(conn)
        finally:
            self._deadlines.pop(conn, None)

    def murder_keepalived(self, force: bool = False) -> None:
        """Called about once a second by the worker's loop: also cuts off what is overdue, waking the thread that waits for it."""
        super().murder_keepalived(force)
        now = time.monotonic()
        for conn, deadline in list(self._deadlines.items()):
            if now > deadline:
                self._deadlines.pop(conn, None)
                try:
                    conn.sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what the parser refused. Nothing of the request is trusted, so it gets an id of ours."""
        status, reason = _PROTOCOL_ERRORS.get(type(exc).__name__, (400, "Bad Request"))
        request_id = os.urandom(16).hex()
        logs_fields = {"request_id": request_id, "error": type(exc).__name__, "status": status}
        log.info("malformed request", extra=logs_fields)
        body = error_body("invalid_request", "The request is not well-formed HTTP.", {}, request_id)
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            client.sendall(head.encode() + body)
        except OSError:
            log.debug("the client did not wait for the refusal")


_PROTOCOL_ERRORS = {
    "LimitRequestLine": (414, "URI Too Long"),
    "LimitRequestHeaders": (431, "Request Header Fields Too Large"),
    "ExpectationFailed": (417, "Expectation Failed"),
    "UnsupportedTransferCoding": (501, "Not Implemented"),
}


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's own lines through our formatter; its access log is not used, ours knows more."""

    def setup(self, cfg: Any) -> None:
        self.loglevel = logging.getLogger().level
        for logger in (self.error_log, self.access_log):
            logger.handlers[:] = []
            logger.propagate = True
        self.error_log.setLevel(logging.getLogger().level)

    def reopen_files(self) -> None:
        """Nothing is written to files."""


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, config: Config, scrape_directory: Path | None) -> None:
        self._config = config
        self._scrape_directory = scrape_directory
        self.request_deadline = config.http_read_timeout + config.http_write_timeout
        super().__init__()

    def load_config(self) -> None:
        config = self._config
        options: dict[str, Any] = {
            "bind": [_bind_address(config)],
            "workers": config.http_workers,
            "threads": config.http_threads,
            "worker_class": "app.http.Worker",
            "logger_class": _Logger,
            "graceful_timeout": max(1, round(config.http_shutdown_timeout)),
            # gunicorn ends a worker that has not been heard of for this long.
            "timeout": max(30, round(config.http_write_timeout) + 5),
            "keepalive": 75,
            "limit_request_line": 8190,
            "limit_request_fields": 100,
            "limit_request_field_size": 8190,
            # Whose word counts for the client's address is decided by source_address, not by gunicorn.
            "forwarded_allow_ips": "",
            "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108
            "post_worker_init": self._after_start,
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        """In the worker, after the fork and before it accepts."""
        logs.configure(self._config.service_name, self._config.logging_level)
        telemetry.configure(self._config, "api", self._scrape_directory)
        return build(self._config)

    def _after_start(self, worker: Worker) -> None:
        # Accepted sockets inherit these: one recv or send may take no longer, whoever set the socket to block.
        for listener in worker.sockets:
            for option, seconds in (
                (socket.SO_RCVTIMEO, self._config.http_read_timeout),
                (socket.SO_SNDTIMEO, self._config.http_write_timeout),
            ):
                whole = int(seconds)
                listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("@ll", whole, int((seconds - whole) * 1_000_000)))


def _bind_address(config: Config) -> str:
    host = config.http_listen_addr.host or "[::]"
    if ":" in host and not host.startswith("["):
        host = f"[{host}]"
    return f"{host}:{config.http_listen_addr.port}"


def main(config: Config) -> int:
    """Run the HTTP program until it is told to stop; 78 when it must not be started as it is, 1 when Postgres cannot be asked."""
    logs.configure(config.service_name, config.logging_level)
    for warning in configuration.warnings(config):
        log.warning(warning)
    try:
        preflight = Preflight(config)
        Geo(config.geoip_db_path).close()
        _bootstrap(config)
    except (Refused, contract.ContractError) as error:
        for line in str(error).splitlines():
            log.error("refusing to start", extra={"reason": line})
            sys.stderr.write(f"{line}\n")
        return EX_CONFIG
    except OSError as error:
        sys.stderr.write(f"BACKEND_GEOIP_DB_PATH cannot be opened: {error.strerror or type(error).__name__}\n")
        return EX_CONFIG
    except psycopg.Error as error:
        log.error("Postgres cannot be asked", extra={"error": type(error).__name__, "sqlstate": error.sqlstate})
        return 1
    log.info("starting", extra={"operations": len(preflight.operations), "address": str(config.http_listen_addr)})
    if config.otel_metrics_exporter != "prometheus":
        _Server(config, None).run()
        return 0
    with tempfile.TemporaryDirectory(prefix="galaxy-api-") as directory:
        address = config.otel_prometheus_listen_addr
        spawn([sys.executable, "-m", "app.scrape", address.host, str(address.port), directory])
        _Server(config, Path(directory)).run()
    return 0


def _bootstrap(config: Config) -> None:
    if config.admin_bootstrap_user is None or config.admin_bootstrap_password is None:
        return
    with psycopg.connect(conninfo(config), autocommit=True) as connection:
        row = connection.execute(
            "SELECT api.administrator_bootstrap(%s, %s)",
            (config.admin_bootstrap_user, hash_password(config.admin_bootstrap_password)),
        ).fetchone()
    if row is not None and row[0]:
        log.info("the first administrator was made", extra={"admin": config.admin_bootstrap_user})
