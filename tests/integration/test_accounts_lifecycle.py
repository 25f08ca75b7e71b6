"""Accounts from their creation to their end: what a deletion leaves, what races with it, and thirty days of moderation."""

from __future__ import annotations

import base64
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from tests.contract.games import call, make_game, new_race
from tests.contract.requests import World
from tests.postgres import Database
from tests.services import Api, add_session, confirm, new_email, read_code, send_code, sign_in, simultaneously, travel

SUBJECT = "telegram-471147114711"
NAME = "Ann of Green Gables"


def holding(connection: psycopg.Connection[Any], needles: list[bytes]) -> set[tuple[str, str]]:
    """Every column of every table that holds one of these, as text or as bytes."""
    columns = connection.execute(
        """
        SELECT c.table_schema, c.table_name, c.column_name FROM information_schema.columns AS c
          JOIN information_schema.tables AS t USING (table_schema, table_name)
         WHERE c.table_schema IN ('backend', 'procrastinate') AND t.table_type = 'BASE TABLE'
        """
    ).fetchall()
    assert len(columns) > 200
    found = set()
    for schema, table, column in columns:
        values = connection.execute(f'SELECT "{column}"::text FROM "{schema}"."{table}" WHERE "{column}" IS NOT NULL').fetchall()
        for (value,) in values:
            # Bytes are shown in hexadecimal.
            if any(n in value.encode() or n.hex() in value for n in needles):
                found.add((table, column))
    return found


def test_a_deletion_leaves_nothing_that_leads_to_the_person(api: Api, database: Database) -> None:
    world = World(api, database)
    ann = sign_in(api, database)
    game = make_game(world, ann, "enrollment_open")
    other = make_game(world, None, "enrollment_open")
    other.call("api.invite_create", other.owner.user_id, other.game_id, json.dumps({"invited_user_id": ann.user_id}), None, None)
    api.client.patch("/api/v1/user/account/profile", json={"display_name": NAME}, headers=ann.header).raise_for_status()
    # An address that was theirs once, with a code that was used and one that was not.
    path = f"/api/v1/internal/users/{ann.user_id}/identities"
    api.client.post(path, json={"provider": "telegram", "subject": SUBJECT}, headers=api.internal).raise_for_status()
    send_code(api, ann.email)
    with world.connect() as connection:
        connection.execute("SELECT worker.notification_routes_deliver(100, 'operators@example.org')")
    assert api.client.delete(f"{path}/email", headers=api.internal).status_code == 204
    first, ann = ann.email, replace(ann, email=new_email())
    api.client.post(path, json={"provider": "email", "subject": ann.email}, headers=api.internal).raise_for_status()
    for _ in range(3):
        send_code(api, ann.email)
    with world.connect() as connection:
        add_session(connection, ann.user_id)
        # Mail that is sent, that is given up, and whose relay repeats the address.
        claimed = connection.execute("SELECT delivery_id, attempt_no, recipients FROM worker.mail_claim(100, 60, 0)").fetchall()
        mine = [(delivery_id, attempt_no) for delivery_id, attempt_no, recipients in claimed if recipients == [ann.email]]
        assert len(mine) >= 3
        for number, (delivery_id, attempt_no) in enumerate(mine):
            outcome = ("permanent", "transient", "sent")[number % 3]
            connection.execute(
                "SELECT worker.mail_report(%s, %s, %s, %s)", [delivery_id, attempt_no, outcome, f"550 <{ann.email}> is unknown"]
            )
        api.client.post(
            f"/api/v1/admin/users/{ann.user_id}/sanctions",
            json={"code": "diplomail_block", "reason": "A test"},
            headers=api.admin,
        ).raise_for_status()
        needles = [first.encode(), ann.email.encode(), NAME.encode(), SUBJECT.encode(), base64.b64decode(ann.public_key)]
        assert {
            ("accounts", "email"),
            ("accounts", "display_name"),
            ("identities", "subject"),
            ("mail_attempts", "error"),
        } <= holding(connection, needles), "the search finds what is there"
        assert api.client.post("/api/v1/user/account/delete", headers=ann.header).status_code == 204
        assert holding(connection, needles) == set()
        row = connection.execute("SELECT status FROM games WHERE game_id = %s", [game.game_id]).fetchone()
        assert row == ("cancelled",)
    assert api.client.post("/api/v1/user/account/delete", headers=ann.header).status_code == 403
    # The address is somebody new's.
    again = sign_in(api, database, ann.email)
    assert again.user_id != ann.user_id
    assert api.client.get("/api/v1/user/account", headers=again.header).json()["display_name"] != NAME


