"""What a schema lets through and Postgres reads in its own way: numbers, moments, schedules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.document import document
from tests.contract.requests import Request, World, right

CREATE = document().operation("game_create")


def create(world: World, **body: Any) -> Any:
    request = right(world, CREATE)
    return Request(request.method, request.path, {**request.body, **body}, headers=request.headers).send(world.api)


def test_a_whole_number_may_be_written_with_a_point(world: World) -> None:
    answer = create(world, min_players=2.0, max_players=4.0)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["min_players"], answer.json()["max_players"]) == (2, 4)


@pytest.mark.parametrize(
    "moment",
    [
        "2999-12-31T23:59:59-15:59",
        "2100-01-01T00:00:00+15:59",
        "2100-01-01t00:00:00.123456z",
        "2096-02-29T12:00:00Z",
    ],
)
def test_a_moment_of_any_offset_is_taken(moment: str, world: World) -> None:
    answer = create(world, enrollment_ends_at=moment)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    "moment",
    [
        "0000-01-01T00:00:00Z",
        "3000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-14:00",
        "10000-01-01T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2100-01-01T24:00:00Z",
        "2098-12-31T23:59:60Z",
        "2098-12-31T23:59:60.5Z",
        "2100-01-01T00:00:00+16:00",
        "2100-01-01T00:00:00",
        "2100-01-01 00:00:00Z",
        "infinity",
        "now",
    ],
)
def test_a_moment_that_is_none_is_refused_and_named(moment: str, world: World) -> None:
    answer = create(world, enrollment_ends_at=moment)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), answer.text
    assert {p["path"] for p in answer.json()["error"]["details"]} == {"enrollment_ends_at"}


@pytest.mark.parametrize("schedule", ["0 0 30 2 *", "*/0 * * * *", "5-1 * * * *", "\t0 0 * * *", "0 0 * *", "@daily    "])
def test_a_schedule_that_is_none_is_refused_and_named(schedule: str, world: World) -> None:
    answer = create(world, turn_schedule=schedule)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), answer.text
    assert [p["path"] for p in answer.json()["error"]["details"]] == ["turn_schedule"]
