"""The gunicorn worker of the HTTP program: threads that take requests straight from where they arrive.

gunicorn's own threaded worker passes every request from its loop to a thread and back, which costs more than all that is done for
a cheap one (bench/report.md). Here a thread waits for all connections itself: it takes the next one on which something has come,
serves one request, and gives the connection back. All of HTTP (parsing, limits, bodies, what may be kept alive) is gunicorn's;
ours is which thread serves which connection, and when a connection is hung up on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import math
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote_to_bytes

from gunicorn.http.message import TOKEN_RE, Request
from gunicorn.http.unreader import SocketUnreader
from gunicorn.http.wsgi import HEADER_VALUE_RE, Response, base_environ
from gunicorn.util import is_hoppish
from gunicorn.workers.base import Worker as BaseWorker
from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

from app.errors import error_body
from app.turns import Turns, leave

log = logging.getLogger("galaxy.api")

# How long a connection that is done with is read from, so that its client gets the whole answer, and how much.
_LINGER = 0.25
_LINGER_BYTES = 65536

# How often is looked for what is overdue, and how long a quick request may keep others from being taken up.
_PAUSE = 0.1


class _Unreader(SocketUnreader):  # type: ignore[misc]
    """Reads what a client sends; where that has still to come, another thread has the turn."""

    def chunk(self, size_hint: int | None = None) -> bytes:
        size = min(max(self.mxchunk, size_hint or 0), self.max_body_chunk)
        try:
            return bytes(self.sock.recv(size, socket.MSG_DONTWAIT))
        except BlockingIOError:
            leave()
            return bytes(self.sock.recv(size))


class _Request(Request):  # type: ignore[misc]
    """A request of which nobody is trusted to say where it comes from: see `forwarded_allow_ips` in app/http.py."""

    def _peer_is_trusted_proxy(self) -> bool:
        return False


class _Connection(TConn):  # type: ignore[misc]
    """A client's connection: in the hands of one thread, or of none; then the next that comes on it gives it to one."""

    def __init__(self, cfg: Any, sock: socket.socket, client: Any, server: Any, environ: Mapping[str, Any]) -> None:
        """`environ` is what applications are told by every connection of the process."""
        super().__init__(cfg, sock, client, server)
        self.init()
        self.parser.unreader = _Unreader(self.sock)
        self.parser.mesg_class = _Request
        self._environ = {
            **environ,
            "gunicorn.socket": sock,
            "REMOTE_ADDR": client[0],
            "REMOTE_PORT": str(client[1]),
            "SERVER_NAME": server[0],
            "SERVER_PORT": str(server[1]),
        }
        self.deadline = math.inf
        """When it is hung up on, in seconds of time.monotonic()."""
        self.is_idle = True
        """Between two requests, or before the first."""
        self.is_closing = False
        """All was said; what still comes is thrown away."""
        self._drained = 0

    def environ(self, req: Any) -> dict[str, Any]:
        """Return what WSGI has an application know of a request."""
        environ = self._environ.copy()
        major, minor = req.version
        environ["SERVER_PROTOCOL"] = f"HTTP/{major}.{minor}"
        environ["REQUEST_METHOD"] = req.method
        environ["RAW_URI"] = req.uri
        environ["QUERY_STRING"] = req.query
        environ["PATH_INFO"] = unquote_to_bytes(req.path).decode("latin-1")
        environ["wsgi.url_scheme"] = req.scheme
        environ["wsgi.input"] = req.body
        for name, value in req.headers:
            # Of names with an underscore, which would look the same, the parser lets none pass.
            key = name.replace("-", "_")
            if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
                key = f"HTTP_{key}"
            environ[key] = f"{environ[key]},{value}" if key in environ else value
        return environ

    def drain(self) -> bool:
        """Throw away what has come after the end; whether more may come."""
        try:
            data = self.sock.recv(4096, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._drained += len(data)
        return bool(data) and self._drained < _LINGER_BYTES


class _Body:
    """A request's body that says when it has been read, or cannot be."""

    def __init__(self, body: Any, on_read: Callable[[], None]) -> None:
        self._body = body
        self._on_read = on_read
        self._is_at_end = False
        self.is_broken = False

    @property
    def can_be_skipped(self) -> bool:
        """Whether so little of it is left that it can be thrown away before the next request."""
        # What chunks have still to bring nobody knows.
        left = getattr(self._body.reader, "length", None)
        return self._is_at_end if left is None else left < _LINGER_BYTES

    def read(self, size: int | None = None) -> bytes:
        try:
            data: bytes = self._body.read(size)
        except Exception:
            self.is_broken = True
            raise
        self._is_at_end = size is None or len(data) < size
        self._on_read()
        return data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


@functools.lru_cache(maxsize=256)
def _is_plain(name: str) -> bool:
    """Whether a header's name is well-formed, and says nothing of the connection or of how long the body is."""
    return bool(TOKEN_RE.fullmatch(name)) and not is_hoppish(name) and name.lower() != "content-length"


class _Response(Response):  # type: ignore[misc]
    """Sends the head together with what comes first of the body: most answers are one packet, and wake their client once."""

    headers_sent: bool
    _head = b""

    def process_headers(self, headers: list[tuple[str, str]]) -> None:
        for header in headers:
            name, value = header
            if _is_plain(name) and HEADER_VALUE_RE.fullmatch(value):
                self.headers.append(header)
            else:
                super().process_headers([header])

    def send_headers(self) -> None:
        if not self.headers_sent:
            major, minor = self.req.version
            lines = [
                f"HTTP/{major}.{minor} {self.status}",
                f"Server: {self.version}",
                f"Date: {_date(int(time.time()))}",
                f"Connection: {'close' if self.should_close() else 'keep-alive'}",
                *(("Transfer-Encoding: chunked",) if self.chunked else ()),
                *(f"{name}: {value}" for name, value in self.headers),
                "\r\n",
            ]
            self._head = "\r\n".join(lines).encode("latin-1")
            self.headers_sent = True

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%s\r\n" % (len(data), data) if self.chunked else data)

    def close(self) -> None:
        self.send_headers()
        # What ends chunks, or the head of an answer without a body.
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _send(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        if not data:
            return
        try:
            sent = self.sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            leave()
            self.sock.sendall(memoryview(data)[sent:])


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threaded worker, in which a client that is slow, silent or malformed keeps nobody else waiting.

    A request must have come within `read_timeout` for its head and again for its body, and be answered within
    `write_timeout`. What is overdue is shut down, which wakes the thread that waits for it, or gives it to one. Only the thread
    that has a connection in its hands closes it, so that none can be mistaken for a new one of the same number.
    """

    def init_process(self) -> None:
        # Looked up like this, each setting costs a call; a request needs some thirty.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self._connections: dict[int, _Connection] = {}
        self._arrivals = select.epoll()
        self._end = os.eventfd(0)
        self._arrivals.register(self._end, select.EPOLLIN)
        # Two: where one waits for Postgres, another can work.
        self._turns = Turns(min(self.cfg.threads, max(2, self.cfg.threads // 4)))
        self._idle_until = math.inf
        self._environ = {**base_environ(self.cfg), "wsgi.multithread": True, "SCRIPT_NAME": ""}
        super().init_process()

    def init_signals(self) -> None:
        super().init_signals()
        # Ctrl-C at a terminal reaches everybody; what it means, the master decides.
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def get_thread_pool(self) -> None:
        """There is none: see `_serve`."""

    alive: bool
    handle_exit = BaseWorker.handle_exit
    handle_quit = BaseWorker.handle_quit

    # -- the main thread: accepts, and watches the time

    def run(self) -> None:
        """Accept connections until told to stop; then let requests under way be answered."""
        for number in range(self.cfg.threads):
            threading.Thread(target=self._serve, name=f"http-{number}", daemon=True).start()
        # A signal writes there.
        self.poller.register(self.PIPE[0], select.EPOLLIN, lambda pipe: os.read(pipe, 4096))
        while self.alive and self.is_parent_alive():
            self.set_accept_enabled(len(self._connections) < self.worker_connections)
            self._watch()
        self.alive = False
        self.set_accept_enabled(False)
        for listener in self.sockets:
            # Who comes now is refused: in the queue of a socket that nobody reads they would wait in vain.
            listener.close()
        # A request that is under way to us on a connection that we have kept is answered, and told that it was the last.
        self._idle_until = time.monotonic() + STOP_KEEPALIVE_LINGER
        until = time.monotonic() + self.cfg.graceful_timeout
        while self._connections and time.monotonic() < until:
            self._watch()
        os.eventfd_write(self._end, 1)
        self.poller.close()
        self.app.finish()

    def _watch(self) -> None:
        self.notify()
        self.wait_for_and_dispatch_events(_PAUSE)
        self._turns.replace_overdue(_PAUSE)
        now = time.monotonic()
        for connection in list(self._connections.values()):
            deadline = min(connection.deadline, self._idle_until) if connection.is_idle else connection.deadline
            if now > deadline:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection; until its client says something it costs no thread."""
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.ECONNABORTED):
                return
            raise
        connection = _Connection(self.cfg, sock, client, listener.getsockname(), self._environ)
        connection.deadline = time.monotonic() + self.cfg.keepalive
        self._connections[sock.fileno()] = connection
        self._arrivals.register(sock, select.EPOLLIN | select.EPOLLONESHOT)

    # -- the threads that serve

    def _serve(self) -> None:
        while True:
            self._turns.wait()
            for number, _ in self._arrivals.poll(maxevents=1):
                if number == self._end:
                    return
                self._turns.begin()
                connection = self._connections[number]
                try:
                    self._attend(connection)
                except Exception:
                    log.exception("a connection was dropped")
                    self._close(connection)

    def _attend(self, connection: _Connection) -> None:
        connection.is_idle = False
        if connection.is_closing:
            if connection.drain():
                self._arm(connection)
            else:
                self._close(connection)
            return
        connection.deadline = time.monotonic() + self.app.read_timeout
        if self.handle(connection):
            connection.deadline = time.monotonic() + self.cfg.keepalive
            connection.is_idle = True
            # What was read ahead does not arrive any more: there, that it can be answered has to do.
            self._arm(connection, select.EPOLLOUT if connection.parser.unreader.buf.getvalue() else 0)
            return
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
            return
        connection.is_closing = True
        connection.deadline = time.monotonic() + _LINGER
        self._arm(connection)

    def _arm(self, connection: _Connection, also: int = 0) -> None:
        """Give a connection back; from here on it may be another thread's."""
        self._arrivals.modify(connection.sock, select.EPOLLIN | select.EPOLLONESHOT | also)

    def _close(self, connection: _Connection) -> None:
        # Forgotten first: its number is another's as soon as it is closed.
        self._connections.pop(connection.sock.fileno(), None)
        connection.close()

    def handle_request(self, req: Any, conn: _Connection) -> bool:
        """Serve a request; whether the connection can be kept."""

        def on_read() -> None:
            conn.deadline = time.monotonic() + self.app.write_timeout

        environ = conn.environ(req)
        has_body = "CONTENT_LENGTH" in environ or "HTTP_TRANSFER_ENCODING" in environ
        if has_body:
            conn.deadline = time.monotonic() + self.app.read_timeout
            req.body = environ["wsgi.input"] = _Body(req.body, on_read)
        else:
            on_read()
        if req._expected_100_continue:
            conn.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        resp = _Response(req, conn.sock, self.cfg)
        if not self.alive or len(self._connections) >= self.max_keepalived:
            resp.force_close()
        chunks = self.wsgi(environ, resp.start_response)
        if has_body and (req.body.is_broken or not req.body.can_be_skipped):
            # Its client must know: the next request would meet a connection that has just been closed.
            resp.force_close()
        try:
            for chunk in chunks:
                resp.write(chunk)
            resp.close()
        except OSError:
            raise
        except Exception:
            if not resp.headers_sent:
                raise
            # Half an answer is out: nothing can be said any more but that it ends here.
            log.exception("an answer broke off")
            return False
        finally:
            if hasattr(chunks, "close"):
                chunks.close()
        if not has_body:
            # There is nothing to skip before the next request.
            conn.parser.mesg = None
        return not resp.should_close()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:
        """Answer what the parser refused. Nothing of the request is trusted, so it gets an id of ours."""
        status, reason = _PROTOCOL_ERRORS.get(type(exc).__name__, (400, "Bad Request"))
        request_id = os.urandom(16).hex()
        logs_fields = {"request_id": request_id, "error": type(exc).__name__, "status": status}
        log.info("malformed request", extra=logs_fields)
        body = error_body("invalid_request", "The request is not well-formed HTTP.", {}, request_id)
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"X-Request-ID: {request_id}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            client.sendall(head.encode() + body)
        except OSError:
            log.debug("the client did not wait for the refusal")


_PROTOCOL_ERRORS = {
    "LimitRequestLine": (414, "URI Too Long"),
    "LimitRequestHeaders": (431, "Request Header Fields Too Large"),
    "ExpectationFailed": (417, "Expectation Failed"),
    "UnsupportedTransferCoding": (501, "Not Implemented"),
}