def answer(database: Database, function: str, *arguments: Any) -> str:
    """What a function of the API's door answers: done, or why not."""
    with database.cluster.connect(database.name, "galaxy_api") as connection:
        try:
            call(connection, function, *arguments)
        except psycopg.Error as error:
            return str(error.diag.message_primary)
        return "done"


@pytest.mark.parametrize("how", ["my_account_delete", "permanent_block"])
def test_closing_an_account_beside_all_that_it_does(how: str, api: Api, database: Database) -> None:
    """Whichever comes first: nothing is left with a closed account (the invariants say so), and nobody waits in a circle."""
    world = World(api, database)
    found: Counter[str] = Counter()
    for _ in range(4):
        owned = make_game(world, None, "ready_to_start")
        owner = owned.owner
        joined = make_game(world, None, "enrollment_open")
        invite_id = joined.invite(owner)
        second = make_game(world, None, "enrollment_open")
        block = json.dumps({"code": "permanent_block", "reason": "A test"})
        close: tuple[Any, ...] = ("api.user_sanction_apply", "root", owner.user_id, block)
        if how == "my_account_delete":
            close = ("api.my_account_delete", owner.user_id)
        body = json.dumps(
            {
                "game_name": "Late",
                "min_players": 2,
                "max_players": 2,
                "enrollment_ends_at": "2100-01-01T00:00:00Z",
                "turn_schedule": "0 0 * * *",
                "race_name": new_race(),
            }
        )
        work: list[tuple[Any, ...]] = [
            close,
            ("api.game_start", owner.user_id, owned.game_id),
            ("api.invite_redeem", owner.user_id, joined.game_id, invite_id, json.dumps({"race_name": new_race()}), None),
            (
                "api.invite_create",
                second.owner.user_id,
                second.game_id,
                json.dumps({"invited_user_id": owner.user_id}),
                None,
                None,
            ),
            ("api.game_create", owner.user_id, body),
            ("api.my_profile_update", owner.user_id, json.dumps({"display_name": "Too late"})),
            ("api.user_sanction_apply", "root", owner.user_id, json.dumps({"code": "login_block", "reason": "A test"})),
        ]

        def one(number: int, work: list[tuple[Any, ...]] = work) -> str:
            return answer(database, *work[number])

        answers = simultaneously(len(work), one)
        found.update(answers)
        if answers[0] != "done":
            # The other sanction came first.
            assert answers[0] == "sanctioned", answers
    assert "deadlock detected" not in found, found
    allowed = {
        "done", "account_deleted", "account_blocked", "sanctioned", "conflict", "invalid_transition", "game_not_found",
        "invite_not_found", "eligibility_denied", "limit_reached",
    }  # fmt: skip
    assert set(found) <= allowed, found


def test_a_deletion_beside_a_sign_in_opens_no_session_of_the_deleted(api: Api, database: Database) -> None:
    for _ in range(5):
        ann = sign_in(api, database)
        challenge_id = send_code(api, ann.email)
        code = read_code(database, challenge_id)

        def one(number: int, challenge_id: str = challenge_id, code: str = code, user_id: str = ann.user_id) -> int | str:
            if number == 0:
                return answer(database, "api.my_account_delete", user_id)
            return confirm(api, challenge_id, code).status_code

        deleted, confirmed = simultaneously(2, one)
        # The code goes with the account, or opens a session that goes with it.
        assert deleted == "done"
        assert confirmed in (200, 400)
        with database.connect() as connection:
            open_sessions = connection.execute(
                "SELECT count(*) FROM device_sessions WHERE status = 'active' AND user_id = %s", [ann.user_id]
            ).fetchone()
        assert open_sessions == (0,)


