"""The job program: Procrastinate's worker and the sweeps beside it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import procrastinate
import psycopg
from procrastinate.job_context import JobContext
from psycopg_pool import PoolTimeout

from app import config as configuration
from app import logs, metrics, telemetry
from app.config import Config
from app.schema import EX_CONFIG, Refused, check_deployed, check_login, deployed_changes
from workers import maintenance
from workers.door import Door, conninfo
from workers.loops import every
from workers.tasks.mail import MailDelivery

log = logging.getLogger("galaxy.worker")

DOOR = "backend_worker"

QUEUES = ("mail",)

# A job that waits while nobody is woken for it is found this soon.
_POLL_SECONDS = 5.0


def job_app(config: Config, delivery: MailDelivery) -> procrastinate.App:
    """Return the Procrastinate application with every task."""
    connector = procrastinate.PsycopgConnector(
        conninfo=conninfo(config, "galaxy-worker-queue", search_path="procrastinate"),
        min_size=1,
        max_size=max(4, config.postgres_max_conns // 2),
        max_lifetime=config.postgres_conn_max_lifetime,
        timeout=config.postgres_operation_timeout,
    )
    app = procrastinate.App(connector=connector)

    @app.task(name="mail_deliver", queue="mail")
    async def mail_deliver(context: dict[str, str]) -> None:
        await delivery.run()

    return app


async def in_context(call_next: Callable[[], Awaitable[Any]], context: JobContext, _worker: Any) -> Any:
    """Run a job under the request id and the trace of whoever deferred it, and count it."""
    given = context.job.task_kwargs.get("context")
    origin: dict[str, Any] = given if isinstance(given, dict) else {}
    task = context.job.task_name
    outcome = "failed"
    with (
        telemetry.span(f"job {task}", origin.get("traceparent")) as span,
        logs.bind(request_id=origin.get("request_id"), job_id=context.job.id, task=task),
    ):
        if origin.get("request_id"):
            span.set_attribute("request_id", str(origin["request_id"]))
        try:
            result = await call_next()
            outcome = "succeeded"
            return result
        except (psycopg.Error, PoolTimeout) as error:
            # Its text may hold values; what the job was about is found again by a sweep.
            log.warning("job failed", extra={"error": type(error).__name__, "sqlstate": getattr(error, "sqlstate", None)})
            raise
        except Exception:
            log.exception("job failed")
            raise
        finally:
            metrics.jobs_total.add(1, {"task": task, "outcome": outcome})
            log.debug("job done", extra={"outcome": outcome})


async def _run_queue(config: Config, app: procrastinate.App, stop: asyncio.Event) -> None:
    """Run Procrastinate's worker until cancelled; it ends when the database goes, and begins again.

    Cancelled while the database is away, it ends with that trouble in place of the cancellation: so `stop` must be set before.
    """
    while not stop.is_set():
        try:
            try:
                await app.open_async()
                await app.run_worker_async(
                    queues=list(QUEUES),
                    name="galaxy",
                    concurrency=config.runtime_worker_pool_size,
                    install_signal_handlers=False,
                    fetch_job_polling_interval=_POLL_SECONDS,
                    shutdown_graceful_timeout=config.shutdown_timeout,
                    stalled_worker_timeout=maintenance.WORKER_TIMEOUT,
                    worker_middleware=[in_context],
                )
            finally:
                # Also when it was the opening that was cut short: its pool would keep the process alive.
                await app.close_async()
            log.warning("the job queue's worker has ended by itself")
        except (procrastinate.exceptions.ProcrastinateException, psycopg.Error, PoolTimeout, OSError) as error:
            log.warning("the job queue cannot be worked on", extra={"error": type(error).__name__})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def end_at_once(reason: str) -> None:
        log.warning(f"stopped at once {reason}")
        logging.shutdown()
        sys.stdout.flush()
        signal.raise_signal(signal.SIGKILL)

    def on_signal() -> None:
        if stop.is_set():
            end_at_once("by a second signal")
        stop.set()
        # Should anything resist being cancelled; whoever supervises us does not wait longer either.
        loop.call_later(config.shutdown_timeout + 1, end_at_once, "because it takes too long")

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)

    door = Door(config)
    await door.open()
    delivery = MailDelivery(config, door)
    tasks: list[asyncio.Task[None]] = [
        asyncio.create_task(_run_queue(config, job_app(config, delivery), stop), name="queue"),
        *(
            asyncio.create_task(every(interval, name, sweep), name=name)
            for interval, name, sweep in (
                (config.mail_worker_interval, "mail", delivery.run),
                (10.0, "jobs", lambda: maintenance.rescue_jobs(door)),
                (60.0, "purge", lambda: maintenance.purge(door)),
                (60.0, "invariants", lambda: maintenance.check_invariants(door)),
            )
        ),
    ]
    log.info("working", extra={"queues": list(QUEUES)})
    stopping: asyncio.Task[bool] = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    # A mail that has been started is finished and reported before anything is cancelled.
    delivery.stop()
    log.info("stopping")
    until = loop.time() + config.shutdown_timeout
    idle = asyncio.create_task(delivery.idle())
    await asyncio.wait([idle], timeout=config.shutdown_timeout)
    unfinished = set(tasks)
    while unfinished:
        for task in unfinished:
            task.cancel()
        # Again after a while: a cancellation can get lost in the pools, which catch it as they catch trouble.
        left = until - loop.time()
        _, unfinished = await asyncio.wait(unfinished, timeout=max(0.0, min(1.0, left)))
        if left <= 0:
            break
    if unfinished or not idle.done():
        log.warning("stopped with work unfinished; its leases give it back")
    await door.close()
    for task in tasks:
        # Only what nobody foresaw ends a loop.
        if task in done:
            task.result()
    log.info("stopped")


def main(config: Config) -> int:
    """Run the job program until it is told to stop; 78 when it must not be started as it is, 1 when Postgres cannot be asked."""
    logs.configure(config.service_name, config.logging_level)
    try:
        with psycopg.connect(conninfo(config, "galaxy-worker"), autocommit=True) as connection:
            check_login(connection, DOOR, config.development)
            check_deployed(deployed_changes(connection, "worker"))
    except Refused as error:
        log.error("refusing to start", extra={"reason": str(error)})
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
    except psycopg.Error as error:
        log.error("Postgres cannot be asked", extra={"error": type(error).__name__, "sqlstate": error.sqlstate})
        return 1
    for warning in configuration.warnings(config):
        log.warning(warning)
    telemetry.configure(config, "worker")
    asyncio.run(_serve(config))
    return 0
