"""Applications to compare with: each does the look-up in another way and nothing else. They run under stock gunicorn workers."""

from __future__ import annotations

from collections.abc import Callable

import falcon

CONNINFO = "BENCH_CONNINFO"
"""The variable with libpq's connection string."""


class _Sessions:
    def __init__(self, look_up: Callable[[str], bytes]) -> None:
        self._look_up = look_up

    def on_get(self, _req: falcon.Request, resp: falcon.Response, session_id: str) -> None:
        resp.data = self._look_up(session_id)


def application(look_up: Callable[[str], bytes]) -> falcon.App[falcon.Request, falcon.Response]:
    """Make an application with one route, /sessions/{id}; `look_up` returns a session's JSON."""
    app = falcon.App()
    app.add_route("/sessions/{session_id}", _Sessions(look_up))
    return app