def test_thirty_days_of_moderation(api: Api, database: Database) -> None:
    """Time is the platform's: what ends, ends by itself; the job only writes it down."""
    world = World(api, database)
    ann = world.person()
    path = f"/api/v1/admin/users/{ann.user_id}"

    def admin(method: str, rest: str, status: int, body: Any = None) -> Any:
        answered = api.client.request(method, path + rest, headers=api.admin, **({} if body is None else {"json": body}))
        assert answered.status_code == status, answered.text
        return answered.json() if answered.content else None

    def account() -> Any:
        return api.client.get("/api/v1/user/account", headers=ann.header).json()

    def rename() -> int:
        return api.client.patch("/api/v1/user/account/profile", json={"display_name": "Ann"}, headers=ann.header).status_code

    def settle() -> int:
        with database.connect("galaxy_worker") as connection:
            row = connection.execute("SELECT worker.entitlements_settle(100)").fetchone()
            assert row is not None
            return int(row[0])

    def games(count: int) -> list[str]:
        with world.connect() as connection:
            connection.execute(
                "INSERT INTO engine_versions (version, image_ref) VALUES ('1.0.0', 'dev-engine:1.0.0') ON CONFLICT DO NOTHING"
            )
        body = {
            "game_name": "Story",
            "min_players": 2,
            "max_players": 2,
            "enrollment_ends_at": "2100-01-01T00:00:00Z",
            "turn_schedule": "0 0 * * *",
        }
        made = [api.client.post("/api/v1/user/lobby/games", json=body, headers=ann.header) for _ in range(count)]
        return ["made" if m.status_code == 201 else m.json()["error"]["code"] for m in made]

    def later(interval: str) -> None:
        with world.connect() as connection:
            travel(connection, interval)

    assert account()["entitlement"]["tier"] == "free"
    assert games(2) == ["made", "limit_reached"]
    granted = admin("POST", "/entitlements", 201, {"tier": "monthly", "reason_code": "purchase"})
    assert account()["entitlement"]["ends_at"] == granted["ends_at"]
    assert games(3) == ["made", "made", "limit_reached"]
    admin("POST", "/limits", 201, {"code": "max_owned_private_games", "value": 4, "reason": "A tournament"})
    assert games(2) == ["made", "limit_reached"]

    with world.connect() as connection:
        row = connection.execute("SELECT ts(now() + interval '10 days')").fetchone()
        assert row is not None
    admin("POST", "/sanctions", 201, {"code": "profile_update_block", "reason": "Rude", "expires_at": row[0]})
    assert rename() == 403
    later("10 days")
    assert rename() == 200
    assert account()["sanctions"] == []
    assert settle() == 0

    later("20 days")
    over = account()["entitlement"]
    assert (over["tier"], over["starts_at"], over["ends_at"]) == ("free", granted["ends_at"], None)
    assert (settle(), settle()) == (1, 0)
    assert account()["entitlement"] == over
    admin("POST", "/limits/max_owned_private_games/clear", 200, {"reason": "It is over"})
    # What there is stays; nothing more comes.
    assert games(1) == ["limit_reached"]
    assert [r["source"] for r in admin("GET", "", 200)["entitlement_records"]] == ["expiry", "admin", "registration"]

    admin("POST", "/sanctions", 201, {"code": "permanent_block", "reason": "Enough"})
    assert account()["error"]["code"] == "account_blocked"
    assert {s["revoke_reason"] for s in admin("GET", "/sessions", 200)["items"]} == {"account_blocked"}
    refused = api.client.post("/api/v1/public/auth/send-email-code", json={"email": ann.email})
    assert refused.json()["error"]["code"] == "email_blocked"
    admin("POST", "/soft-delete", 204, {"reason": "Asked for by letter"})
    assert admin("GET", "", 200)["email"] is None
    admin("POST", "/soft-delete", 409, {"reason": "Again"})
    with world.connect() as connection:
        left = connection.execute("SELECT DISTINCT status FROM games WHERE owner_user_id = %s", [ann.user_id]).fetchall()
    assert left == [("cancelled",)]
