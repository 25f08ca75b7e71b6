"""The WSGI application: routes from the contract, the error handlers, the middleware."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import falcon
import psycopg

from app.contract import Call, Operation
from app.errors import ApiError, from_database, internal
from app.middleware import Requests
from app.operations import Responder, Services

log = logging.getLogger("galaxy.api")


Handler = Callable[[Operation], Callable[..., None]]
"""What `x-handler` names: makes the responder of an operation that no function serves by itself."""


class _Resource:
    """A path: responders are set on it by method."""

    on_head: Callable[..., None]


def create_app(
    operations: Iterable[Operation],
    calls: Mapping[str, Call],
    services: Services,
    handlers: Mapping[str, Handler],
    allowed_origins: tuple[str, ...] = (),
) -> falcon.App[falcon.Request, falcon.Response]:
    """Make the application: a route for each operation, served by its function or by its hand-written handler."""
    found = list(operations)
    middleware: list[Any] = [Requests({(o.method, o.route): o for o in found}, services.countries)]
    if allowed_origins:
        middleware.append(
            falcon.CORSMiddleware(allow_origins=allowed_origins, expose_headers=["ETag", "Location", "X-Request-ID"])
        )
    app = falcon.App(middleware=middleware)
    app.req_options.strip_url_path_trailing_slash = False

    def from_postgres(req: falcon.Request, resp: falcon.Response, error: psycopg.Error, params: Any) -> None:
        _refused(req, resp, from_database(error, services.constraints), params)

    app.add_error_handler(Exception, _unforeseen)

    def from_falcon(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, params: Any) -> None:
        if req.method not in falcon.HTTP_METHODS:
            # Falcon calls it a bad request; for HTTP it is a method like any other that the path does not know.
            route = app._router.find(req.path, req=req)
            allowed = (
                sorted(m for m, r in route[1].items() if getattr(r, "__name__", "") in ("respond", "on_options")) if route else []
            )
            error = falcon.HTTPMethodNotAllowed(allowed) if route else falcon.HTTPNotFound()
        _from_falcon(req, resp, error, params)

    app.add_error_handler(falcon.HTTPError, from_falcon)
    app.add_error_handler(psycopg.Error, from_postgres)
    app.add_error_handler(ApiError, _refused)
    resources: dict[str, _Resource] = {}
    for operation in found:
        if operation.handler:
            responder = handlers[operation.handler](operation)
        else:
            responder = Responder(operation, calls[operation.name], services)
        resource = resources.setdefault(operation.route, _Resource())
        setattr(resource, f"on_{operation.method.lower()}", _method(responder))
        if operation.method == "GET":
            # Falcon leaves the body out.
            resource.on_head = _method(responder)
    for path, found_resource in resources.items():
        app.add_route(path, found_resource)
    return app


def _method(responder: Callable[..., None]) -> Callable[..., None]:
    # Falcon inspects what it routes to and wants a function.
    def respond(req: falcon.Request, resp: falcon.Response, **path: str) -> None:
        responder(req, resp, **path)

    return respond


def _refused(req: falcon.Request, resp: falcon.Response, error: ApiError, _params: Any) -> None:
    resp.status = falcon.code_to_http_status(error.status)
    resp.data = error.body(req.context.request_id)
    resp.content_type = falcon.MEDIA_JSON
    for name, value in error.headers.items():
        resp.set_header(name, value)
    req.context.code = error.code


_FALCON = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not know the method."),
}


def _from_falcon(req: falcon.Request, resp: falcon.Response, error: falcon.HTTPError, _params: Any) -> None:
    code, message = _FALCON.get(error.status_code, ("invalid_request", "The request is malformed."))
    headers = {str(k): str(v) for k, v in dict(error.headers or {}).items()}
    _refused(req, resp, ApiError(error.status_code, code, message, headers=headers), None)


def _unforeseen(req: falcon.Request, resp: falcon.Response, error: Exception, _params: Any) -> None:
    log.error("unforeseen error", exc_info=error)
    _refused(req, resp, internal(), None)
