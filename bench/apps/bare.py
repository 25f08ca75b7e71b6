"""No database: what gunicorn and Falcon take by themselves."""

from __future__ import annotations

import json

import falcon

from bench.apps import application

# As long as a session is.
_SESSION = json.dumps({"session": "x" * 320}).encode()


def create_app() -> falcon.App[falcon.Request, falcon.Response]:
    return application(lambda _session_id: _SESSION)
