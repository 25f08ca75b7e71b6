"""Sessions through four processes: a revocation is seen by all of them at once, and happens once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from tests.contract.wire import Answer, request, volley
from tests.postgres import Database
from tests.services import (
    Api,
    Person,
    add_session,
    confirmation,
    delete_account,
    new_email,
    read_code,
    sanction,
    send_code,
    sign_in,
    until,
)

pytestmark = pytest.mark.xdist_group("four")

CONFIRM = "/api/v1/public/auth/confirm-email-code"


@pytest.fixture
def db(shared_database: Database) -> Iterator[psycopg.Connection[Any]]:
    with shared_database.cluster.connect(shared_database.name, options="-csearch_path=backend") as connection:
        yield connection


def rows(db: psycopg.Connection[Any], query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    return db.execute(query, parameters).fetchall()


def status(client: httpx.Client, api: Api, session_id: str) -> str:
    return str(client.get(f"/api/v1/internal/sessions/{session_id}", headers=api.internal).json()["status"])


def test_a_revocation_is_seen_by_every_process_at_once(four_apis: list[Api], shared_database: Database) -> None:
    clients = [api.new_client() for api in four_apis]
    try:
        for revoking in range(4):
            person = sign_in(four_apis[0], shared_database)
            for _ in range(3):
                # Each has it at hand, whatever that may mean to it.
                assert {status(c, a, person.device_session_id) for c, a in zip(clients, four_apis, strict=True)} == {"active"}
            path = f"/api/v1/internal/sessions/{person.device_session_id}/revoke"
            clients[revoking].post(path, headers=four_apis[revoking].internal)
            assert [status(c, a, person.device_session_id) for c, a in zip(clients, four_apis, strict=True)] == ["revoked"] * 4
    finally:
        for client in clients:
            client.close()


def test_two_who_revoke_at_once_tell_the_gateways_once(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    api = four_apis[0]
    for _ in range(5):
        person = sign_in(api, shared_database)
        gateway = request(
            "POST", f"/api/v1/internal/sessions/{person.device_session_id}/revoke", {"reason": "logout"}, api.internal
        )
        owner = request("POST", f"/api/v1/user/account/sessions/{person.device_session_id}/revoke", headers=person.header)
        answers = volley([a.address for a in four_apis], [gateway, owner] * 6)
        assert {a.status for a in answers} == {200}
        assert len({a.body for a in answers}) == 1, "all are told the same session"
        assert len(rows(db, "SELECT FROM push_pending WHERE user_id = %s", person.user_id)) == 1


def test_revoking_all_at_once_counts_each_session_once(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    api = four_apis[0]
    for _ in range(3):
        person = sign_in(api, shared_database)
        sessions = [person.device_session_id] + [add_session(db, person.user_id) for _ in range(9)]
        everything = request("POST", f"/api/v1/internal/sessions/users/{person.user_id}/revoke-all", headers=api.internal)
        single = [request("POST", f"/api/v1/internal/sessions/{s}/revoke", headers=api.internal) for s in sessions]
        mine = request("POST", "/api/v1/user/account/sessions/revoke-all", headers=person.header)
        answers = volley([a.address for a in four_apis], [*single, everything, mine, everything])
        assert {a.status for a in answers} == {200}
        counted = sum(a.json()["revoked"] for a in answers[10:])
        alone = rows(db, "SELECT FROM push_pending WHERE user_id = %s AND device_session_id IS NOT NULL", person.user_id)
        together = rows(db, "SELECT FROM push_pending WHERE user_id = %s AND device_session_id IS NULL", person.user_id)
        assert counted + len(alone) == 10
        assert len(together) == sum(a.json()["revoked"] > 0 for a in answers[10:])
        assert rows(db, "SELECT DISTINCT status FROM device_sessions WHERE user_id = %s", person.user_id) == [("revoked",)]


def test_no_session_that_was_open_before_survives_revoking_all(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    """A sign-in beside revoke-all is either before it, and revoked with the others, or after it."""
    api = four_apis[0]
    seen = set()
    for turn in range(12):
        email = new_email()
        person = sign_in(api, shared_database, email)
        challenge_id = send_code(api, email)
        body = confirmation(challenge_id, read_code(shared_database, challenge_id))
        opening = request("POST", CONFIRM, body)
        closing = request("POST", f"/api/v1/internal/sessions/users/{person.user_id}/revoke-all", headers=api.internal)
        both = [opening, closing] if turn % 2 else [closing, opening]
        answers = volley([a.address for a in four_apis], both)
        opened, closed = (answers[0], answers[1]) if turn % 2 else (answers[1], answers[0])
        new = opened.json()["device_session_id"]
        count = closed.json()["revoked"]
        seen.add(count)
        states = dict(rows(db, "SELECT device_session_id::text, status FROM device_sessions WHERE user_id = %s", person.user_id))
        assert states == {person.device_session_id: "revoked", new: "revoked" if count == 2 else "active"}
    assert seen <= {1, 2}


def beside(change: Callable[[psycopg.Connection[Any], str], None], api: Api, database: Database) -> tuple[Person, Answer]:
    """Confirm a right code while a transaction that has locked the account changes it."""
    person = sign_in(api, database)
    challenge_id = send_code(api, person.email)
    body = request("POST", CONFIRM, confirmation(challenge_id, read_code(database, challenge_id)))
    with (
        database.cluster.connect(database.name, options="-csearch_path=backend") as connection,
        database.cluster.connect(database.name) as watching,
        ThreadPoolExecutor(1) as pool,
    ):
        with connection.transaction():
            connection.execute("SELECT FROM accounts WHERE user_id = %s FOR NO KEY UPDATE", [person.user_id])
            opening = pool.submit(volley, [api.address], [body])
            until(lambda: watching.execute(WAITING, [database.name]).fetchone())
            change(connection, person.user_id)
        (answer,) = opening.result()
    return person, answer


WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND usename = 'galaxy_api' AND wait_event_type = 'Lock'"

ACTIVE = "SELECT FROM backend.device_sessions WHERE user_id = %s AND status = 'active'"


def test_a_sign_in_beside_a_block_leaves_no_open_session(api: Api, database: Database) -> None:
    """The account is locked by both: the block sees the new session, or the sign-in sees the block."""
    person, answer = beside(lambda c, user_id: sanction(c, user_id, "permanent_block"), api, database)
    assert (answer.status, answer.json()["error"]["code"]) == (403, "account_blocked")
    assert rows(database.connect(), ACTIVE, person.user_id) == []


def test_a_sign_in_beside_a_deletion_opens_nothing_of_the_deleted(api: Api, database: Database) -> None:
    """Its codes went with the account: nobody is let in by one that was sent to it."""
    person, answer = beside(delete_account, api, database)
    assert rows(database.connect(), ACTIVE, person.user_id) == [], "a session of a deleted account is open"
    assert (answer.status, answer.json()["error"]["code"]) == (400, "invalid_code")
    assert rows(database.connect(), "SELECT FROM identities WHERE subject = %s", person.email) == []
