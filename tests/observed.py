"""The three programs over one database, watched from outside: their metrics by Prometheus, their spans by a collector."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from dev.cluster import Cluster, free_port
from dev.mail_catcher import MailCatcher
from tests.integration.test_games_story import Platform
from tests.otlp_collector import Collector
from tests.push import raw_call
from tests.services import Api, Program, StartProgram, session_database, until

PROGRAMS = ("api", "worker", "push")


class Observed(Platform):
    """A platform whose api, worker and push are watched; `programs` by name."""

    collector: Collector
    programs: dict[str, Program]
    scrape_ports: dict[str, int]

    def samples(self) -> list[tuple[str, Sample]]:
        """Every sample of ours that the programs tell Prometheus now, with the program's name."""
        found: list[tuple[str, Sample]] = []
        for name, port in self.scrape_ports.items():
            text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
            families = text_string_to_metric_families(text)
            found += [(name, s) for f in families for s in f.samples if not s.name.startswith(("python_", "process_"))]
        return found

    def value(self, metric: str, **labels: str) -> float:
        """The sum over a metric's samples; of a histogram, how much it has seen."""
        names = (metric, f"{metric}_count")
        return sum(s.value for _, s in self.samples() if s.name in names and labels.items() <= s.labels.items())

    @contextlib.contextmanager
    def subscribed(self, client_id: str) -> Iterator[Iterator[Any]]:
        """The events of a gateway that subscribes, from now on; after a minute it gives up."""
        with raw_call(self.push_target, client_id, token=self.api.internal["Authorization"]) as call:
            call.initial_metadata()
            yield call
            call.cancel()

    @property
    def push_target(self) -> str:
        return f"127.0.0.1:{self.programs['push'].logged('listening')[0]['port']}"


@contextlib.contextmanager
def observed(cluster: Cluster, template: str, starter: StartProgram, games: Path, protocol: str = "grpc") -> Iterator[Observed]:
    """Start the programs; everything that is done now and then is done often."""
    ports = {name: free_port() for name in PROGRAMS}
    with (
        session_database(cluster, template, "observed") as database,
        MailCatcher() as mail,
        Collector(protocol) as collector,
    ):
        token = starter.environment(database)["BACKEND_INTERNAL_TOKEN"]
        common = {
            **collector.environment,
            "BACKEND_OTEL_METRICS_EXPORTER": "prometheus",
            "BACKEND_INTERNAL_TOKEN": token,
            "BACKEND_GAME_STATE_ROOT": str(games),
            "BACKEND_SMTP_PORT": str(mail.smtp_port),
            "BACKEND_NOTIFICATION_ADMIN_EMAIL": "operators@example.org",
            "BACKEND_MAIL_WORKER_INTERVAL": "500ms",
            "BACKEND_RUNTIME_RECONCILE_INTERVAL": "500ms",
        }

        def start(name: str, port: int, **more: str) -> Program:
            address = f"127.0.0.1:{port}"
            return starter(name, database, **common, BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR=address, **more)

        programs = {name: start(name, port) for name, port in ports.items()}
        api = programs["api"]
        assert isinstance(api, Api)
        until(lambda: programs["worker"].logged("working") and programs["push"].logged("serving"), 60)

        def start_worker(**more: str) -> Program:
            return start("worker", free_port(), **more)

        world = Observed(api.wait_ready(), database, mail, games, start_worker)
        world.collector, world.programs, world.scrape_ports = collector, programs, ports
        try:
            yield world
        finally:
            for program in programs.values():
                program.close()
            for record in games.glob("*/process.json"):
                with contextlib.suppress(ProcessLookupError, KeyError, TypeError):
                    os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)
