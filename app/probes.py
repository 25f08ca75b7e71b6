"""The hand-written resources at the root: probes, the contract itself, and a page to read and try it."""

from __future__ import annotations

import importlib.metadata
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import falcon

from app import contract

log = logging.getLogger("galaxy.api")

Check = Callable[[], str]
"""Returns ok, degraded or failed; an exception counts as failed."""


_PAGE = Path(__file__).parent / "docs_page"
# The library's files are served from where its package is installed; importing it would read them all.
_LIBRARY = Path(str(importlib.metadata.distribution("offapi").locate_file("offapi")))

# Everything comes from here: scripts, styles and the requests that are tried; pictures are in the style sheet.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_PAGE_FILES = {
    "docs_page": (_PAGE / "index.html", "text/html; charset=utf-8"),
    "docs_style": (_LIBRARY / "swagger_style.css", "text/css; charset=utf-8"),
    "docs_script": (_LIBRARY / "swagger_bundle.js", "text/javascript; charset=utf-8"),
    "docs_start": (_PAGE / "start.js", "text/javascript; charset=utf-8"),
}

NAMES = ("live", "ready", "contract_yaml", "contract_json", *_PAGE_FILES)
"""What `x-handler` can name here."""


class Probes:
    """Probes and the contract."""

    def __init__(self, checks: Mapping[str, Check], document: Mapping[str, Any]) -> None:
        self._checks = checks
        self._yaml = contract.DOCUMENT.read_bytes()
        self._json = json.dumps(document, ensure_ascii=False).encode()

    def handlers(self) -> dict[str, Callable[[contract.Operation], Callable[..., None]]]:
        """Return what makes the responders, by the name that `x-handler` gives."""
        return {
            "live": lambda _: self.live,
            "ready": lambda _: self.ready,
            "contract_yaml": lambda _: self.contract_yaml,
            "contract_json": lambda _: self.contract_json,
            **dict.fromkeys(_PAGE_FILES, _page_file),
        }

    def live(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """200 while the process lives; asks nothing of anything."""
        resp.data = b'{"status": "ok"}'
        resp.content_type = falcon.MEDIA_JSON

    def ready(self, _req: falcon.Request, resp: falcon.Response) -> None:
        """200 when nothing failed, else 503; names each check and its state. What is degraded takes nothing out."""
        states = {name: self._state(name, check) for name, check in self._checks.items()}
        is_ready = "failed" not in states.values()
        resp.status = falcon.HTTP_200 if is_ready else falcon.HTTP_503
        resp.data = json.dumps({"status": "ready" if is_ready else "not_ready", "checks": states}).encode()
        resp.content_type = falcon.MEDIA_JSON

    def contract_yaml(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = self._yaml
        resp.content_type = falcon.MEDIA_YAML

    def contract_json(self, _req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = self._json
        resp.content_type = falcon.MEDIA_JSON

    @staticmethod
    def _state(name: str, check: Check) -> str:
        try:
            return check()
        except Exception as error:
            log.warning("readiness check failed", extra={"check": name, "error": type(error).__name__})
            return "failed"


def _page_file(operation: contract.Operation) -> Callable[..., None]:
    path, media_type = _PAGE_FILES[operation.handler or ""]
    content = path.read_bytes()

    def respond(_req: falcon.Request, resp: falcon.Response) -> None:
        resp.data = content
        resp.content_type = media_type
        resp.set_headers(_PAGE_HEADERS)

    return respond
