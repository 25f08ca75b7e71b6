"""The job queue: every task, and Procrastinate's workers, which come back when the database does."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import procrastinate
import psycopg
from opentelemetry.trace import SpanKind
from procrastinate.job_context import JobContext
from psycopg_pool import PoolTimeout

from app import logs, metrics, telemetry
from app.config import Config
from workers import maintenance
from workers.door import RECONNECT, conninfo
from workers.tasks.diplomail import DiplomailDelivery
from workers.tasks.mail import MailDelivery
from workers.tasks.notifications import NotificationDelivery
from workers.tasks.runtime import RuntimeTasks

log = logging.getLogger("galaxy.worker")

# A job that waits while nobody is woken for it is found this soon.
_POLL_SECONDS = 5.0

# Engines may take minutes, and must not keep a mail waiting: their queue has workers of its own.
QUICK_QUEUES = ("mail", "notifications")
QUICK_AT_ONCE = 4
ENGINE_QUEUES = ("runtime",)

# So must a slow translator not.
TRANSLATOR_QUEUES = ("diplomail",)


def job_app(
    config: Config,
    delivery: MailDelivery,
    notifications: NotificationDelivery,
    runtime: RuntimeTasks,
    diplomail: DiplomailDelivery,
) -> procrastinate.App:
    """Return the Procrastinate application with every task. `context` is whom a job was deferred for; see `in_context`."""
    connector = procrastinate.PsycopgConnector(
        conninfo=conninfo(config, "galaxy-worker-queue", search_path="procrastinate"),
        min_size=1,
        # Of the half that is not the door's, each of the three workers has a third.
        max_size=max(4, config.postgres_max_conns // 6),
        max_lifetime=config.postgres_conn_max_lifetime,
        timeout=config.postgres_operation_timeout,
        reconnect_timeout=RECONNECT,
    )
    app = procrastinate.App(connector=connector)

    @app.task(name="mail_deliver", queue="mail")
    async def mail_deliver(context: dict[str, str]) -> None:
        await delivery.run()

    @app.task(name="notification_deliver", queue="notifications")
    async def notification_deliver(context: dict[str, str]) -> None:
        await notifications.run()

    @app.task(name="runtime_start", queue="runtime")
    async def runtime_start(game_id: str, context: dict[str, str]) -> None:
        await runtime.start(game_id)

    @app.task(name="turn_run", queue="runtime")
    async def turn_run(game_id: str, context: dict[str, str]) -> None:
        await runtime.turn(game_id)

    @app.task(name="runtime_banish", queue="runtime")
    async def runtime_banish(game_id: str, context: dict[str, str]) -> None:
        await runtime.banish(game_id)

    @app.task(name="runtime_remove", queue="runtime")
    async def runtime_remove(game_id: str, context: dict[str, str]) -> None:
        await runtime.remove(game_id)

    @app.task(name="runtime_check", queue="runtime")
    async def runtime_check(game_id: str, context: dict[str, str]) -> None:
        await runtime.check(game_id)

    @app.task(name="runtime_logs", queue="runtime")
    async def runtime_logs(game_id: str, context: dict[str, str]) -> None:
        await runtime.logs(game_id)

    @app.task(name="diplomail_deliver", queue="diplomail")
    async def diplomail_deliver(context: dict[str, str]) -> None:
        await diplomail.run()

    return app


async def in_context(call_next: Callable[[], Awaitable[Any]], context: JobContext, _worker: Any) -> Any:
    """Run a job under the request id and the trace of whoever deferred it, and count it."""
    given = context.job.task_kwargs.get("context")
    origin: dict[str, Any] = given if isinstance(given, dict) else {}
    task = context.job.task_name
    outcome = "failed"
    with (
        # What no request has asked for, a turn by its schedule, goes on under an id of the job's own.
        logs.bind(request_id=origin.get("request_id") or f"job-{context.job.id:08}", job_id=context.job.id, task=task),
        telemetry.span(f"job {task}", origin.get("traceparent"), SpanKind.CONSUMER),
    ):
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


async def run_queue(config: Config, app: procrastinate.App, queues: tuple[str, ...], at_once: int, stop: asyncio.Event) -> None:
    """Run Procrastinate's worker, over an application of its own, until cancelled; it ends with the database, and begins again.

    Cancelled while the database is away, it ends with that trouble in place of the cancellation: so `stop` must be set before.
    """
    while not stop.is_set():
        try:
            try:
                await app.open_async()
                await app.run_worker_async(
                    queues=list(queues),
                    name="-".join(queues),
                    concurrency=at_once,
                    install_signal_handlers=False,
                    fetch_job_polling_interval=_POLL_SECONDS,
                    shutdown_graceful_timeout=config.shutdown_timeout,
                    update_heartbeat_interval=maintenance.HEARTBEAT,
                    stalled_worker_timeout=maintenance.WORKER_TIMEOUT,
                    worker_middleware=[in_context],
                )
            finally:
                # Also when it was the opening that was cut short: its pool would keep the process alive.
                await app.close_async()
            log.warning("a worker of the job queue has ended by itself", extra={"queues": list(queues)})
        except (procrastinate.exceptions.ProcrastinateException, psycopg.Error, PoolTimeout, OSError) as error:
            log.warning("the job queue cannot be worked on", extra={"queues": list(queues), "error": type(error).__name__})
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 1)
