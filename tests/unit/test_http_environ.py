"""What applications are told of a request: the same as by gunicorn, whose way of making it up we have replaced."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import Response, base_environ, create

from app.worker import _Connection, _Response

_CLIENT = ("192.0.2.7", 4711)
_SERVER = ("198.51.100.1", 8080)

# What nothing of ours asks for.
_LEFT_OUT = {"wsgi.early_hints"}

REQUESTS = {
    "a look-up": b"GET /api/v1/x?a=1&b=%20 HTTP/1.1\r\nHost: galaxy.example:8080\r\n\r\n",
    "an older client": b"GET / HTTP/1.0\r\n\r\n",
    "headers that are repeated": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 203.0.113.1\r\nX-Forwarded-For: 203.0.113.2,203.0.113.3\r\n\r\n"
    ),
    "names that would look the same": b"GET / HTTP/1.1\r\nHost: a\r\nX-User-ID: 1\r\nX_User_ID: 2\r\nSCRIPT_NAME: /x\r\n\r\n",
    "a scheme of which nobody is believed": b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n",
    "a body": b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
    "a body in chunks": b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "a path that is escaped": b"GET /caf%C3%A9%2F%00//a%ZZ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path that begins twice": b"GET //a//b HTTP/1.1\r\nHost: a\r\n\r\n",
    "a whole address": b"GET http://galaxy.example/x?y#z HTTP/1.1\r\nHost: a\r\n\r\n",
    "text that is not ASCII": b"GET / HTTP/1.1\r\nHost: a\r\nX-Name: \xc3\xa9\r\n\r\n",
}


@pytest.mark.parametrize("name", REQUESTS)
def test_it_is_what_gunicorn_says(name: str) -> None:
    config = Config()
    config.set("forwarded_allow_ips", "")
    constant = base_environ(config) | {"SCRIPT_NAME": ""}
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        theirs.sendall(REQUESTS[name])
        connection = _Connection(config, ours, _CLIENT, _SERVER, constant)
        request = next(connection.parser)
        _, expected = create(request, ours, _CLIENT, _SERVER, config)
        found = connection.environ(request)
    expected["wsgi.errors"] = found["wsgi.errors"]
    assert found == {key: value for key, value in expected.items() if key not in _LEFT_OUT}


HEADERS: dict[str, list[tuple[str, str]]] = {
    "what all have": [("Content-Type", "application/json"), ("content-length", "12"), ("X-Request-ID", "abc")],
    "what is not for an application to say": [("Connection", "close"), ("Transfer-Encoding", "chunked"), ("ETag", '"x"')],
    "a line that goes on": [("X-Name", "a\r\nSet-Cookie: b")],
    "a name that is none": [("X Name", "a")],
    "a name that goes on": [("X-Name: a\r\nB", "a")],
    "a length that is none": [("Content-Length", "many")],
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_of_answers_are_held_to_what_gunicorn_holds_them_to(name: str) -> None:
    def processed(kind: type[Response]) -> Any:
        response = kind(None, None, None)
        try:
            response.process_headers(HEADERS[name])
        except Exception as error:
            return type(error)
        return response.headers, response.response_length, response.upgrade

    assert processed(_Response) == processed(Response)
