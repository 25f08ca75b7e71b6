"""Every operation of the document gives every answer that the document promises."""

from __future__ import annotations

import pytest

from tests.contract.document import document
from tests.contract.requests import BUSY, Cause, Stall, World, documented, make_of, right

ALL = documented()


def test_every_promised_answer_has_a_cause() -> None:
    for cause in ALL:
        make_of(cause)
    assert {(c.operation.name, c.status) for c in ALL} == {
        (o.name, status) for o in document().operations for status in o.statuses
    }


@pytest.mark.parametrize("cause", [c for c in ALL if c.status < 300], ids=str)
def test_success(cause: Cause, world: World) -> None:
    request = right(world, cause.operation)
    answer = request.send(world.api)
    assert answer.status_code == cause.status, answer.text
    if cause.operation.has_body:
        assert document().request_problems(cause.operation, request.content) == []


@pytest.mark.parametrize("cause", [c for c in ALL if c.status == 304], ids=str)
def test_not_modified(cause: Cause, world: World) -> None:
    request = right(world, cause.operation)
    first = request.send(world.api)
    etag = first.headers["ETag"]
    for header in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = world.api.client.get(request.path, headers={**request.headers, "If-None-Match": header})
        assert (again.status_code, again.content, again.headers["ETag"]) == (304, b"", etag), header
    for header in ('"other"', etag.strip('"'), ""):
        again = world.api.client.get(request.path, headers={**request.headers, "If-None-Match": header})
        assert (again.status_code, again.content) == (200, first.content), header


@pytest.mark.parametrize("cause", [c for c in ALL if c.status >= 400 and make_of(c)], ids=str)
def test_refusal(cause: Cause, world: World) -> None:
    make = make_of(cause)
    assert make is not None
    answer = make(world, cause.operation).send(world.api)
    assert (answer.status_code, answer.json()["error"]["code"]) == (cause.status, cause.code)


@pytest.mark.parametrize("cause", [c for c in ALL if make_of(c) is None and c.code != BUSY], ids=str)
def test_a_database_that_does_not_answer_in_time(cause: Cause, impatient_world: World, stalled: Stall) -> None:
    request = right(impatient_world, cause.operation)
    with stalled():
        answer = request.send(impatient_world.api)
    assert answer.status_code == 503, answer.text
    if cause.code is not None:
        assert answer.json()["error"]["code"] == cause.code
        assert answer.headers["Retry-After"] == "1"
    assert request.send(impatient_world.api).status_code < 400


@pytest.mark.parametrize("cause", [c for c in ALL if c.code == BUSY], ids=str)
def test_a_queue_of_commands_that_is_full(cause: Cause, world: World) -> None:
    request = right(world, cause.operation)
    bounds = (
        "UPDATE settings SET default_value = %s, min_value = %s, max_value = %s WHERE setting_name = 'runtime_job_queue_size'"
    )
    with world.connect() as connection:
        connection.execute(bounds, [0, 0, 0])
        try:
            answer = request.send(world.api)
        finally:
            connection.execute(bounds, [100000, 1, 100000])
    assert (answer.status_code, answer.json()["error"]["code"], answer.headers["Retry-After"]) == (503, BUSY, "1")
    assert request.send(world.api).status_code == 202


def test_what_is_listed_once_is_listed_so_for_all_members_of_a_group() -> None:
    """Whoever acts for a person, or as an administrator, says how the identity can be refused."""
    for operation in document().operations:
        if operation.group == "user":
            assert {400, 403, 404, 503} <= set(operation.statuses), operation
        if operation.group in ("internal", "admin"):
            assert {400, 401, 503} <= set(operation.statuses), operation
        if operation.group == "admin":
            assert 429 in operation.statuses, operation
        if operation.has_body:
            assert {400, 413, 415} <= set(operation.statuses), operation
