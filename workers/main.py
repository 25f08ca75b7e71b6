"""The job program: Procrastinate's worker and the sweeps beside it."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

import psycopg

from app import config as configuration
from app import logs, scrape, telemetry
from app.config import Config
from app.schema import EX_CONFIG, Refused, check_deployed, check_login, deployed_changes, tell_unreachable
from workers import lobby, maintenance
from workers.database import Database, Watch
from workers.door import Door, conninfo
from workers.listener import Listener
from workers.loops import every
from workers.queue import ENGINE_QUEUES, QUICK_AT_ONCE, QUICK_QUEUES, TRANSLATOR_QUEUES, job_app, run_queue
from workers.runtime.docker_driver import DockerDriver
from workers.runtime.driver import Driver
from workers.runtime.engine_client import EngineClient
from workers.runtime.process_driver import ProcessDriver
from workers.runtime.swarm_driver import SwarmDriver
from workers.runtime.traced_driver import TracedDriver
from workers.tasks import diplomail as diplomail_tasks
from workers.tasks.diplomail import DiplomailDelivery
from workers.tasks.mail import MailDelivery
from workers.tasks.notifications import NotificationDelivery
from workers.tasks.runtime import RuntimeTasks
from workers.waker import BACKSTOP, CHANNEL, Waker

log = logging.getLogger("galaxy.worker")

DOOR = "backend_worker"

# A turn is late by this much at most.
_TURN_SWEEP_SECONDS = 1.0

QUEUES = (*QUICK_QUEUES, *ENGINE_QUEUES, *TRANSLATOR_QUEUES)

# How old a figure of the database may be when it is told; no shorter than what asks for it costs nothing.
_METRICS_SECONDS = 5.0


def driver_of(config: Config) -> Driver:
    """Return the runtime driver that the configuration names."""
    if config.runtime_driver == "process":
        return ProcessDriver(config.game_state_root, stack=config.stack_label, stop_grace=config.runtime_stop_grace_period)
    if config.runtime_driver == "docker":
        return DockerDriver(config)
    return SwarmDriver(config)


async def _serve(config: Config, driver: Driver) -> None:
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
    notifications = NotificationDelivery(config, door)
    client = EngineClient(config.engine_call_timeout, config.engine_probe_timeout)
    runtime = RuntimeTasks(config, door, TracedDriver(driver), client)
    wake_connection = Database(
        conninfo(config, "galaxy-worker-waker"),
        timeout=config.postgres_operation_timeout,
        lifetime=config.postgres_conn_max_lifetime,
    )
    waker = Watch("waker", Waker(wake_connection).look, BACKSTOP, lambda: None)
    listener = Listener(
        conninfo(config, "galaxy-worker-listener"), "BACKEND_POSTGRES_DSN_WORKER", wake_connection, {CHANNEL: waker.wake}
    )
    diplomail = DiplomailDelivery(config, door)
    tasks: list[asyncio.Task[None]] = [
        asyncio.create_task(waker.run(), name="waker"),
        asyncio.create_task(listener.run(), name="listener"),
        *(
            # Each with an application of its own: who is to end must be told so directly, again if need be.
            asyncio.create_task(
                run_queue(config, job_app(config, delivery, notifications, runtime, diplomail), queues, at_once, stop),
                name="-".join(queues),
            )
            for queues, at_once in (
                (QUICK_QUEUES, QUICK_AT_ONCE),
                (ENGINE_QUEUES, config.runtime_worker_pool_size),
                (TRANSLATOR_QUEUES, diplomail_tasks.AT_ONCE),
            )
        ),
        # What is there may have nothing to do with what was left.
        asyncio.create_task(
            every(config.runtime_reconcile_interval, "reconcile", runtime.reconcile, is_due=True), name="reconcile"
        ),
        *(
            asyncio.create_task(every(interval, name, sweep), name=name)
            for interval, name, sweep in (
                (config.mail_worker_interval, "mail", delivery.run),
                (config.notification_worker_interval, "notifications", notifications.run),
                (config.diplomail_worker_interval, "diplomail", diplomail.run),
                (_TURN_SWEEP_SECONDS, "runtime", runtime.sweep),
                (config.lobby_sweeper_interval, "lobby", lambda: lobby.sweep(door)),
                (5.0, "jobs", lambda: maintenance.rescue_jobs(door)),
                (60.0, "purge", lambda: maintenance.purge(door)),
                (60.0, "entitlements", lambda: maintenance.settle_entitlements(door)),
            )
        ),
        *(
            # Whoever starts it wants to know how things are.
            asyncio.create_task(every(interval, name, sweep, is_due=True), name=name)
            for interval, name, sweep in (
                (60.0, "invariants", lambda: maintenance.check_invariants(door)),
                (
                    _METRICS_SECONDS,
                    "metrics",
                    lambda: maintenance.tell_metrics(door, (*QUICK_QUEUES, *ENGINE_QUEUES, *TRANSLATOR_QUEUES)),
                ),
            )
        ),
    ]
    log.info("working")
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
    await wake_connection.close()
    await client.close()
    await diplomail.close()
    await driver.close()
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
        driver = driver_of(config)
        with psycopg.connect(conninfo(config, "galaxy-worker"), autocommit=True) as connection:
            check_login(connection, DOOR, config.development)
            check_deployed(deployed_changes(connection, "worker"))
    except Refused as error:
        log.error("refusing to start", extra={"reason": str(error)})
        sys.stderr.write(f"{error}\n")
        return EX_CONFIG
    except psycopg.Error as error:
        tell_unreachable(log, error)
        return 1
    for warning in configuration.warnings(config):
        log.warning(warning)
    try:
        telemetry.configure(config, "worker")
    except scrape.ListenError as error:
        log.error("refusing to start", extra={"reason": str(error)})
        sys.stderr.write(f"{error}\n")
        return 1
    asyncio.run(_serve(config, driver))
    telemetry.shutdown()
    return 0
