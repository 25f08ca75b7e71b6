"""The contract over HTTP: strict about what comes in, and never a 5xx for it but the 501 before `init`."""

from __future__ import annotations

import json
import re
import socket
import socketserver
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from dev.engine.engine import Engine, Refused

LARGEST_BODY = 256 << 10
LARGEST_DRAINED = 8 << 20
MOST_CONNECTIONS = 200
IDLE = 30.0  # seconds that a connection may say nothing


def say(text: str) -> None:
    """Write a line of the log."""
    print(time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), text, file=sys.stderr, flush=True)


class _Answer(NamedTuple):
    status: int
    body: object = None  # None: an answer without one
    headers: Mapping[str, str] = {}


class _Disconnected(Exception):
    """The other side is gone, or what it sends cannot be told apart from its next request."""


class Server(ThreadingHTTPServer):
    """Serves one engine until `stop`; listens as soon as it is made, `port` tells where."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, engine: Engine, version: str) -> None:
        self.engine = engine
        self.version = version
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__((host, port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def stop(self, timeout: float) -> None:
        """Take no new request, and answer those that have come; waits at most `timeout` seconds for them."""
        self.shutdown()
        self.server_close()
        with self._changed:
            for connection in self._open:
                with suppress(OSError):
                    # Who waits for a request sees the end; who works on one can still answer.
                    connection.shutdown(socket.SHUT_RD)
            self._changed.wait_for(lambda: not self._open, timeout)

    def server_bind(self) -> None:
        # HTTPServer's own asks the DNS for our name, which can take long.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.port

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            full = len(self._open) >= MOST_CONNECTIONS
            if not full:
                self._open.add(request)
        if full:
            super().shutdown_request(request)
            return
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            say(f"a connection failed:\n{traceback.format_exc()}")


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "galaxy-dev-engine"
    sys_version = ""
    timeout = IDLE
    disable_nagle_algorithm = True
    wbufsize = -1

    def __getattr__(self, name: str) -> Any:
        # Every method comes here, also those that nobody knows: http.server would answer them with 501.
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def _serve(self) -> None:
        try:
            body = self._read_body()
            answer = self._call(body)
        except Refused as refused:
            answer = _refusal(refused)
        except _Disconnected:
            self.close_connection = True
            return
        except Exception:
            say(f"{self.command} {self.path[:200]!r} failed:\n{traceback.format_exc()}")
            answer = _refusal(Refused(500, "internal", "The engine failed; its log says why."))
        if self.command not in ("GET", "HEAD") or answer.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            say(f"{self.command[:20]} {self.path[:200]!r} {answer.status}")
        self._answer(answer)

    def handle_expect_100(self) -> bool:
        went_on = super().handle_expect_100()
        self.wfile.flush()
        return went_on

    def _call(self, body: bytes) -> _Answer:
        try:
            url = urlsplit(self.path)
        except ValueError:
            raise Refused(404, "not_found", "There is nothing at this path.") from None
        methods = _ROUTES.get(url.path)
        if methods is None:
            raise Refused(404, "not_found", "There is nothing at this path.")
        route = methods.get(self.command)
        if route is None:
            refusal = _refusal(Refused(405, "method_not_allowed", "This path does not know the method."))
            return refusal._replace(headers={"Allow": ", ".join(methods)})
        return route(self, url.query, body)

    def _read_body(self) -> bytes:
        # What cannot be read to its end must be the last thing on its connection.
        if self.headers.get("Transfer-Encoding") is not None:
            self.close_connection = True
            raise Refused(411, "length_required", "Send the body with its Content-Length.")
        lengths = self.headers.get_all("Content-Length") or ["0"]
        if len(lengths) != 1 or not re.fullmatch("[0-9]{1,15}", lengths[0].strip()):
            self.close_connection = True
            raise Refused(400, "malformed", "Content-Length must be one whole number.")
        length = int(lengths[0])
        if length > LARGEST_BODY:
            self.close_connection = True
            left = min(length, LARGEST_DRAINED)
            # Else the answer would be lost with the connection's reset.
            while left > 0 and (part := self.rfile.read(min(left, 1 << 16))):
                left -= len(part)
            raise Refused(413, "too_large", f"A body has at most {LARGEST_BODY} bytes.")
        body = self.rfile.read(length)
        if len(body) < length:
            raise _Disconnected
        return body

    def _answer(self, answer: _Answer) -> None:
        # A lone surrogate is written as JSON's escape of it.
        text = "" if answer.body is None else json.dumps(answer.body, ensure_ascii=False, allow_nan=False)
        body = text.encode("utf-8", "backslashreplace")
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.body is not None:
            self.send_header("Content-Type", "application/json")
        if answer.status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what http.server itself refuses: a request that is none, too long, or of another version of HTTP."""
        self.close_connection = True
        self.request_version = self.protocol_version  # what was sent may be none, which would be answered without headers
        status = code if 400 <= code < 500 else 400
        self._answer(_refusal(Refused(status, "malformed", message or HTTPStatus(status).phrase)))

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: what changes something is said where it is served."""


def _refusal(refused: Refused) -> _Answer:
    error: dict[str, Any] = {"code": refused.code, "message": refused.message}
    if refused.problems:
        error["problems"] = refused.problems
    return _Answer(refused.status, {"error": error})


# -- the routes


def _json(body: bytes) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            raise ValueError("a field is there twice")
        return made

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(body.decode(), object_pairs_hook=unique, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Refused(400, "malformed", f"The body is not JSON: {error}") from None


def _query(query: str, *names: str) -> list[str]:
    try:
        # An empty query is none, which strict parsing does not take.
        found = parse_qs(query, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=16) if query else {}
    except ValueError as error:
        raise Refused(400, "malformed", f"The query cannot be read: {error}") from None
    problems = [{"where": name, "what": "must be given once"} for name in names if len(found.get(name, ())) != 1]
    problems += [{"where": name[:64], "what": "is not a parameter of this call"} for name in found if name not in names]
    if problems:
        raise Refused(400, "malformed", "The query is not right.", problems)
    return [found[name][0] for name in names]


def _player_and_turn(query: str) -> tuple[str, int]:
    player, turn = _query(query, "player", "turn")
    if not re.fullmatch("[0-9]{1,9}", turn):
        raise Refused(400, "malformed", "The query is not right.", [{"where": "turn", "what": "must be a whole number"}])
    return player, int(turn)


def _healthz(handler: _Handler, query: str, body: bytes) -> _Answer:
    _query(query)
    return _Answer(200, {"status": "ok", "version": handler.server.version})


def _init(handler: _Handler, query: str, body: bytes) -> _Answer:
    _query(query)
    return _Answer(201, handler.server.engine.init(_json(body)))


def _status(handler: _Handler, query: str, body: bytes) -> _Answer:
    _query(query)
    return _Answer(200, handler.server.engine.status())


def _turn(handler: _Handler, query: str, body: bytes) -> _Answer:
    _query(query)
    return _Answer(200, handler.server.engine.turn())


def _banish(handler: _Handler, query: str, body: bytes) -> _Answer:
    handler.server.engine.banish(_body_of_game(handler, query, body))
    return _Answer(204)


def _command(handler: _Handler, query: str, body: bytes) -> _Answer:
    return _Answer(202, handler.server.engine.command(_body_of_game(handler, query, body)))


def _put_order(handler: _Handler, query: str, body: bytes) -> _Answer:
    return _Answer(200, handler.server.engine.put_order(_body_of_game(handler, query, body)))


def _get_order(handler: _Handler, query: str, body: bytes) -> _Answer:
    handler.server.engine.status()
    stored = handler.server.engine.get_order(*_player_and_turn(query))
    return _Answer(204) if stored is None else _Answer(200, stored)


def _report(handler: _Handler, query: str, body: bytes) -> _Answer:
    handler.server.engine.status()
    return _Answer(200, handler.server.engine.report(*_player_and_turn(query)))


def _body_of_game(handler: _Handler, query: str, body: bytes) -> Any:
    # Without a game the answer is 501, whatever was sent.
    handler.server.engine.status()
    _query(query)
    return _json(body)


_Route = Callable[[_Handler, str, bytes], _Answer]
_ROUTES: dict[str, dict[str, _Route]] = {
    "/healthz": {"GET": _healthz},
    "/api/v1/admin/init": {"POST": _init},
    "/api/v1/admin/status": {"GET": _status},
    "/api/v1/admin/turn": {"PUT": _turn},
    "/api/v1/admin/race/banish": {"POST": _banish},
    "/api/v1/command": {"PUT": _command},
    "/api/v1/order": {"PUT": _put_order, "GET": _get_order},
    "/api/v1/report": {"GET": _report},
}
