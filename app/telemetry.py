"""Traces and metrics: where they go, and the trace context that a request, a job and an event carry on.

Without an exporter nothing is recorded, but every request still has a trace id, which its logs, jobs and events share.
No attribute of a span is anybody's: names of functions, templates of paths, outcomes, and the id of the request.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import REGISTRY

from app import logs, scrape
from app.config import FLUSH_SECONDS, Config

_tracer = trace.get_tracer("galaxy")
_is_recording = False
_shutdowns: list[Callable[[], None]] = []
_traceparent: contextvars.ContextVar[str | None] = contextvars.ContextVar("traceparent", default=None)


class _RequestId(SpanProcessor):
    """Gives every span the id of the request that it serves, as log lines have it."""

    def on_start(self, span: SdkSpan, parent_context: context.Context | None = None) -> None:
        request_id = logs.bound().get("request_id")
        if request_id:
            span.set_attribute("request_id", str(request_id))


def configure(config: Config, program: str, scrape_directory: Path | None = None) -> None:
    """Install the exporters that the configuration names. Call it after a fork: they have threads.

    With `prometheus`, a program of one process answers at the configured address; a process of many answers in
    `scrape_directory`, and `app.scrape` sums up. Raises scrape.ListenError.
    """
    global _is_recording
    resource = Resource.create({"service.name": config.service_name, "service.component": program})
    if config.otel_traces_exporter != "none":
        tracers = TracerProvider(resource=resource, shutdown_on_exit=False)
        tracers.add_span_processor(_RequestId())
        tracers.add_span_processor(BatchSpanProcessor(_span_exporter(config)))
        trace.set_tracer_provider(tracers)
        _shutdowns.append(tracers.shutdown)
        _is_recording = True
    reader = _metric_reader(config)
    if reader is not None:
        meters = MeterProvider(metric_readers=[reader], resource=resource, shutdown_on_exit=False)
        metrics.set_meter_provider(meters)
        _shutdowns.append(meters.shutdown)
    if config.otel_metrics_exporter == "prometheus":
        if scrape_directory is not None:
            scrape.serve_own(scrape_directory)
        else:
            scrape.serve(scrape.listen(config.otel_prometheus_listen_addr), REGISTRY)


def shutdown() -> None:
    """Send what is left, for FLUSH_SECONDS at most: nobody has to be there to take it."""
    until = time.monotonic() + FLUSH_SECONDS
    # What is not done in time ends with the process.
    threads = [threading.Thread(target=end, name="telemetry", daemon=True) for end in _shutdowns]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))


def _span_exporter(config: Config) -> SpanExporter:
    if config.otel_traces_exporter == "stdout":
        return ConsoleSpanExporter(formatter=lambda span: f"{span.to_json(indent=None)}\n")
    if config.otel_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoint=config.otel_endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http(endpoint=f"{config.otel_endpoint}/v1/traces" if config.otel_endpoint else None)


def _metric_reader(config: Config) -> MetricReader | None:
    match config.otel_metrics_exporter:
        case "stdout":
            return PeriodicExportingMetricReader(ConsoleMetricExporter(formatter=lambda data: f"{data.to_json(indent=None)}\n"))
        case "otlp":
            return PeriodicExportingMetricReader(_otlp_metric_exporter(config))
        case "prometheus":
            return PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False)
    return None


def _otlp_metric_exporter(config: Config) -> MetricExporter:
    if config.otel_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc

        return Grpc(endpoint=config.otel_endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as Http

    return Http(endpoint=f"{config.otel_endpoint}/v1/metrics" if config.otel_endpoint else None)


_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class Span:
    """A span from `begin` to `end`; where nothing is recorded, only the ids that logs, jobs and events share."""

    def __init__(self, name: str, traceparent: str | None, kind: SpanKind) -> None:
        given = traceparent if traceparent is not None and _TRACEPARENT.fullmatch(traceparent) else None
        self.log_fields: dict[str, object] = {}
        """What lines inside it need; nothing where OpenTelemetry's own context has it."""
        if not _is_recording:
            # Most requests of an installation without exporters come this way: no more than making up two ids.
            ids = os.urandom(24).hex() if given is None else ""
            self.traceparent = given or f"00-{ids[:32]}-{ids[32:]}-00"
            self._reset = _traceparent.set(self.traceparent)
            self.log_fields = {"otel_trace_id": self.traceparent[3:35], "otel_span_id": self.traceparent[36:52]}
            return
        parent = propagate.extract({"traceparent": given} if given else {})
        self._span = _tracer.start_span(name, context=parent, kind=kind)
        self._token = context.attach(trace.set_span_in_context(self._span))
        current = self._span.get_span_context()
        self.traceparent = f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"
        self._reset = _traceparent.set(self.traceparent)

    def set_attribute(self, name: str, value: str | int) -> None:
        """Note something with the span, if it is recorded."""
        if not self.log_fields:
            self._span.set_attribute(name, value)

    def rename(self, name: str) -> None:
        """Give it the name that is known only now."""
        if not self.log_fields:
            self._span.update_name(name)

    def fail(self, what: str) -> None:
        """Mark it as gone wrong; `what` is a kind of trouble, never its text, which may hold anything."""
        if not self.log_fields:
            self._span.set_status(Status(StatusCode.ERROR, what))

    def end(self) -> None:
        """End it, in the thread or task that began it."""
        _traceparent.reset(self._reset)
        if not self.log_fields:
            context.detach(self._token)
            self._span.end()


