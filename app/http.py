"""The HTTP program: gunicorn's threaded workers around the application.

Every process opens its connections after the fork, prepares every statement on each, and only then accepts requests.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import falcon
import maxminddb
import psycopg
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger

from app import background, contract, dsn, engines, idempotency, logs, probes, scrape, telemetry
from app import config as configuration
from app.application import create_app
from app.background import Countries, Flusher, SeenSessions
from app.config import Config
from app.database import Database, Statement, Value
from app.errors import ConstraintError
from app.geo import Geo
from app.identity import Administrators, Credential, hash_password
from app.operations import Services
from app.probes import Check, Probes
from app.schema import EX_CONFIG, Refused, check_deployed, check_login, deployed_changes, tell_unreachable
from app.supervisor import HEALTH_SOCKET, spawn

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
            # A program that is frozen, or a host that is lost, keeps no lock for longer.
            "idle_in_transaction_session_timeout": milliseconds,
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
        contract.check_handlers(self.operations, (*probes.NAMES, *engines.NAMES))
        with psycopg.connect(conninfo(config), autocommit=True) as connection:
            check_login(connection, DOOR, config.development)
            check_deployed(deployed_changes(connection, "api"))
            self.calls = contract.bind(self.operations, connection)
            self.constraints = {
                name: ConstraintError(status, code, message)
                for name, status, code, message in connection.execute("SELECT * FROM api.constraint_errors()")
            }


def build(config: Config) -> tuple[falcon.App[falcon.Request, falcon.Response], Flusher, Database]:
    """Make the application of one process, what writes down its notes, not yet started, and its open connections."""
    preflight = Preflight(config)
    statements = {name: call.statement for name, call in preflight.calls.items()}
    statements |= {s.name: s for s in _INTERNAL_STATEMENTS}
    database = Database(conninfo(config), statements, config.postgres_conn_max_lifetime)
    database.open(config.http_threads)
    geo = Geo(config.geoip_db_path)
    seen = SeenSessions(database)
    countries = Countries(database, geo, config.http_trusted_proxies)
    services = Services(
        database=database,
        constraints=preflight.constraints,
        # Passwords that are compared must leave threads for everything else.
        administrators=Administrators(_Credentials(database), max(1, config.http_threads // 2)),
        geo=geo,
        trusted_proxies=config.http_trusted_proxies,
        internal_token=config.internal_token,
        pepper=(config.auth_pepper or "").encode(),
        seen=seen,
        countries=countries,
    )
    root = Probes(_checks(database), preflight.document)
    game_engines = engines.Engines(
        services,
        call_timeout=min(config.engine_call_timeout, config.http_write_timeout - 1),
        probe_timeout=min(config.engine_probe_timeout, config.http_write_timeout - 1),
        threads=config.http_threads,
    )
    handlers = {**root.handlers(), **game_engines.handlers()}
    app = create_app(preflight.operations, preflight.calls, services, handlers, config.cors_allowed_origins)
    return app, Flusher((seen.flush, countries.flush)), database


_TEXT, _INET = 25, 869
_CREDENTIAL = Statement("administrator_credential", "SELECT api.administrator_credential($1, $2)", (_TEXT, _INET), True)
_FAILED = Statement("administrator_attempt_failed", "SELECT api.administrator_attempt_failed($1, $2)", (_TEXT, _INET), False)
_USED = Statement("administrator_used", "SELECT api.administrator_used($1, $2)", (_TEXT, _INET), False)
_CHANGES = Statement("schema_changes", "SELECT array_to_string(ARRAY(SELECT api.schema_changes()), ' ')", (), True)
_HEARD = Statement("program_is_heard", "SELECT api.program_is_heard($1)", (_TEXT,), True)
_INTERNAL_STATEMENTS = (
    _CREDENTIAL,
    _FAILED,
    _USED,
    _CHANGES,
    _HEARD,
    engines.ENGINE_ACCESS,
    *background.STATEMENTS,
    *idempotency.STATEMENTS,
)


class _Credentials:
    """The database's word on administrators (`app.identity.Credentials`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, name: str, source: str | None) -> Credential:
        return Credential(**json.loads(self._call(_CREDENTIAL, name, source) or b"{}"))

    def failed(self, name: str, source: str | None) -> None:
        self._call(_FAILED, name, source)

    def used(self, name: str, source: str | None) -> None:
        self._call(_USED, name, source)

    def _call(self, statement: Statement, name: str, source: str | None) -> Value:
        (value,) = self._database.call(statement.name, [name.encode(), source.encode() if source else None])
        return value


