"""Probes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import falcon
import pytest
from falcon import testing

from app import contract, engines
from app.probes import NAMES, Check, Probes
from tests.contract.document import document


def probes(checks: Mapping[str, Check]) -> Probes:
    return Probes(checks, contract.load_document())


def ask(checks: Mapping[str, Check]) -> tuple[str, dict[str, Any]]:
    response = falcon.Response()
    probes(checks).ready(falcon.Request(testing.create_environ()), response)
    assert response.data is not None
    body = json.loads(response.data)
    schema = document().source["components"]["responses"]["Readiness"]["content"]["application/json"]["schema"]
    assert document().problems(schema, body) == []
    return str(response.status), body


def raising() -> str:
    raise RuntimeError("the password is swordfish")


def test_all_is_well() -> None:
    assert ask({"a": lambda: "ok", "b": lambda: "ok"}) == ("200 OK", {"status": "ready", "checks": {"a": "ok", "b": "ok"}})


def test_what_is_degraded_takes_nothing_out() -> None:
    assert ask({"a": lambda: "ok", "b": lambda: "degraded"})[0] == "200 OK"


@pytest.mark.parametrize("check", [lambda: "failed", raising])
def test_what_failed_is_named(check: Check) -> None:
    status, body = ask({"a": lambda: "ok", "b": check})
    assert status == "503 Service Unavailable"
    assert body == {"status": "not_ready", "checks": {"a": "ok", "b": "failed"}}


def test_what_a_check_says_stays_out_of_answer_and_log(caplog: pytest.LogCaptureFixture) -> None:
    assert "swordfish" not in json.dumps(ask({"a": raising}))
    assert "swordfish" not in repr([vars(r) for r in caplog.records])
    assert [r.msg for r in caplog.records] == ["readiness check failed"]


def test_living_asks_nobody() -> None:
    response = falcon.Response()
    probes({"a": raising}).live(falcon.Request(testing.create_environ()), response)
    assert (response.status, response.data) == ("200 OK", b'{"status": "ok"}')


def test_every_handler_that_the_document_names_is_there() -> None:
    named = {o.node["x-handler"] for o in document().operations if "x-handler" in o.node}
    assert set(probes({}).handlers()) == set(NAMES)
    assert {*NAMES, *engines.NAMES} == named
