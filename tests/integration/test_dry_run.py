"""A command that is only tried: the answer is the same, and nothing has happened."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.contract import games
from tests.contract.document import Operation, document
from tests.contract.requests import Request, World, right
from tests.services import note_secret

DRY = {"$ref": "#/components/parameters/DryRun"}
COMMANDS = [o for o in document().operations if DRY in o.node.get("parameters", ())]


@pytest.fixture
def world(shared_api: Any, shared_database: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    with games.engines_in(tmp_path_factory.mktemp("engines")):
        yield World(shared_api, shared_database)


def dry(request: Request) -> Request:
    return dataclasses.replace(request, query={**request.query, "dry_run": "true"})


def rows(world: World) -> dict[str, Any]:
    """What is in each table, as a number of rows and a sum over them."""
    with world.connect() as connection:
        tables = [
            row[0]
            for row in connection.execute(
                "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables"
                " WHERE schemaname = 'backend' OR tablename = 'procrastinate_jobs'"
            ).fetchall()
        ]
        # Beside us nobody writes, but for who was seen and what was counted of countries and administrators.
        tables = [
            t for t in tables if t not in ("backend.device_sessions", "backend.user_country_counters", "backend.admin_accounts")
        ]
        found = {}
        for table in tables:
            row = connection.execute(
                f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {table} AS t"
            ).fetchone()
            found[table] = row
        return found


def test_every_lobby_command_can_be_tried() -> None:
    assert len(COMMANDS) > 30
    lobby = {o.name for o in document().operations if o.method != "GET" and ("/lobby/" in o.path or "/admin/games" in o.path)}
    assert {o.name for o in COMMANDS} == {name for name in lobby if not name.startswith(("race_name", "admin_diplomail"))}


@pytest.mark.parametrize("operation", COMMANDS, ids=str)
def test_what_is_tried_answers_as_if_and_leaves_nothing(operation: Operation, world: World) -> None:
    request = right(world, operation)
    before = rows(world)
    tried = dry(request).send(world.api)
    assert rows(world) == before
    assert tried.headers["X-Dry-Run"] == "true"
    assert "Location" not in tried.headers
    done = request.send(world.api)
    assert (tried.status_code, tried.json().keys()) == (done.status_code, done.json().keys())
    assert "X-Dry-Run" not in done.headers
    assert tried.status_code < 300
    assert tried.json().get("code") is None


def test_a_refusal_is_the_same_and_says_that_it_was_tried(world: World) -> None:
    request = right(world, document().operation("game_start"))
    assert request.send(world.api).status_code == 202
    tried, done = dry(request).send(world.api), request.send(world.api)
    assert (tried.status_code, tried.json()["error"]["code"]) == (409, "invalid_transition")
    assert tried.json()["error"]["details"] == done.json()["error"]["details"]
    assert tried.headers["X-Dry-Run"] == "true"


def test_nothing_is_kept_under_a_key(world: World) -> None:
    operation = document().operation("game_create")
    request = right(world, operation)
    keyed = dataclasses.replace(request, headers={**request.headers, "Idempotency-Key": "a key"})
    first = dry(keyed).send(world.api)
    assert first.status_code == 201
    made = keyed.send(world.api)
    assert made.status_code == 201
    assert made.json()["game_id"] != first.json()["game_id"]
    # And what is kept is not given to who only tries.
    again = dry(keyed).send(world.api)
    assert again.headers["X-Dry-Run"] == "true"


def test_codes_that_are_tried_are_counted(world: World) -> None:
    person = world.person()
    code = "0123456789ABCDEFGHJKMNPQRS"
    request = Request(
        "POST", "/api/v1/user/lobby/invites/redeem", {"code": code, "race_name": games.new_race()}, headers=person.header
    )
    note_secret(code)
    answers = [dry(request).send(world.api) for _ in range(21)]
    assert [a.status_code for a in answers] == [404] * 20 + [429]
    assert int(answers[-1].headers["Retry-After"]) > 3000


@pytest.mark.parametrize("value", ["1", "TRUE", "", "yes", "true&dry_run=true"])
def test_what_is_neither_true_nor_false_is_refused(value: str, world: World) -> None:
    request = right(world, document().operation("game_cancel"))
    answer = world.api.client.post(f"{request.path}?dry_run={value}", headers=request.headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


def test_a_command_that_takes_no_body_takes_none(world: World) -> None:
    request = right(world, document().operation("game_cancel"))
    for content in (b"[]", b'{"reason": "x"}', b"x", b"{} {}"):
        answer = world.api.client.post(request.path, headers=request.headers, content=content)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), content
    chunked = world.api.client.post(request.path, headers=request.headers, content=iter([b'{"a"', b": 1}"]))
    assert chunked.status_code == 400
    # Nothing to say, as many clients say it.
    assert world.api.client.post(request.path, headers=request.headers, content=b"{}").status_code == 200
