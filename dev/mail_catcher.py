"""A mail server that delivers nothing: it keeps what it is given and shows it.

    python -m dev.mail_catcher [--host 127.0.0.1] [--smtp-port 1025] [--http-port 8025]

`GET /messages?to=address` answers `{"items": [{to, from, subject, text, html, message_id, received_at}]}`,
newest first; without `to`, everybody's. `GET /` is a page to read. The newest 10,000 are kept, in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import datetime
import email.policy
import html
import json
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from aiosmtpd.smtp import SMTP, Envelope, Session

KEPT = 10_000
LARGEST = 1 << 20
SHOWN = 200


@dataclass(frozen=True)
class Message:
    """One mail to one recipient, as it came over SMTP; `to` and `sender` are the envelope's."""

    to: str
    sender: str
    subject: str
    text: str | None
    html: str | None
    message_id: str | None
    received_at: str
    raw: bytes

    def as_json(self) -> dict[str, str | None]:
        return {
            "to": self.to,
            "from": self.sender,
            "subject": self.subject,
            "text": self.text,
            "html": self.html,
            "message_id": self.message_id,
            "received_at": self.received_at,
        }


class MailCatcher:
    """The SMTP and the HTTP server, each in a thread of its own; port 0 takes a free one.

    Usable as a context manager. `smtp_port`, `http_port` and `url` are right from the start on.
    """

    def __init__(self, smtp_port: int = 0, http_port: int = 0, host: str = "127.0.0.1") -> None:
        self._host = host
        self.smtp_port = smtp_port
        self.http_port = http_port
        self._kept: collections.deque[Message] = collections.deque(maxlen=KEPT)
        self._changed = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._http: ThreadingHTTPServer | None = None
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> MailCatcher:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://{self._host}:{self.http_port}"

    def start(self) -> None:
        """Listen on both ports; raises OSError when one is taken."""
        # The listener is made here, not by aiosmtpd's Controller, which cannot take port 0.
        listener = socket.create_server((self._host, self.smtp_port))
        try:
            self._http = _HttpServer((self._host, self.http_port), _Handler)
        except OSError:
            listener.close()
            raise
        self._http.catcher = self
        self.smtp_port = listener.getsockname()[1]
        self.http_port = self._http.server_address[1]
        self._loop = asyncio.new_event_loop()
        ready = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve_smtp, args=(self._loop, listener, ready), name="mail-smtp"),
            threading.Thread(target=self._http.serve_forever, args=(0.1,), name="mail-http"),
        ]
        for thread in self._threads:
            thread.start()
        ready.wait()

    def stop(self) -> None:
        """Stop listening, drop open connections and wait for both threads; what was caught stays readable."""
        if self._loop is not None and self._http is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._http.shutdown()
            for thread in self._threads:
                thread.join()
            self._http.server_close()
        self._loop = self._http = None
        self._threads = []

    def messages(self, to: str | None = None) -> list[Message]:
        """Return what was caught, newest first; `to` is compared without regard to case."""
        with self._changed:
            kept = list(self._kept)
        return [m for m in reversed(kept) if to is None or m.to.lower() == to.lower()]

    def wait(self, to: str | None = None, count: int = 1, timeout: float = 10) -> list[Message]:
        """Return `messages(to)` as soon as there are `count`; raises TimeoutError after `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.messages(to)) >= count, timeout):
                raise TimeoutError(f"{len(self.messages(to))} of {count} mails to {to} in {timeout} s")
            return self.messages(to)

    def clear(self) -> None:
        """Forget what was caught."""
        with self._changed:
            self._kept.clear()

    # Called by aiosmtpd, which finds it by its name.
    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        raw = cast(bytes, envelope.content or b"")
        with self._changed:
            self._kept.extend(_read(raw, envelope.mail_from or "", to) for to in envelope.rcpt_tos)
            self._changed.notify_all()
        return "250 2.0.0 caught"

    def _serve_smtp(self, loop: asyncio.AbstractEventLoop, listener: socket.socket, ready: threading.Event) -> None:
        def connection() -> SMTP:
            return SMTP(self, loop=loop, hostname="localhost", enable_SMTPUTF8=True, data_size_limit=LARGEST)

        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(loop.create_server(connection, sock=listener))
        loop.call_soon(ready.set)
        try:
            loop.run_forever()
        finally:
            server.close()
            for task in asyncio.all_tasks(loop):
                task.cancel()
            while tasks := asyncio.all_tasks(loop):
                loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(server.wait_closed())
            asyncio.set_event_loop(None)
            loop.close()


def _read(raw: bytes, sender: str, to: str) -> Message:
    parsed = BytesParser(policy=email.policy.default).parsebytes(raw)
    message_id = parsed["Message-ID"]
    return Message(
        to=to,
        sender=sender,
        subject=str(parsed["Subject"] or ""),
        text=_body(parsed, "plain"),
        html=_body(parsed, "html"),
        message_id=None if message_id is None else str(message_id),
        received_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        raw=raw,
    )


def _body(parsed: EmailMessage, kind: str) -> str | None:
    part = cast("EmailMessage | None", parsed.get_body((kind,)))
    if part is None:
        return None
    try:
        content = part.get_content()
    except (LookupError, ValueError):  # a character set that is unknown or does not fit
        content = cast(bytes, part.get_payload(decode=True) or b"").decode("utf-8", "replace")
    return str(content).replace("\r\n", "\n")


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    catcher: MailCatcher


class _Handler(BaseHTTPRequestHandler):
    server: _HttpServer
    timeout = 10

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        # A plus in an address is often left as it is; a space never belongs there.
        to = parse_qs(url.query).get("to", [""])[0].replace(" ", "+") or None
        if url.path == "/messages":
            items = [message.as_json() for message in self.server.catcher.messages(to)]
            self._answer(200, "application/json", json.dumps({"items": items}))
        elif url.path == "/":
            self._answer(200, "text/html; charset=utf-8", _page(self.server.catcher.messages(to)))
        else:
            self._answer(404, "application/json", json.dumps({"error": "not_found"}))

    def _answer(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Say nothing: addresses are in the query."""


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Caught mail</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
article {{ border-top: 1px solid #999; padding: .5rem 0 }}
h2 {{ font-size: 1.1rem; margin: .5rem 0 0 }} p {{ margin: 0; color: #666 }} pre {{ white-space: pre-wrap }}
</style></head><body><h1>Caught mail</h1><p>{count}</p>{articles}</body></html>
"""
_ARTICLE = """<article><h2>{subject}</h2><p>to {to}, from {sender}, {received_at}</p>
<pre>{text}</pre></article>
"""


def _page(messages: list[Message]) -> str:
    escape: Callable[[str], str] = html.escape
    articles = [
        _ARTICLE.format(
            subject=escape(message.subject or "(no subject)"),
            to=escape(message.to),
            sender=escape(message.sender),
            received_at=message.received_at,
            text=escape(message.text or message.html or ""),
        )
        for message in messages[:SHOWN]
    ]
    count = f"{len(messages)} kept, the newest {len(articles)} shown; reload to see new ones."
    return _PAGE.format(count=count, articles="".join(articles))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m dev.mail_catcher")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--smtp-port", type=int, default=1025)
    parser.add_argument("--http-port", type=int, default=8025)
    options = parser.parse_args()
    # Blocked in every thread, so that only the wait below takes them.
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    with MailCatcher(options.smtp_port, options.http_port, options.host) as catcher:
        print(f"SMTP on {options.host}:{catcher.smtp_port}; read it at {catcher.url}", flush=True)
        signal.sigwait(signals)


if __name__ == "__main__":
    main()