def _checks(database: Database) -> dict[str, Check]:
    def schema() -> str:
        (value,) = database.call(_CHANGES.name, [])
        check_deployed((value or b"").decode().split())
        return "ok"

    def postgres() -> str:
        database.call(_CREDENTIAL.name, [b"", None])
        return "ok"

    def heard(program: str) -> Check:
        def check() -> str:
            # They are elsewhere, and what they do waits for them: never a reason to take the api out.
            with contextlib.suppress(psycopg.Error):
                (value,) = database.call(_HEARD.name, [program.encode()])
                if value == b"t":
                    return "ok"
            return "degraded"

        return check

    checks: dict[str, Check] = {"postgres": postgres, "schema": schema, "push": heard("push"), "worker": heard("worker")}
    # `serve` tells its children so: there the stream is a part of the same whole.
    if health_socket := os.environ.get(HEALTH_SOCKET):
        # Not before the fork, which gRPC does not bear.
        from app.push_health import check

        checks["push"] = lambda: check(health_socket)
    return checks


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


class _Arbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's master. SIGINT is what SIGTERM is; a second of either ends the workers at once."""

    def handle_int(self) -> None:
        self.handle_term()

    def manage_workers(self) -> None:
        """Called again and again."""
        super().manage_workers()
        self.app.keep_scraping()

    def stop(self, graceful: bool = True) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.SIG_QUEUE.put_nowait(signal.SIGQUIT))
        super().stop(graceful)


class _Server(BaseApplication):  # type: ignore[misc]
    def __init__(self, config: Config, scrape_directory: Path | None, scrape_listener: int | None = None) -> None:
        self._config = config
        self._scrape_directory = scrape_directory
        self._scrape_listener = scrape_listener
        self._scraper: subprocess.Popen[bytes] | None = None
        self.read_timeout = config.http_read_timeout
        self.write_timeout = config.http_write_timeout
        super().__init__()

    def run(self) -> None:
        _Arbiter(self).run()

    def keep_scraping(self) -> None:
        """In the master: have a process that answers for all of them, also when one has ended."""
        if self._scrape_listener is not None and (self._scraper is None or self._scraper.poll() is not None):
            command = [sys.executable, "-m", "app.scrape", str(self._scrape_listener), str(self._scrape_directory)]
            self._scraper = spawn(command, descriptors=[self._scrape_listener])

    def load_config(self) -> None:
        config = self._config
        options: dict[str, Any] = {
            "bind": [_bind_address(config)],
            "workers": config.http_workers,
            "threads": config.http_threads,
            "worker_class": "app.worker.Worker",
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
            "control_socket_disable": True,
        }
        for name, value in options.items():
            self.cfg.set(name, value)

    def load(self) -> Callable[..., Any]:
        """In the worker, after the fork and before it accepts."""
        logs.configure(self._config.service_name, self._config.logging_level)
        telemetry.configure(self._config, "api", self._scrape_directory)
        try:
            app, self._flusher, self._database = build(self._config)
        except psycopg.Error as error:
            # Any other exception here would end the master as well: it takes it for a fault of the code.
            log.warning("the database is away", extra={"error": type(error).__name__})
            time.sleep(1)
            sys.exit(1)
        self._flusher.start()
        return app

    def finish(self) -> None:
        """In the worker, when it has answered its last request."""
        self._flusher.stop()
        self._database.close()
        telemetry.shutdown()


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
    except (OSError, maxminddb.InvalidDatabaseError) as error:
        reason = f"BACKEND_GEOIP_DB_PATH cannot be read: {getattr(error, 'strerror', None) or error}"
        log.error("refusing to start", extra={"reason": reason})
        sys.stderr.write(f"{reason}\n")
        return EX_CONFIG
    except psycopg.Error as error:
        tell_unreachable(log, error)
        return 1
    log.info("starting", extra={"operations": len(preflight.operations), "address": str(config.http_listen_addr)})
    if config.otel_metrics_exporter != "prometheus":
        _Server(config, None).run()
        return 0
    try:
        listener = scrape.listen(config.otel_prometheus_listen_addr)
    except scrape.ListenError as error:
        log.error("refusing to start", extra={"reason": str(error)})
        sys.stderr.write(f"{error}\n")
        return 1
    directory = tempfile.mkdtemp(prefix="galaxy-api-")
    master = os.getpid()
    try:
        with listener:
            _Server(config, Path(directory), listener.fileno()).run()
    finally:
        # Workers are forks of this: one that ends passes by here too.
        if os.getpid() == master:
            shutil.rmtree(directory, ignore_errors=True)
    return 0


def _bootstrap(config: Config) -> None:
    if config.admin_bootstrap_user is None or config.admin_bootstrap_password is None:
        return
    with psycopg.connect(conninfo(config), autocommit=True) as connection:
        try:
            row = connection.execute(
                "SELECT api.administrator_bootstrap(%s, %s)",
                (config.admin_bootstrap_user, hash_password(config.admin_bootstrap_password)),
            ).fetchone()
        except psycopg.errors.CheckViolation:
            raise Refused(
                "BACKEND_ADMIN_BOOTSTRAP_USER must have 1 to 64 letters, digits, full stops, underscores or hyphens,"
                " and begin with a letter or a digit"
            ) from None
    if row is not None and row[0]:
        log.info("the first administrator was made", extra={"admin": config.admin_bootstrap_user})
