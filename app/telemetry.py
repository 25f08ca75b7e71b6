"""Traces and metrics: where they go, and the trace context that a request, a job and an event carry on.

Without an exporter nothing is recorded, but every request still has a trace id, which its logs, jobs and events share.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

from opentelemetry import metrics, propagate, trace
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricExporter, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags
from prometheus_client import start_http_server

from app import scrape
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
        return ConsoleSpanExporter()
    if config.otel_protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc(endpoint=config.otel_endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http(endpoint=f"{config.otel_endpoint}/v1/traces" if config.otel_endpoint else None)


def _metric_reader(config: Config) -> MetricReader | None:
    match config.otel_metrics_exporter:
        case "stdout":
            return PeriodicExportingMetricReader(ConsoleMetricExporter())
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


@contextlib.contextmanager
def span(name: str, traceparent: str | None, kind: SpanKind = SpanKind.INTERNAL) -> Iterator[str]:
    """Run a block in a span under the W3C context given, or in a new trace; yield the context to hand on."""
    parent = propagate.extract({"traceparent": traceparent} if traceparent else {})
    if _is_recording:
        with _tracer.start_as_current_span(name, context=parent, kind=kind):
            yield _current()
        return
    current = trace.get_current_span(parent)
    if not current.get_span_context().is_valid:
        current = NonRecordingSpan(
            SpanContext(
                int.from_bytes(secrets.token_bytes(16)) or 1,
                int.from_bytes(secrets.token_bytes(8)) or 1,
                is_remote=False,
                trace_flags=TraceFlags(0),
            )
        )
    with trace.use_span(current):
        yield _current()


def _current() -> str:
    context = trace.get_current_span().get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
