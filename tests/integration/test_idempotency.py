"""Commands that create are done once under a key, whoever sends them again and whatever ends in between."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from tests.contract.games import creation, make_game, new_version
from tests.contract.requests import World
from tests.contract.wire import request, volley
from tests.postgres import Database
from tests.services import Api, Person, note_secret, travel, until

GAMES = "/api/v1/user/lobby/games"
WAITING = "SELECT FROM pg_stat_activity WHERE datname = %s AND usename = 'galaxy_api' AND wait_event_type = 'Lock'"
CALLING = "SELECT FROM pg_stat_activity WHERE datname = %s AND usename = 'galaxy_api'"


@pytest.fixture
def world(api: Api, database: Database) -> World:
    return World(api, database)


@pytest.fixture
def db(world: World) -> Iterator[psycopg.Connection[Any]]:
    with world.connect() as connection:
        yield connection


def create(world: World, person: Person, body: Any, key: str | None) -> httpx.Response:
    headers = {**person.header, **({} if key is None else {"Idempotency-Key": key})}
    return world.api.client.post(GAMES, json=body, headers=headers)


def count(db: psycopg.Connection[Any], query: str, *parameters: Any) -> int:
    row = db.execute(f"SELECT count(*) FROM {query}", parameters).fetchone()
    assert row is not None
    return int(row[0])


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_the_same_request_gets_the_same_answer_and_nothing_is_done_again(world: World, db: psycopg.Connection[Any]) -> None:
    person, body = world.person(), creation(new_version(db))
    first = create(world, person, body, "a key")
    assert first.status_code == 201, first.text
    # The order of the fields means nothing.
    again = create(world, person, dict(reversed(body.items())), "a key")
    assert (again.status_code, again.content, again.headers["Location"]) == (201, first.content, first.headers["Location"])
    shouting = {"X-User-ID": person.user_id.upper(), "Idempotency-Key": "a key"}
    assert world.api.client.post(GAMES, json=body, headers=shouting).content == first.content
    assert count(db, "games") == 1
    assert code(create(world, person, {**body, "game_name": "Another"}, "a key")) == (409, "idempotency_conflict")
    # The free tier has one; without the key the rules answer.
    assert code(create(world, person, body, None)) == (422, "limit_reached")
    assert create(world, world.person(), {**body, "race_name": "Other"}, "a key").status_code == 201, (
        "another caller's key is another"
    )
    assert count(db, "games") == 2


def test_a_refusal_is_not_kept(world: World, db: psycopg.Connection[Any]) -> None:
    new_version(db)
    person, body = world.person(), creation("")
    del body["target_engine_version"]
    db.execute("UPDATE engine_versions SET enabled = false")
    for _ in range(2):
        assert code(create(world, person, body, "k")) == (422, "engine_version_unavailable")
    assert count(db, "idempotency_keys") == 0
    db.execute("UPDATE engine_versions SET enabled = true")
    assert create(world, person, body, "k").status_code == 201


def test_what_was_shown_once_is_null_the_second_time(world: World, db: psycopg.Connection[Any]) -> None:
    game = make_game(world)
    path = f"{GAMES}/{game.game_id}/invites"
    headers = {**game.owner.header, "Idempotency-Key": "invite"}
    first = world.api.client.post(path, json={}, headers=headers).json()
    note_secret(first["code"])
    again = world.api.client.post(path, json={}, headers=headers)
    assert (again.status_code, again.json()) == (201, {**first, "code": None})

    path = "/api/v1/internal/identities/telegram/sessions"
    headers = {**world.api.internal, "Idempotency-Key": "session"}
    opened = world.api.client.post(path, json={"subject": "4711"}, headers=headers).json()
    note_secret(opened["token"])
    again = world.api.client.post(path, json={"subject": "4711"}, headers=headers)
    assert (again.status_code, again.json()) == (200, {**opened, "token": None})
    assert count(db, "device_sessions WHERE kind = 'token'") == 1
    kept = db.execute("SELECT string_agg(k::text, ' ') FROM idempotency_keys AS k").fetchone()
    assert kept is not None
    assert opened["token"] not in kept[0]
    assert first["code"] not in kept[0]
    assert {row[0] for row in db.execute("SELECT caller FROM idempotency_keys")} == {game.owner.user_id, "internal"}


def test_an_administrator_has_keys(world: World, db: psycopg.Connection[Any]) -> None:
    path, body = "/api/v1/admin/engine-versions", {"version": "1.2.3", "image_ref": "dev-engine:1.2.3"}
    headers = {**world.api.admin, "Idempotency-Key": "k"}
    answers = [world.api.client.post(path, json=body, headers=headers) for _ in range(2)]
    assert [a.status_code for a in answers] == [201, 201]
    assert answers[0].content == answers[1].content
    assert count(db, "audit_log WHERE action = 'engine_version_create'") == 1


def test_a_key_is_good_for_a_day(world: World, db: psycopg.Connection[Any]) -> None:
    headers, body = {**world.api.admin, "Idempotency-Key": "k"}, {"version": "1.2.3", "image_ref": "dev-engine:1.2.3"}

    def post(**changes: str) -> httpx.Response:
        return world.api.client.post("/api/v1/admin/engine-versions", json={**body, **changes}, headers=headers)

    assert post().status_code == 201
    travel(db, "23 hours 59 minutes")
    assert post().status_code == 201
    travel(db, "1 minute")
    assert code(post()) == (409, "engine_version_exists")
    assert post(version="1.2.4").status_code == 201
    assert code(post()) == (409, "idempotency_conflict")
    assert count(db, "idempotency_keys") == 1


@pytest.mark.parametrize("key", ["", "k" * 129, "k\u00e9".encode(), "k\tk"])
def test_a_malformed_key_is_refused_and_named(key: str | bytes, world: World, db: psycopg.Connection[Any]) -> None:
    raw = key if isinstance(key, bytes) else key.encode()
    headers = [(b"X-User-ID", world.person().user_id.encode()), (b"Idempotency-Key", raw)]
    answer = world.api.client.post(GAMES, json=creation(new_version(db)), headers=headers)
    assert code(answer) == (400, "invalid_request")
    assert {p["path"] for p in answer.json()["error"]["details"]} == {"Idempotency-Key"}
    assert count(db, "games") == 0


def test_the_public_group_ignores_a_key(world: World, db: psycopg.Connection[Any]) -> None:
    headers = {"Idempotency-Key": "k" * 500}
    for email in ("ann@example.org", "bob@example.org"):
        answer = world.api.client.post("/api/v1/public/auth/send-email-code", json={"email": email}, headers=headers)
        assert answer.status_code == 200
    assert count(db, "idempotency_keys") == 0


@pytest.mark.xdist_group("four")
def test_of_many_at_once_one_does_it_and_all_get_the_answer(four_apis: list[Api], shared_database: Database) -> None:
    world = World(four_apis[0], shared_database)
    with world.connect() as connection:
        version = new_version(connection)
        for _ in range(5):
            person = world.person()
            headers = {**person.header, "Idempotency-Key": secrets.token_hex(64)}
            body = creation(version)
            answers = volley([a.address for a in four_apis], [request("POST", GAMES, body, headers)] * 12)
            assert {a.status for a in answers} == {201}, [a.body for a in answers]
            assert len({a.body for a in answers}) == 1
            assert len({a.headers["Location"] for a in answers}) == 1
            assert count(connection, "games WHERE owner_user_id = %s", person.user_id) == 1


def test_a_crash_in_mid_call_leaves_neither_effect_nor_answer(
    world: World, db: psycopg.Connection[Any], database: Database, start_api: Callable[..., Api]
) -> None:
    person, body = world.person(), creation(new_version(db))
    raw = {**person.header, "Idempotency-Key": "k"}
    with ThreadPoolExecutor(1) as pool, world.connect() as holder:
        holder.autocommit = False
        holder.execute("SELECT FROM accounts WHERE user_id = %s FOR UPDATE", [person.user_id])
        asked = pool.submit(httpx.post, f"{world.api.url}{GAMES}", json=body, headers=raw, timeout=30)
        until(lambda: db.execute(WAITING, [database.name]).fetchall())
        world.api.kill()
        assert isinstance(asked.exception(30), httpx.TransportError)
        holder.rollback()
    until(lambda: not db.execute(CALLING, [database.name]).fetchall())
    assert (count(db, "games"), count(db, "idempotency_keys")) == (0, 0)
    another = World(start_api(database), database)
    first = create(another, person, body, "k")
    assert first.status_code == 201, first.text
    assert create(another, person, body, "k").content == first.content
    assert count(db, "games") == 1
