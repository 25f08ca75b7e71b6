"""The page at /docs in a real browser: it shows every operation, tries one, and asks nobody but us for anything."""

from __future__ import annotations

from pathlib import Path

import httpx

from tests.browser import browser
from tests.contract.document import document
from tests.services import Api


def test_everything_is_read_and_tried_from_here(shared_api: Api, tmp_path: Path) -> None:
    with browser(tmp_path) as page:
        page.open(f"{shared_api.url}/docs#/probes/live")
        page.wait_for("document.querySelectorAll('.opblock-tag-section').length > 0")
        tags = page.evaluate("[...document.querySelectorAll('.opblock-tag')].map(e => e.dataset.tag)")
        assert tags == [tag["name"] for tag in document().source["tags"]]
        # The one that the address names is open.
        button = "document.querySelector('#operations-probes-live .try-out__btn')"
        page.wait_for(f"{button} !== null")
        page.evaluate(f"{button}.click()")
        page.wait_for("document.querySelector('#operations-probes-live .execute') !== null")
        page.evaluate("document.querySelector('#operations-probes-live .execute').click()")
        answer = "document.querySelector('#operations-probes-live .live-responses-table')"
        page.wait_for(f'{answer} !== null && {answer}.innerText.includes(\'"status": "ok"\')')
        assert page.evaluate("getComputedStyle(document.querySelector('.opblock')).borderRadius") != "0px", "its style is there"
        assert page.complaints == []
        assert {httpx.URL(url).copy_with(path="/", query=None, fragment=None) for url in page.requests if url[:5] != "data:"} == {
            httpx.URL(f"{shared_api.url}/")
        }
        assert f"{shared_api.url}/healthz" in page.requests


def test_it_may_ask_nobody_else_for_anything(shared_api: Api) -> None:
    answer = shared_api.client.get("/docs")
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
    assert policy.pop("img-src") == "'self' data:"
    assert set(policy.values()) <= {"'self'", "'none'"}
    assert policy["default-src"] == "'none'"
    assert "//" not in answer.text
