"""Schemathesis over the whole document against a real server: no 5xx, and only documented answers.

`SCHEMATHESIS_EXAMPLES` sets how many requests are made up for each operation; the long run takes 1,000.
"""

from __future__ import annotations

import os
import re
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.modes import GenerationMode
from schemathesis.specs.openapi.checks import (
    allow_header_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    status_code_conformance,
    unsupported_method,
)

from tests.contract import accounts, administrators, diplomail, notifications
from tests.contract.document import document
from tests.contract.games import known_values
from tests.contract.requests import World
from tests.postgres import Database
from tests.services import Api, Person, sign_in

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES", "24"))

# Bodies are checked by tests.contract.document. What a shape cannot say, the database refuses with 400 too, so that
# not everything which fits the document is accepted.
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    allow_header_conformance,
    unsupported_method,
    negative_data_rejection,
]

CONFIG: dict[str, Any] = {
    "generation": {"max-examples": EXAMPLES, "deterministic": True},
    "phases": {"stateful": {"enabled": False}},
    # A list that is too long may be too large as well.
    "checks": {"negative_data_rejection": {"expected-statuses": [400, 401, 403, 404, 405, 413, 415, 422, 429]}},
}

contract = schemathesis.openapi.from_dict(dict(document().source), config=SchemathesisConfig.from_dict(CONFIG))


@pytest.fixture(scope="session")
def caller(shared_api: Api, shared_database: Database) -> Person:
    """Somebody in whose name the made-up requests are sent."""
    return sign_in(shared_api, shared_database)


def is_meant_wrong(case: Any, location: ParameterLocation) -> bool:
    component = case.meta.components.get(location) if case.meta is not None else None
    return component is not None and component.mode is GenerationMode.NEGATIVE


@contract.parametrize()
@hypothesis.settings(deadline=None, suppress_health_check=list(hypothesis.HealthCheck), database=None)
def test_any_request_gets_a_documented_answer(case: Any, shared_api: Api, world: World, caller: Person) -> None:
    operation = document().find(case.operation.method.upper(), case.operation.path)
    assert operation is not None
    others = accounts.known_values(world, operation)
    if others is not None:
        caller = others[1]
    headers: dict[str, str] = {}
    if not is_meant_wrong(case, ParameterLocation.HEADER):
        group = {"user": caller.header, "internal": shared_api.internal, "admin": shared_api.admin}
        headers = group.get(operation.group, {})
    if not is_meant_wrong(case, ParameterLocation.PATH):
        # Of what is made up, nothing would ever be there.
        known = {"device_session_id": caller.device_session_id, "user_id": caller.user_id}
        known |= administrators.known_values(world, operation)
        known |= known_values(world, operation, caller)
        known |= notifications.known_values(world, operation)
        known |= diplomail.known_values(world, operation, caller)
        known |= others[0] if others is not None else {}
        for name in case.path_parameters:
            case.path_parameters[name] = known.get(name, case.path_parameters[name])
    response = case.call(base_url=shared_api.url, headers=headers)
    case.validate_response(response, checks=CHECKS, headers=headers)
    path = re.sub(r"^https?://[^/]*|\?.*$", "", response.request.url or "")
    found = httpx.Headers({name: values[0] for name, values in response.headers.items()})
    problems = list(
        document().answer_problems(response.request.method or "", path, response.status_code, found, response.content)
    )
    assert not problems, "\n".join(problems)
