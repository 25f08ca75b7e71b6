"""Sessions through the API: seen by the gateway, listed and revoked by their owners."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.postgres import Database
from tests.services import Api, Person, add_session, delete_account, sanction, sign_in

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def db(shared_database: Database) -> Iterator[psycopg.Connection[Any]]:
    with shared_database.cluster.connect(shared_database.name, options="-csearch_path=backend") as connection:
        yield connection


@pytest.fixture
def person(shared_api: Api, shared_database: Database) -> Person:
    return sign_in(shared_api, shared_database)


def get(api: Api, session_id: str) -> dict[str, Any]:
    answer = api.client.get(f"/api/v1/internal/sessions/{session_id}", headers=api.internal)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events(db: psycopg.Connection[Any], user_id: str) -> list[tuple[Any, ...]]:
    return db.execute(
        "SELECT device_session_id::text, reason, request_id, trace_id FROM push_pending WHERE user_id = %s ORDER BY pending_id",
        [user_id],
    ).fetchall()


def test_the_gateway_sees_what_it_needs(shared_api: Api, person: Person) -> None:
    assert get(shared_api, person.device_session_id) == {
        "device_session_id": person.device_session_id,
        "user_id": person.user_id,
        "kind": "key",
        "status": "active",
        "client_public_key": person.public_key,
        "created_at": get(shared_api, person.device_session_id)["created_at"],
        "revoked_at": None,
        "revoke_reason": None,
    }


def test_what_the_gateway_sees_keeps_its_bytes_until_it_changes(
    shared_api: Api, person: Person, db: psycopg.Connection[Any]
) -> None:
    path = f"/api/v1/internal/sessions/{person.device_session_id}"
    first = shared_api.client.get(path, headers=shared_api.internal)
    db.execute("UPDATE device_sessions SET last_seen_at = now() WHERE device_session_id = %s", [person.device_session_id])
    seen = shared_api.client.get(path, headers={**shared_api.internal, "If-None-Match": first.headers["ETag"]})
    assert seen.status_code == 304
    shared_api.client.post(f"{path}/revoke", headers=shared_api.internal)
    revoked = shared_api.client.get(path, headers={**shared_api.internal, "If-None-Match": first.headers["ETag"]})
    assert (revoked.status_code, revoked.json()["status"]) == (200, "revoked")


@pytest.mark.parametrize("reason", [None, "logout", "revoked_by_user", "revoked_by_admin", "account_deleted", "account_blocked"])
def test_the_gateway_revokes_for_a_reason(
    reason: str | None, shared_api: Api, person: Person, db: psycopg.Connection[Any]
) -> None:
    path = f"/api/v1/internal/sessions/{person.device_session_id}/revoke"
    headers = {**shared_api.internal, "X-Request-ID": "revoke-0001", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
    body = {} if reason is None else {"reason": reason}
    answer = shared_api.client.post(path, json=body, headers=headers)
    expected = reason or "logout"
    assert (answer.json()["status"], answer.json()["revoke_reason"]) == ("revoked", expected)
    assert events(db, person.user_id) == [(person.device_session_id, expected, "revoke-0001", TRACE)]
    again = shared_api.client.post(path, json={"reason": "revoked_by_admin"}, headers=shared_api.internal)
    assert again.json() == answer.json(), "revoking again changes nothing, neither time nor reason"
    assert len(events(db, person.user_id)) == 1
    assert get(shared_api, person.device_session_id) == answer.json()


def test_an_unknown_reason_is_refused(shared_api: Api, person: Person, db: psycopg.Connection[Any]) -> None:
    path = f"/api/v1/internal/sessions/{person.device_session_id}/revoke"
    for reason in ("", "expired", "LOGOUT", 1):
        assert shared_api.client.post(path, json={"reason": reason}, headers=shared_api.internal).status_code == 400
    assert get(shared_api, person.device_session_id)["status"] == "active"
    assert events(db, person.user_id) == []


def test_revoking_all_is_one_event(shared_api: Api, person: Person, db: psycopg.Connection[Any]) -> None:
    others = [add_session(db, person.user_id) for _ in range(3)]
    path = f"/api/v1/internal/sessions/users/{person.user_id}/revoke-all"
    assert shared_api.client.post(path, json={"reason": "revoked_by_admin"}, headers=shared_api.internal).json() == {"revoked": 4}
    assert [e[:2] for e in events(db, person.user_id)] == [(None, "revoked_by_admin")]
    assert {get(shared_api, s)["revoke_reason"] for s in (person.device_session_id, *others)} == {"revoked_by_admin"}
    assert shared_api.client.post(path, headers=shared_api.internal).json() == {"revoked": 0}
    assert len(events(db, person.user_id)) == 1, "there was nothing to tell"


def test_people_see_and_revoke_their_own(shared_api: Api, person: Person, db: psycopg.Connection[Any]) -> None:
    # One that the gateway has never asked for.
    unseen = add_session(db, person.user_id)
    other = add_session(db, person.user_id)
    db.execute("UPDATE device_sessions SET last_seen_at = created_at WHERE device_session_id = %s", [other])
    items = shared_api.client.get("/api/v1/user/account/sessions", headers=person.header).json()["items"]
    assert [item["device_session_id"] for item in items] == [other, unseen, person.device_session_id]
    assert items[0]["last_seen_at"] == items[0]["created_at"]
    assert items[1]["last_seen_at"] is None

    path = f"/api/v1/user/account/sessions/{other}/revoke"
    answer = shared_api.client.post(path, headers=person.header)
    assert (answer.json()["status"], answer.json()["revoke_reason"]) == ("revoked", "revoked_by_user")
    assert shared_api.client.post(path, headers=person.header).json() == answer.json()
    assert events(db, person.user_id)[0][:2] == (other, "revoked_by_user")
    # Revoked ones stay in the list.
    items = shared_api.client.get("/api/v1/user/account/sessions", headers=person.header).json()["items"]
    assert [item["status"] for item in items] == ["revoked", "active", "active"]

    all_path = "/api/v1/user/account/sessions/revoke-all"
    assert shared_api.client.post(all_path, headers=person.header).json() == {"revoked": 2}
    assert shared_api.client.post(all_path, headers=person.header).json() == {"revoked": 0}
    assert [e[:2] for e in events(db, person.user_id)] == [(other, "revoked_by_user"), (None, "revoked_by_user")]


def test_somebody_elses_session_is_not_there(
    shared_api: Api, shared_database: Database, person: Person, db: psycopg.Connection[Any]
) -> None:
    stranger = sign_in(shared_api, shared_database)
    theirs = f"/api/v1/user/account/sessions/{stranger.device_session_id}/revoke"
    nobodys = f"/api/v1/user/account/sessions/{uuid.uuid4()}/revoke"
    answers = [shared_api.client.post(path, headers=person.header) for path in (theirs, nobodys)]
    told = [(a.status_code, {k: v for k, v in a.json()["error"].items() if k != "request_id"}) for a in answers]
    assert told[0] == told[1] == (404, {"code": "session_not_found", "message": "There is no such session.", "details": {}})
    assert get(shared_api, stranger.device_session_id)["status"] == "active"
    assert events(db, stranger.user_id) == []
    items = shared_api.client.get("/api/v1/user/account/sessions", headers=person.header).json()["items"]
    assert stranger.device_session_id not in [item["device_session_id"] for item in items]


def test_the_gateway_sees_accounts_whatever_their_state(
    shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    def state(someone: Person) -> tuple[Any, ...]:
        path = f"/api/v1/internal/users/{someone.user_id}/account-internal"
        found = shared_api.client.get(path, headers=shared_api.internal).json()
        return found["permanent_block"], found["login_blocked"], found["deleted_at"] is not None, found["email"] is not None

    people = [sign_in(shared_api, shared_database) for _ in range(5)]
    sanction(db, people[1].user_id, "login_block")
    sanction(db, people[2].user_id, "permanent_block")
    delete_account(db, people[3].user_id)
    sanction(db, people[4].user_id, "login_block", "-1 second")
    assert [state(p) for p in people] == [
        (False, False, False, True),
        (False, True, False, True),
        (True, False, False, True),
        (False, False, True, False),
        (False, False, False, True),
    ]
    # A revoked session of a closed account is still told.
    assert get(shared_api, people[2].device_session_id)["revoke_reason"] == "account_blocked"
    assert get(shared_api, people[3].device_session_id)["revoke_reason"] == "account_deleted"


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [("deleted", 403, "account_deleted"), ("permanent_block", 403, "account_blocked"), ("login_block", 403, "sanctioned")],
)
def test_a_closed_account_does_nothing_in_its_own_name(
    change: str, status: int, code: str, shared_api: Api, person: Person, db: psycopg.Connection[Any]
) -> None:
    other = add_session(db, person.user_id)
    if change == "deleted":
        delete_account(db, person.user_id)
    else:
        sanction(db, person.user_id, change)
    revoked_before = get(shared_api, other)["status"]
    for method, path in (
        ("GET", "/api/v1/user/account"),
        ("GET", "/api/v1/user/account/sessions"),
        ("POST", f"/api/v1/user/account/sessions/{other}/revoke"),
        ("POST", "/api/v1/user/account/sessions/revoke-all"),
    ):
        answer = shared_api.client.request(method, path, headers=person.header)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), path
    assert get(shared_api, other)["status"] == revoked_before


def test_sanctions_of_another_kind_and_those_that_are_over_close_nothing(
    shared_api: Api, person: Person, db: psycopg.Connection[Any]
) -> None:
    sanction(db, person.user_id, "game_join_block")
    sanction(db, person.user_id, "login_block", "-1 microsecond")
    found = shared_api.client.get("/api/v1/user/account", headers=person.header)
    assert found.status_code == 200
    assert [s["code"] for s in found.json()["sanctions"]] == ["game_join_block"]


def test_an_event_is_committed_with_its_cause(shared_api: Api, person: Person, db: psycopg.Connection[Any]) -> None:
    """What fails at the last moment leaves neither a revoked session nor an event."""
    db.execute(
        """
        CREATE FUNCTION backend.refuse_event() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'GX409', MESSAGE = 'conflict', DETAIL = 'Not now.'; END; $$
        """
    )
    db.execute(
        f"""
        CREATE CONSTRAINT TRIGGER refuse_event AFTER INSERT ON push_pending DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW WHEN (NEW.user_id = '{person.user_id}') EXECUTE FUNCTION backend.refuse_event()
        """
    )
    try:
        url = f"{shared_api.url}/api/v1/internal/sessions/{person.device_session_id}/revoke"
        answer = httpx.post(url, headers=shared_api.internal)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    finally:
        db.execute("DROP TRIGGER refuse_event ON push_pending")
        db.execute("DROP FUNCTION backend.refuse_event()")
    assert get(shared_api, person.device_session_id)["status"] == "active"
    assert events(db, person.user_id) == []
