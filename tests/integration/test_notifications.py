"""Notifications as people meet them: told once, reminded once of each turn, by mail that says what it is meant to say."""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from app import config as configuration
from tests.postgres import Database
from tests.services import Api, Person, Program, StartProgram, new_email, sign_in, simultaneously, travel, until
from tests.smtp_relay import FaultyRelay, Received, enqueue_many, worker_environment
from workers.door import Door
from workers.tasks.mail import MailDelivery
from workers.tasks.notifications import NotificationDelivery

PREFERENCES = "/api/v1/user/account/notification-preferences"


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    return database.connect(options="-csearch_path=backend")


@pytest.fixture
def relay() -> Iterator[FaultyRelay]:
    with FaultyRelay() as relay:
        yield relay


Work = Callable[[], None]


@pytest.fixture
def work(database: Database, relay: FaultyRelay) -> Work:
    """Do in this process what the job program does when it is woken: deliver what is due, and send it."""

    def run() -> None:
        config = configuration.load(
            worker_environment(database, relay.port, BACKEND_NOTIFICATION_ADMIN_EMAIL="operators@example.org")
        )

        async def session() -> None:
            door = Door(config)
            await door.open()
            try:
                await NotificationDelivery(config, door).run()
                await MailDelivery(config, door).run()
            finally:
                await door.close()

        asyncio.run(session())

    return run


def add_person(connection: psycopg.Connection[Any], turn_reminder: str = "off") -> Person:
    email = new_email()
    row = connection.execute("SELECT (account_create('email', %s, %s, 'en', 'UTC', NULL)).user_id", [email, email]).fetchone()
    assert row is not None
    connection.execute("UPDATE accounts SET turn_reminder = %s WHERE user_id = %s", [turn_reminder, row[0]])
    return Person(email, str(row[0]), "", "")


def add_game(connection: psycopg.Connection[Any], people: list[Person], name: str = "Friday") -> str:
    """A game that runs, as far as notifications can see."""
    connection.execute("INSERT INTO engine_versions (version, image_ref) VALUES ('1.0.0', 'engine:1') ON CONFLICT DO NOTHING")
    with connection.transaction():
        # Past the machine: what is told of a game does not depend on how it came to run.
        connection.execute("SET LOCAL session_replication_role = replica")
        row = connection.execute(
            """
            INSERT INTO games (game_name, name_search, visibility, status, owner_user_id, min_players, max_players,
                               enrollment_ends_at, turn_schedule, target_engine_version)
            VALUES (%s, 'x', 'private', 'running', %s, 2, 64, backend.now(), '0 * * * *', '1.0.0') RETURNING game_id
            """,
            [name, people[0].user_id],
        ).fetchone()
        assert row is not None
        connection.execute("SET LOCAL session_replication_role = DEFAULT")
        connection.execute("INSERT INTO runtime_records (game_id, engine_version, image_ref) VALUES (%s, '1.0.0', 'x')", row)
        connection.execute(
            "INSERT INTO game_history (game_id, action, to_status, actor_type) VALUES (%s, 'runtime-started', 'running', 'job')",
            row,
        )
        for number, person in enumerate(people):
            race_name = f"Race {number} {uuid.uuid4().hex[:8]}"
            connection.execute("INSERT INTO race_names (race_name, user_id) VALUES (%s, %s)", [race_name, person.user_id])
            connection.execute(
                "INSERT INTO memberships (game_id, user_id, race_name) VALUES (%s, %s, %s)", [row[0], person.user_id, race_name]
            )
            connection.execute(
                "INSERT INTO player_mappings (game_id, user_id, race_name, player_id) VALUES (%s, %s, %s, %s)",
                [row[0], person.user_id, race_name, str(number)],
            )
    return str(row[0])


def submit(connection: psycopg.Connection[Any], kind: str, person: Person | None, key: str | None = None, **payload: Any) -> None:
    connection.execute(
        "SELECT notification_submit(%s, %s, %s, %s)",
        [kind, key or uuid.uuid4().hex, person and person.user_id, json.dumps(payload)],
    )


def announce_turn(connection: psycopg.Connection[Any], game_id: str, turn: int) -> None:
    """As a worker does that has stored a turn; again is nothing new."""
    connection.execute(
        """
        SELECT notification_submit('game.turn.ready', format('turn-ready:%%s:%%s', m.game_id, %(turn)s::integer), m.user_id,
                                   jsonb_build_object('game_id', m.game_id, 'turn', %(turn)s::integer))
          FROM memberships AS m WHERE m.game_id = %(game_id)s
        """,
        {"turn": turn, "game_id": game_id},
    )


# -- reminders


