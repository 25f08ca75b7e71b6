"""A stand-in for an OpenTelemetry collector: a real server, over HTTP or gRPC, that keeps the spans it is sent."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass(frozen=True)
class Span:
    """A span as it arrived; `program` is the component that sent it."""

    program: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, str]
    is_error: bool


class Collector:
    """Use it as a context manager; `endpoint` is what BACKEND_OTEL_ENDPOINT takes."""

    def __init__(self, protocol: str) -> None:
        self.protocol = protocol
        self.requests: list[Any] = []
        self.metrics: set[str] = set()

    def __enter__(self) -> Collector:
        if self.protocol == "grpc":
            self._grpc = grpc.server(ThreadPoolExecutor(4))
            trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._grpc)  # type: ignore[no-untyped-call]
            metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._grpc)  # type: ignore[no-untyped-call]
            port = self._grpc.add_insecure_port("127.0.0.1:0")
            self._grpc.start()
        else:
            self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
            threading.Thread(target=self._http.serve_forever, daemon=True).start()
            port = self._http.server_port
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        if self.protocol == "grpc":
            self._grpc.stop(None).wait()
        else:
            self._http.shutdown()
            self._http.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """What a program is told, to send its spans here."""
        return {
            "BACKEND_OTEL_TRACES_EXPORTER": "otlp",
            "BACKEND_OTEL_PROTOCOL": self.protocol,
            "BACKEND_OTEL_ENDPOINT": self.endpoint,
            # OpenTelemetry's own variable: how long spans are gathered before they are sent.
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    def take_spans(self, request: Any) -> None:
        self.requests.append(request)

    def take_metrics(self, request: Any) -> None:
        self.metrics |= {m.name for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics}

    def spans(self) -> list[Span]:
        """Every span that has come so far."""
        return [span for request in list(self.requests) for span in _read(request)]

    def trace(self, trace_id: str) -> list[Span]:
        """Those of one trace."""
        return [span for span in self.spans() if span.trace_id == trace_id]


def _read(request: Any) -> Iterator[Span]:
    for resource in request.resource_spans:
        program = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.component")
        for scope in resource.scope_spans:
            for span in scope.spans:
                attributes = {a.key: a.value.string_value or str(a.value.int_value) for a in span.attributes}
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield Span(program, span.name, *ids, attributes, span.status.code == 2)


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self._collector.take_spans(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self._collector.take_metrics(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _handler(collector: Collector) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                collector.take_spans(cast(Any, trace_service_pb2.ExportTraceServiceRequest).FromString(body))
            else:
                assert self.path == "/v1/metrics", self.path
                collector.take_metrics(cast(Any, metrics_service_pb2.ExportMetricsServiceRequest).FromString(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return

    return Handler