def begin(name: str, traceparent: str | None, kind: SpanKind = SpanKind.INTERNAL) -> Span:
    """Begin a span under the W3C context given, or a new trace where none is or it is malformed."""
    return Span(name, traceparent, kind)


@contextlib.contextmanager
def span(name: str, traceparent: str | None, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[Span]:
    """Run a block, and its log lines, in a span."""
    begun = begin(name, traceparent, kind)
    try:
        with logs.bind(**begun.log_fields):
            yield begun
    except BaseException as error:
        begun.fail(type(error).__name__)
        raise
    finally:
        begun.end()


class _Nothing:
    """In place of a child where nothing is recorded: costs nothing."""

    def __enter__(self) -> _Nothing:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def set_attribute(self, name: str, value: str | int) -> None:
        return


class _Child:
    """A span inside the current one, for as long as a block runs."""

    def __init__(self, name: str, kind: SpanKind) -> None:
        self._name = name
        self._kind = kind

    def __enter__(self) -> _Child:
        self._begun = begin(self._name, _traceparent.get(), self._kind)
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if kind is not None:
            self._begun.fail(kind.__name__)
        self._begun.end()

    def set_attribute(self, name: str, value: str | int) -> None:
        self._begun.set_attribute(name, value)


_NOTHING = _Nothing()


def child(name: str, kind: SpanKind = SpanKind.CLIENT) -> _Child | _Nothing:
    """Return a context manager: a span of what somebody else is asked to do, inside the current span; nothing outside of any."""
    return _Child(name, kind) if _is_recording and _traceparent.get() is not None else _NOTHING


def event(name: str, traceparent: str, began: float, **attributes: str) -> None:
    """Record something that has just been done, since `began` (Unix seconds), under the context given."""
    if _is_recording and _TRACEPARENT.fullmatch(traceparent):
        parent = propagate.extract({"traceparent": traceparent})
        done = _tracer.start_span(
            name, context=parent, kind=SpanKind.PRODUCER, attributes=attributes, start_time=round(began * 1e9)
        )
        done.end()


def current() -> str | None:
    """Return the W3C context to go on with: that of the innermost span; None outside of any."""
    return _traceparent.get()


def headers() -> dict[str, str]:
    """Return what tells an HTTP server of the trace."""
    traceparent = _traceparent.get()
    return {} if traceparent is None else {"traceparent": traceparent}
