"""The hand-written operations between a player and a game's engine.

The database says whether the caller may, where the engine is, and as which race they speak; nothing that the caller sends can
change that. What the engine answers goes to the client as it came; a refusal of the engine's goes inside our error.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NamedTuple

import falcon
import httpx

from app import telemetry
from app.contract import Operation
from app.database import Statement, Value
from app.errors import ApiError, unavailable
from app.operations import Reader, Services

log = logging.getLogger("galaxy.api")

_UUID, _BOOL = 2950, 16
ENGINE_ACCESS = Statement("engine_access", "SELECT api.engine_access($1, $2, $3)", (_UUID, _UUID, _BOOL), True)

_LARGEST_ANSWER = 4 << 20
# How long a request waits, in seconds, for others that ask engines.
_PATIENCE = 0.5


class _Request(NamedTuple):
    """A call of an engine; its body and its query get the caller's race."""

    method: str
    path: str
    is_command: bool
    race_field: str


_REQUESTS = {
    "engine_commands": _Request("PUT", "/api/v1/command", True, "actor"),
    "engine_orders_store": _Request("PUT", "/api/v1/order", True, "actor"),
    "engine_orders_get": _Request("GET", "/api/v1/order", False, "player"),
    "engine_report_get": _Request("GET", "/api/v1/report", False, "player"),
}

NAMES = tuple(_REQUESTS)
"""What `x-handler` can name here."""


class Engines:
    """Makes the responders of the engine operations; one per process, with one pool of connections."""

    def __init__(self, services: Services, *, call_timeout: float, probe_timeout: float, threads: int) -> None:
        """Timeouts in seconds, each for a whole exchange.

        Of so many threads at most half ask engines at the same time, and one is always left for everything else:
        who waits for a place holds a thread too.
        """
        self._services = services
        self._timeouts = {True: call_timeout, False: probe_timeout}
        self._entries = threading.BoundedSemaphore(max(1, threads - 1))
        self._places = threading.BoundedSemaphore(max(1, threads // 2))
        # A connection for each call: one that is kept may be closed by the engine just when it is used again.
        # A jar would take one engine's cookies to all the others of its host, and one person's to all others.
        self._http = httpx.Client(
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            limits=httpx.Limits(max_keepalive_connections=0),
            trust_env=False,
        )

    def handlers(self) -> dict[str, Callable[[Operation], Callable[..., None]]]:
        """Return what makes the responders, by the name that `x-handler` gives."""
        return {name: self._maker(request) for name, request in _REQUESTS.items()}

    def _maker(self, request: _Request) -> Callable[[Operation], Callable[..., None]]:
        def make(operation: Operation) -> Callable[..., None]:
            reader = Reader(operation, self._services)

            def respond(req: falcon.Request, resp: falcon.Response, **path: str) -> None:
                arguments = reader.arguments(req, path)
                access = self._access(arguments, request.is_command)
                with _held(self._entries, 0), _held(self._places, _PATIENCE):
                    status, content = self._exchange(request, access, arguments)
                resp.status = falcon.code_to_http_status(operation.success_status)
                resp.content_type = falcon.MEDIA_JSON
                if status == 204:
                    content = json.dumps({"turn": int(arguments.get("p_turn") or 0), "commands": []}).encode()
                resp.data = content

            return respond

        return make

    def _access(self, arguments: Mapping[str, Value], is_command: bool) -> dict[str, Any]:
        parameters = [arguments["p_user_id"], arguments["p_game_id"], b"true" if is_command else b"false"]
        (found,) = self._services.database.call(ENGINE_ACCESS.name, parameters)
        access: dict[str, Any] = json.loads(found or b"{}")
        return access

    def _exchange(self, request: _Request, access: dict[str, Any], arguments: Mapping[str, Value]) -> tuple[int, bytes]:
        """Ask the engine; return the status and body of an answer that is good. Raises ApiError."""
        race = {request.race_field: access["race_name"]}
        seconds = self._timeouts[request.is_command]
        if request.is_command:
            given: dict[str, Any] = {"json": {**json.loads(arguments["p_body"] or b"{}"), **race}}
        else:
            given = {"params": {**race, "turn": (arguments["p_turn"] or b"").decode()}}
        content = bytearray()
        with telemetry.child(f"engine {request.method} {request.path}"), _Deadline(seconds) as deadline:
            try:
                with self._http.stream(
                    request.method,
                    access["endpoint"] + request.path,
                    headers={"Accept": "application/json", "Accept-Encoding": "identity", **telemetry.headers()},
                    timeout=seconds,
                    extensions={"trace": deadline.watch},
                    **given,
                ) as answer:
                    for part in answer.iter_raw():
                        content += part
                        if len(content) > _LARGEST_ANSWER:
                            raise _failed()
            except httpx.TimeoutException:
                raise _timed_out() from None
            except ApiError:
                raise
            except httpx.HTTPError:
                raise (_timed_out() if deadline.is_over else _failed()) from None
            except Exception as error:
                # httpx, and what it stands on, does not foresee all that can be answered; or the fault is ours.
                log.warning("the exchange with an engine broke off", extra={"error": type(error).__name__}, exc_info=error)
                raise (_timed_out() if deadline.is_over else _failed()) from None
        body = _json(bytes(content))
        # There are no credentials between us and an engine: asking for some is a fault of its own.
        if 400 <= answer.status_code < 500 and answer.status_code not in (401, 407):
            headers = {"Retry-After": "1"} if answer.status_code == 429 else {}
            raise ApiError(answer.status_code, "engine_rejected", "The game's engine refused.", {"engine": body}, headers)
        is_good = 200 <= answer.status_code < 300 and (answer.status_code == 204 or body is not None)
        if not is_good:
            raise _failed()
        return answer.status_code, bytes(content)


@contextlib.contextmanager
def _held(places: threading.BoundedSemaphore, patience: float) -> Iterator[None]:
    """Hold one of the places, after a wait of at most so many seconds. Raises ApiError."""
    if not places.acquire(timeout=patience):
        raise unavailable()
    try:
        yield
    finally:
        places.release()


class _Deadline:
    """Breaks an exchange off when its time is over, wherever it is: httpx times each read, and many may come in time."""

    def __init__(self, seconds: float) -> None:
        self._timer = threading.Timer(seconds, self._break_off)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.is_over = False

    def __enter__(self) -> _Deadline:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of the connection; httpcore's trace."""
        if event == "connection.connect_tcp.complete":
            with self._lock:
                self._socket = info["return_value"].get_extra_info("socket")
            if self.is_over:
                self._shut()

    def _break_off(self) -> None:
        self.is_over = True
        self._shut()

    def _shut(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            if self._socket is not None:
                self._socket.shutdown(socket.SHUT_RDWR)


def _json(content: bytes) -> Any:
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError):
        return None


def _failed() -> ApiError:
    return ApiError(502, "engine_error", "The game's engine failed.")


def _timed_out() -> ApiError:
    return ApiError(504, "engine_timeout", "The game's engine did not answer in time.")
