"""Traces and metrics: where they go, and the trace context that a request, a job and an event carry on.

Without an exporter nothing is recorded, but every request still has a trace id, which its logs, jobs and events share.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import SpanKind
from prometheus_client import start_http_server

from app import logs, scrape
from app.config import Config

_tracer = trace.get_tracer("galaxy")
_is_recording = False


def configure(config: Config, program: str, scrape_directory: Path | None = None) -> None:
    """Install the exporters that the configuration names. Call it after a fork: they have threads.

    With `prometheus`, a program of one process answers at the configured address; a process of many answers in
    `scrape_directory`, and `app.scrape` sums up.
    """
    global _is_recording
    resource = Resource.create({"service.name": config.service_name, "service.component": program})
    if config.otel_traces_exporter != "none":
        tracers = TracerProvider(resource=resource)
        tracers.add_span_processor(BatchSpanProcessor(_span_exporter(config)))
        trace.set_tracer_provider(tracers)
        _is_recording = True
    reader = _metric_reader(config)
    if reader is not None:
        metrics.set_meter_provider(MeterProvider(metric_readers=[reader], resource=resource))
    if config.otel_metrics_exporter == "prometheus":
        if scrape_directory is not None:
            scrape.serve_own(scrape_directory)
        else:
            address = config.otel_prometheus_listen_addr
            start_http_server(address.port, addr=address.host or "0.0.0.0")  # noqa: S104 - as it is configured


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
            self.log_fields = {"otel_trace_id": self.traceparent[3:35], "otel_span_id": self.traceparent[36:52]}
            return
        parent = propagate.extract({"traceparent": given} if given else {})
        self._span = _tracer.start_span(name, context=parent, kind=kind)
        self._token = context.attach(trace.set_span_in_context(self._span))
        current = self._span.get_span_context()
        self.traceparent = f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"

    def set_attribute(self, name: str, value: str) -> None:
        """Note something with the span, if it is recorded."""
        if not self.log_fields:
            self._span.set_attribute(name, value)

    def end(self) -> None:
        """End it, in the thread or task that began it."""
        if not self.log_fields:
            context.detach(self._token)
            self._span.end()


def begin(name: str, traceparent: str | None, kind: SpanKind = SpanKind.INTERNAL) -> Span:
    """Begin a span under the W3C context given, or a new trace where none is or it is malformed."""
    return Span(name, traceparent, kind)


@contextlib.contextmanager
def span(name: str, traceparent: str | None) -> Iterator[Span]:
    """Run a block, and its log lines, in a span."""
    begun = begin(name, traceparent)
    try:
        with logs.bind(**begun.log_fields):
            yield begun
    finally:
        begun.end()
