"""The one place where metrics are declared: instruments of OpenTelemetry's API, and what each is for.

They cost next to nothing until a program gives them somewhere to go (`app.telemetry`). Labels are of small, closed sets:
`path` is a route's template, never what was asked for; nobody's id is one. `python -m app.metrics` writes docs/metrics.md.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation

_meter = metrics.get_meter("galaxy")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metric(NamedTuple):
    """What is declared of a metric; `programs` are those that have something to say of it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    programs: tuple[str, ...]
    description: str


REGISTRY: dict[str, Metric] = {}
"""Every metric by its name."""


def _declare(name: str, kind: str, labels: str, programs: str, description: str) -> None:
    REGISTRY[name] = Metric(name, kind, tuple(labels.split()), tuple(programs.split()), description)


def _counter(name: str, labels: str, programs: str, description: str) -> metrics.Counter:
    _declare(name, "counter", labels, programs, description)
    return _meter.create_counter(name, description=description)


def _up_down(name: str, labels: str, programs: str, description: str) -> metrics.UpDownCounter:
    _declare(name, "gauge", labels, programs, description)
    return _meter.create_up_down_counter(name, description=description)


def _histogram(name: str, labels: str, programs: str, description: str) -> metrics.Histogram:
    _declare(name, "histogram", labels, programs, description)
    return _meter.create_histogram(name, unit="s", description=description, explicit_bucket_boundaries_advisory=_SECONDS)


class Figures:
    """A metric that is read elsewhere now and then, and told as it was read last: nothing until then."""

    def __init__(self, name: str, kind: str, labels: str, programs: str, description: str) -> None:
        self._last: tuple[Observation, ...] = ()
        _declare(name, kind, labels, programs, description)
        create = _meter.create_observable_gauge if kind == "gauge" else _meter.create_observable_counter
        create(name, callbacks=[self._observe], description=description)

    def tell(self, figures: Iterable[tuple[Mapping[str, str], float]]) -> None:
        """Replace all of it: labels and value of each."""
        self._last = tuple(Observation(value, dict(labels)) for labels, value in figures)

    def _observe(self, _options: CallbackOptions) -> Iterable[Observation]:
        return self._last


_pools: list[Callable[[], int]] = []


def watch_pool(in_use: Callable[[], int]) -> None:
    """Have a pool tell how many of its connections are in use, whenever somebody wants to know."""
    _pools.append(in_use)


def _connections_in_use(_options: CallbackOptions) -> Iterable[Observation]:
    return [Observation(sum(in_use() for in_use in _pools))] if _pools else []


http_requests_total = _counter("http_requests_total", "group method path status", "api", "Answered requests.")
http_request_duration_seconds = _histogram(
    "http_request_duration_seconds",
    "group method path status",
    "api",
    "From the request's first byte in the app to its last out.",
)
grpc_push_subscribers = _up_down("grpc_push_subscribers", "", "push", "Open push streams.")
grpc_push_events_total = _counter("grpc_push_events_total", "kind", "push", "Events sent to subscribers.")
grpc_push_dropped_total = _counter(
    "grpc_push_dropped_total",
    "gateway_client_id",
    "push",
    "Events that left the window before a subscriber read them.",
)
push_commit_to_send_seconds = _histogram(
    "push_commit_to_send_seconds", "", "push", "From an event's transaction to its first sending."
)
grpc_push_streams_ended_total = _counter(
    "grpc_push_streams_ended_total",
    "reason",
    "push",
    "Streams that ended: left, replaced, forgotten (by a restored database), restarted, no_database, shut_down.",
)
mail_outbox_depth = Figures(
    "mail_outbox_depth",
    "gauge",
    "state",
    "worker",
    "Mail that is pending, retrying or dead_lettered, counted to 100,000.",
)
mail_attempts_total = _counter(
    "mail_attempts_total", "outcome", "worker", "Attempts to send: sent, transient, permanent, outcome_unknown."
)
mail_dead_letters_total = _counter("mail_dead_letters_total", "", "worker", "Mails given up.")
notification_intents_total = Figures(
    "notification_intents_total",
    "counter",
    "kind outcome",
    "worker",
    "Intents to tell somebody something: accepted, repeated, malformed (of the kind `unknown` where the catalogue has none).",
)
notification_routes_total = Figures(
    "notification_routes_total", "counter", "channel", "worker", "Notifications that went on: to the push stream, to the outbox."
)
runtime_container_ops_total = _counter(
    "runtime_container_ops_total", "op outcome", "worker", "What was done to engines' containers, done or failed."
)
runtime_health_probes_total = _counter("runtime_health_probes_total", "outcome", "worker", "Probes of running engines.")
geo_lookups_total = _counter("geo_lookups_total", "outcome", "api", "Look-ups of an address's country: found, unknown, error.")
db_pool_acquires_total = _counter("db_pool_acquires_total", "", "api worker", "Connections taken for a call.")
db_pool_waits_total = _counter(
    "db_pool_waits_total", "", "api worker", "Calls for which no connection was idle, so that they had to wait for one."
)
_declare("db_pool_in_use", "gauge", "", "api worker", "Connections that a call has now.")
_meter.create_observable_gauge(
    "db_pool_in_use", callbacks=[_connections_in_use], description=REGISTRY["db_pool_in_use"].description
)
jobs_total = _counter("jobs_total", "task outcome", "worker", "Jobs run: succeeded, failed.")
jobs_queued = Figures("jobs_queued", "gauge", "queue", "worker", "Jobs that wait for a worker, counted to 100,000.")
invariant_violations = Figures(
    "invariant_violations", "gauge", "invariant", "worker", "What must not be, and is; the log names each."
)

READ_FROM_THE_DATABASE: dict[str, Figures] = {
    "mail_outbox_depth": mail_outbox_depth,
    "jobs_queued": jobs_queued,
    "notification_intents_total": notification_intents_total,
    "notification_routes_total": notification_routes_total,
}
"""What `worker.metrics_read()` tells of."""


def markdown() -> str:
    """docs/metrics.md."""
    rows = [
        f"| `{m.name}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {', '.join(m.programs)} | {m.description} |"
        for m in REGISTRY.values()
    ]
    return _PAGE + "\n".join(rows) + "\n"


_PAGE = """\
# Metrics

Written by `make config` from [app/metrics.py](../app/metrics.py). A histogram has `_bucket`, `_sum` and `_count`. Where to scrape
them: [operations.md](operations.md).

What the worker reads from the database (`mail_outbox_depth`, `jobs_queued`, `notification_…`, `invariant_violations`) is the same
from every worker: take `max` over them, not `sum`. The counters among them count from the deployment of the schema and survive
restarts.

| metric | kind | labels | told by | what |
| --- | --- | --- | --- | --- |
"""


if __name__ == "__main__":
    sys.stdout.write(markdown())
