"""Around every request: its id and trace, the headers of every answer, one line in the log, the metrics."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import falcon
from opentelemetry.trace import SpanKind

from app import context, logs, metrics, telemetry, turns
from app.background import Countries
from app.contract import Operation

log = logging.getLogger("galaxy.api")


class Requests:
    """Falcon middleware. Sets `request_id` and `traceparent` on the request's context."""

    def __init__(self, operations: Mapping[tuple[str, str], Operation], countries: Countries) -> None:
        """`operations` by method and route; `countries` counts where people's requests come from."""
        self._operations = operations
        self._countries = countries

    def process_request(self, req: falcon.Request, _resp: falcon.Response) -> None:
        state = req.context
        state.started = time.monotonic()
        state.request_id = context.request_id(req.env.get("HTTP_X_REQUEST_ID"))
        state.span = telemetry.begin(f"HTTP {req.method}", req.env.get("HTTP_TRACEPARENT"), SpanKind.SERVER)
        state.span.set_attribute("request_id", state.request_id)
        state.traceparent = state.span.traceparent
        state.bound = logs.push(request_id=state.request_id, **state.span.log_fields)
        if req.path.startswith("//"):
            # Falcon's router would look past the slashes.
            raise falcon.HTTPRouteNotFound

    def process_resource(self, req: falcon.Request, _resp: falcon.Response, _resource: Any, _params: Any) -> None:
        operation = self._operations.get((req.method, req.uri_template or ""))
        if operation is None or not operation.is_hot:
            turns.leave()

    def process_response(self, req: falcon.Request, resp: falcon.Response, _resource: Any, _succeeded: bool) -> None:
        resp.set_header("X-Request-ID", req.context.request_id)
        duration = time.monotonic() - req.context.started
        template = req.uri_template or ""
        operation = self._operations.get((req.method, template))
        group = operation.group if operation else "none"
        if group == "user" and resp.status_code < 400:
            self._countries.note(
                req.get_header("X-User-ID", default=""), req.env.get("REMOTE_ADDR", ""), req.get_header("X-Forwarded-For")
            )
        labels: dict[str, str | int] = {
            "group": group,
            "method": req.method if req.method in falcon.HTTP_METHODS else "other",
            "path": operation.path if operation else template,
            "status": resp.status_code,
        }
        metrics.http_requests_total.add(1, labels)
        metrics.http_request_duration_seconds.record(duration, labels)
        # What the gateway asks on every client request, and what a probe asks, is a line only when it goes wrong.
        is_quiet = operation is not None and (operation.is_hot or group == "probe") and resp.status_code < 400
        level = logging.DEBUG if is_quiet else logging.INFO
        if log.isEnabledFor(level):
            log.log(
                level,
                "request",
                extra={
                    **labels,
                    "operation": operation.name if operation else None,
                    "duration_ms": round(duration * 1000, 3),
                    "code": getattr(req.context, "code", None),
                },
            )
        logs.pop(req.context.bound)
        span = req.context.span
        span.rename(f"{labels['method']} {labels['path']}")
        span.set_attribute("http.route", labels["path"])
        span.set_attribute("http.response.status_code", resp.status_code)
        if resp.status_code >= 500:
            span.fail(str(getattr(req.context, "code", None)))
        span.end()