def test_each_turn_is_told_once_to_each_who_is_away(
    connection: psycopg.Connection[Any], database: Database, relay: FaultyRelay, work: Work
) -> None:
    # At noon the mail of the day is far away.
    connection.execute("UPDATE clock SET clock_offset = date_trunc('day', now()) + interval '36 hours' - now()")
    each, daily, off, seen = (add_person(connection, how) for how in ("each", "daily", "off", "each"))
    game_id = add_game(connection, [each, daily, off, seen])
    for turn in (1, 2, 3):
        announce_turn(connection, game_id, turn)
        announce_turn(connection, game_id, turn)
    connection.execute(
        "INSERT INTO device_sessions (user_id, kind, client_public_key, last_seen_at)"
        " VALUES (%s, 'key', sha256('x'), backend.now())",
        [seen.user_id],
    )
    work()
    assert relay.received == []
    travel(connection, "1 hour")
    simultaneously(4, lambda _: deliver_routes(database))
    work()
    assert Counter(r.recipients[0] for r in relay.received) == {each.email: 3}
    assert sorted(str(r.message["Subject"]) for r in relay.received) == [f"Turn {n} is ready" for n in (1, 2, 3)]
    travel(connection, "1 day")
    simultaneously(8, lambda _: deliver_routes(database))
    work()
    [digest] = [r for r in relay.received if r.recipients == (daily.email,)]
    assert "Friday: turn 1, 2, 3\n" in digest.body()
    assert len(relay.received) == 4
    travel(connection, "2 days")
    work()
    assert len(relay.received) == 4


def deliver_routes(database: Database) -> None:
    with database.cluster.connect(database.name, "galaxy_worker") as worker:
        worker.execute("SELECT worker.notification_routes_deliver(100, NULL)")
        worker.execute("SELECT worker.turn_digests_deliver(100)")


def test_a_choice_and_the_mail_of_the_day_at_once(
    connection: psycopg.Connection[Any], database: Database, relay: FaultyRelay, api: Api, work: Work
) -> None:
    """Whoever comes first decides; there is one mail or none, never one for each."""
    person = sign_in(api, database)
    other = add_person(connection)
    choose(api, person, "daily")
    game_id = add_game(connection, [other, person])
    travel(connection, "2 minutes")
    for turn in range(1, 6):
        announce_turn(connection, game_id, turn)
    travel(connection, "1 day")

    def act(number: int) -> None:
        if number % 2:
            choose(api, person, ("off", "each", "daily")[number % 3])
        else:
            deliver_routes(database)

    simultaneously(12, act)
    choose(api, person, "off")
    work()
    told = [r.body() for r in relay.received if r.recipients == (person.email,) and "turn" in str(r.message["Subject"]).lower()]
    turns = [n for text in told for n in range(1, 6) if f"{n}," in text or f"{n}\n" in text or f"turn {n} " in text]
    assert len(turns) == len(set(turns))


def choose(api: Api, person: Person, turn_reminder: str, **channels: Any) -> dict[str, Any]:
    answer = api.client.put(PREFERENCES, json={"channels": channels, "turn_reminder": turn_reminder}, headers=person.header)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_what_is_not_wanted_is_not_told(api: Api, database: Database, connection: psycopg.Connection[Any]) -> None:
    person = sign_in(api, database)
    shown = api.client.get(PREFERENCES, headers=person.header).json()
    assert shown["channels"]["game.started"] == {"push": True, "email": True}
    assert choose(api, person, "off", **{"game.started": {"email": False}})["channels"]["game.started"] == {
        "push": True,
        "email": False,
    }
    game_id = add_game(connection, [person, add_person(connection)])
    submit(connection, "game.started", person, game_id=game_id)
    rows = connection.execute(
        "SELECT r.channel, r.status FROM notification_routes AS r JOIN notifications AS n USING (notification_id)"
        " WHERE n.user_id = %s",
        [person.user_id],
    ).fetchall()
    assert sorted(rows) == [("email", "skipped"), ("push", "delivered")]
    wrong: tuple[dict[str, Any], ...] = (
        {"game.started": {"pigeon": True}},
        {"game.started": {"email": "no"}},
        {"x": {}},
        {"mail.dead_lettered": {}},
    )
    for channels in wrong:
        answer = api.client.put(PREFERENCES, json={"channels": channels, "turn_reminder": "off"}, headers=person.header)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")


# -- what a mail can be made to say

HOSTILE = [
    "x\r\nBcc: eve@example.org",
    "x\nSubject: free money\n\nclick here",
    "x\r\n.\r\nMAIL FROM:<eve@example.org>",
    "=?utf-8?B?QmNjOiBldmVAZXhhbXBsZS5vcmc=?=",
    "=?utf-8?Q?=0D=0ABcc:_eve@example.org?=",
    "x\u2028Bcc: eve@example.org\u0085To: eve@example.org\x0b\x0c",
    "{{game_id}} {{reason}} {{nothing}}",
    "<script>alert(1)</script> <img src=x onerror=alert(1)> \"'&amp;",
    "\u202egro.elpmaxe@eve ok",
    "x" * 900 + "\r\nBcc: eve@example.org",
]
FIELDS = [
    ("lobby.membership.removed", "reason"),
    ("lobby.race_name.pending", "race_name"),
    ("runtime.image_pull_failed", "image_ref"),
    ("runtime.start_config_invalid", "reason"),
    ("game.generation.failed", "reason"),
    ("mail.dead_lettered", "template_id"),
    ("game.started", "game_name"),
    ("game.turn.ready", "game_name"),
    ("game.turn.digest", "game_name"),
]


