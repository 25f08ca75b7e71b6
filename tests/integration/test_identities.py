"""Ways in of other providers, and bearer tokens, through the API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.identities import add_telegram, new_subject, new_token
from tests.contract.requests import World
from tests.contract.wire import request, volley
from tests.postgres import Database
from tests.services import Api, Person, delete_account, new_email, note_secret

OPEN = "/api/v1/internal/identities/telegram/sessions"
RESOLVE = "/api/v1/internal/sessions/resolve"


@pytest.fixture
def world(shared_api: Api, shared_database: Database) -> World:
    return World(shared_api, shared_database)


def sign_in_by_telegram(api: Api, subject: str, **more: Any) -> dict[str, Any]:
    answer = api.client.post(OPEN, json={"subject": subject, **more.pop("body", {})}, headers={**api.internal, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    note_secret(found["token"])
    return found


def resolve(api: Api, token: str) -> dict[str, Any]:
    answer = api.client.post(RESOLVE, json={"token": token}, headers=api.internal)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_token_opens_what_it_was_made_for_and_is_kept_nowhere(world: World) -> None:
    api = world.api
    opened = sign_in_by_telegram(api, new_subject(), **{"X-Forwarded-For": "192.0.2.1"})
    session = resolve(api, opened["token"])
    assert (session["device_session_id"], session["user_id"]) == (opened["device_session_id"], opened["user_id"])
    assert (session["kind"], session["status"], session["client_public_key"]) == ("token", "active", None)
    path = f"/api/v1/internal/sessions/{opened['device_session_id']}"
    assert api.client.get(path, headers=api.internal).json() == session
    account = api.client.get("/api/v1/user/account", headers={"X-User-ID": opened["user_id"]}).json()
    assert account["declared_country"] == "DE"
    api.client.post(f"{path}/revoke", headers=api.internal)
    assert resolve(api, opened["token"])["status"] == "revoked"
    with world.connect() as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'backend'").fetchall()
        for (table,) in tables:
            (count,) = connection.execute(
                f'SELECT count(*) FROM "{table}" AS t WHERE strpos(t::text, %s) > 0', [opened["token"]]
            ).fetchone() or (None,)
            assert count == 0, table


def test_a_token_is_one_or_is_refused_by_its_shape(world: World) -> None:
    token = new_token()
    for wrong in (token[:-1], token + "A", token[:-1] + "B", token[:-1] + "=", token.replace(token[0], "+"), "", " " + token):
        answer = world.api.client.post(RESOLVE, json={"token": wrong}, headers=world.api.internal)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request"), wrong
        assert not wrong.strip() or wrong.strip() not in answer.text
    assert world.api.client.post(RESOLVE, json={"token": token}, headers=world.api.internal).status_code == 404


@pytest.mark.parametrize(
    "name",
    [
        "\u200b",
        "\u2060",
        "\u3164",
        "\u2800",
        "\u180e",
        "\u00ad",
        "\ufeff",
        "\U000e0041",
        "   ",
        "x" * 65,
        "\u00a0Bob",
        "Bob\u00a0",
    ],
)
def test_no_name_keeps_anybody_out(name: str, world: World) -> None:
    subject = new_subject()
    first = sign_in_by_telegram(world.api, subject, body={"display_name": name})
    account = world.api.client.get("/api/v1/user/account", headers={"X-User-ID": first["user_id"]}).json()
    assert account["display_name"] == ("Bob" if "Bob" in name else account["user_name"])
    assert not sign_in_by_telegram(world.api, subject, body={"display_name": name})["created"]


def test_after_a_deletion_a_way_in_leads_to_a_new_account(world: World) -> None:
    subject = new_subject()
    first = sign_in_by_telegram(world.api, subject)
    again = sign_in_by_telegram(world.api, subject)
    assert (first["created"], again["created"], again["user_id"]) == (True, False, first["user_id"])
    with world.connect() as connection:
        delete_account(connection, first["user_id"])
    anew = sign_in_by_telegram(world.api, subject)
    assert anew["created"]
    assert anew["user_id"] != first["user_id"]


def test_ways_in_are_linked_and_unlinked(world: World) -> None:
    client, person = world.api.client, world.person()
    path = f"/api/v1/internal/users/{person.user_id}/identities"
    subject = new_subject()
    linked = client.post(path, json={"provider": "telegram", "subject": subject}, headers=world.api.internal)
    assert (linked.status_code, linked.json()) == (201, {"provider": "telegram", "subject": subject})
    assert sign_in_by_telegram(world.api, subject)["user_id"] == person.user_id
    assert client.delete(f"{path}/email", headers=world.api.internal).status_code == 204
    assert client.get("/api/v1/user/account", headers=person.header).json()["email"] is None
    email = new_email()
    client.post(path, json={"provider": "email", "subject": f" {email.upper()}"}, headers=world.api.internal)
    assert client.get("/api/v1/user/account", headers=person.header).json()["email"] == email


@pytest.mark.xdist_group("four")
def test_fifty_who_come_at_once_for_the_first_time_are_one_person(four_apis: list[Api], shared_database: Database) -> None:
    body = {"subject": new_subject(), "display_name": "Ann"}
    answers = volley([a.address for a in four_apis], [request("POST", OPEN, body, four_apis[0].internal)] * 50)
    assert {a.status for a in answers} == {200}, [a.body for a in answers if a.status != 200]
    found = [a.json() for a in answers]
    note_secret(*(f["token"] for f in found))
    assert len({f["user_id"] for f in found}) == 1
    assert sum(f["created"] for f in found) == 1
    assert len({f["device_session_id"] for f in found}) == len({f["token"] for f in found}) == 50


def _identities(world: World, person: Person) -> int:
    with world.connect() as connection:
        row = connection.execute("SELECT count(*) FROM identities WHERE user_id = %s", [person.user_id]).fetchone()
    assert row is not None
    return int(row[0])


@pytest.mark.xdist_group("four")
def test_of_two_who_unlink_at_once_one_leaves_the_last(four_apis: list[Api], shared_database: Database) -> None:
    world = World(four_apis[0], shared_database)
    for _ in range(10):
        person = world.person()
        add_telegram(world, person.user_id)
        path = f"/api/v1/internal/users/{person.user_id}/identities"
        both = [request("DELETE", f"{path}/{provider}", headers=world.api.internal) for provider in ("email", "telegram")]
        answers = volley([a.address for a in four_apis], both * 2)
        assert sorted(a.status for a in answers)[:1] == [204]
        assert sum(a.status == 204 for a in answers) == 1
        assert _identities(world, person) == 1


@pytest.mark.xdist_group("four")
def test_of_many_who_link_one_way_in_at_once_one_has_it(four_apis: list[Api], shared_database: Database) -> None:
    world = World(four_apis[0], shared_database)
    body = {"provider": "telegram", "subject": new_subject()}
    paths = [f"/api/v1/internal/users/{world.person().user_id}/identities" for _ in range(8)]
    answers = volley([a.address for a in four_apis], [request("POST", p, body, world.api.internal) for p in paths * 2])
    assert sorted({a.status for a in answers}) == [201, 409]
    assert sum(a.status == 201 for a in answers) == 2, "and may say so twice"