@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_no_field_injects_a_header(
    kind: str, field: str, connection: psycopg.Connection[Any], relay: FaultyRelay, work: Work
) -> None:
    person = add_person(connection, {"game.turn.ready": "each", "game.turn.digest": "daily"}.get(kind, "off"))
    sayable = [text for text in HOSTILE if field != "game_name" or is_game_name(connection, text[:64])]
    assert len(sayable) >= 3
    for number, text in enumerate(sayable):
        game_id = add_game(connection, [person, add_person(connection)])
        if field == "game_name":
            connection.execute("UPDATE games SET game_name = left(%s, 64) WHERE game_id = %s", [text, game_id])
        payload: dict[str, Any] = {
            "game_id": game_id,
            "turn": number,
            "delivery_id": game_id,
            "expires_at": "2026-01-01T00:00:00Z",
            "reason": "r",
            "template_id": "t",
        }
        if field != "game_name":
            payload[field] = text
        row = connection.execute("SELECT is_for_administrators FROM notification_kinds WHERE kind = %s", [kind]).fetchone()
        is_for_administrators = row is not None and row[0]
        submit(
            connection,
            "game.turn.ready" if kind == "game.turn.digest" else kind,
            None if is_for_administrators else person,
            **payload,
        )
    assert connection.execute("SELECT * FROM notification_malformed_intents").fetchall() == []
    if kind.startswith("game.turn"):
        travel(connection, "2 days")
    work()
    sent = relay.received
    assert len(sent) == (1 if kind == "game.turn.digest" else len(sayable))
    for mail in sent:
        assert mail.sender == "noreply@galaxy.example"
        assert mail.recipients == ("operators@example.org" if is_for_administrators else person.email,)
        check_headers(mail)


def is_game_name(connection: psycopg.Connection[Any], text: str) -> bool:
    """Whether the database lets a game be called that: on one line, with nothing that is not seen."""
    row = connection.execute("SELECT display_name_clean(%s) = %s", [text, text]).fetchone()
    return row is not None and row[0] is True


def check_headers(mail: Received) -> None:
    message = mail.message
    assert Counter(message.keys()) == Counter(
        ["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"]
    )
    assert str(message["To"]) == mail.recipients[0]
    # Nothing that people wrote.
    assert re.fullmatch(r"[A-Z][A-Za-z0-9 -]+", str(message["Subject"]))
    assert not message.defects
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]
    markup = mail.body("html").lower()
    assert "<script" not in markup
    assert "<img" not in markup
    for line in mail.raw.split(b"\r\n"):
        assert b"\n" not in line
        assert b"\r" not in line
        assert len(line) <= 998


def test_invites_without_end_are_one_mail_a_day(connection: psycopg.Connection[Any], relay: FaultyRelay, work: Work) -> None:
    cy, ann, bob = (add_person(connection) for _ in range(3))
    for inviter in (ann, bob):
        for _ in range(20):
            game_id = add_game(connection, [inviter, add_person(connection)])
            submit(connection, "lobby.invite.received", cy, game_id=game_id, inviter_user_id=inviter.user_id)
    work()
    assert len(relay.received) == 2
    travel(connection, "1 day")
    game_id = add_game(connection, [ann, add_person(connection)])
    submit(connection, "lobby.invite.received", cy, game_id=game_id, inviter_user_id=ann.user_id)
    work()
    assert len(relay.received) == 3
    row = connection.execute("SELECT count(*) FROM push_pending WHERE user_id = %s", [cy.user_id]).fetchone()
    assert row == (41,)


# -- a backlog


def test_a_fresh_code_does_not_wait_for_ten_thousand(
    connection: psycopg.Connection[Any], relay: FaultyRelay, database: Database, start_program: StartProgram
) -> None:
    backlog = enqueue_many(connection, 10_000)
    worker: Program = start_program("worker", database, BACKEND_SMTP_PORT=str(relay.port))
    relay.wait(100, timeout=60)
    email = new_email()
    with database.cluster.connect(database.name, "galaxy_api") as api:
        before = len(relay.received)
        api.execute("SELECT api.email_code_send(jsonb_build_object('email', %s::text), '804713', sha256('x'), NULL)", [email])
    code = until(lambda: [n for n, mail in enumerate(list(relay.received)) if mail.recipients == (email,)], timeout=60)
    # Some went out meanwhile: those in hand, and what it takes to be woken.
    assert code[0] - before < 100
    relay.wait(len(backlog) + 1, timeout=400)
    until(lambda: count(connection, "sent") == len(backlog) + 1, timeout=60)
    assert worker.stop() == 0
    ids = Counter(mail.message_id for mail in relay.received)
    assert set(ids.values()) == {1}
    assert len(ids) == len(backlog) + 1


def count(connection: psycopg.Connection[Any], status: str) -> int:
    row = connection.execute("SELECT count(*) FROM mail_deliveries WHERE status = %s", [status]).fetchone()
    assert row is not None
    return int(row[0])
