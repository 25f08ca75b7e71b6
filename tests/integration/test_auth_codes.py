"""Signing in by a mailed code: who gets one, how long it is good, and what is told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import psycopg
import pytest

from tests.postgres import Database
from tests.services import (
    Api,
    Person,
    confirm,
    confirmation,
    delete_account,
    fresh_secret,
    new_email,
    new_key,
    note_secret,
    read_code,
    sanction,
    send_code,
    sign_in,
    wrong_code,
)

SEND = "/api/v1/public/auth/send-email-code"
CONFIRM = "/api/v1/public/auth/confirm-email-code"

INVALID = {"code": "invalid_code", "message": "The code is not valid.", "details": {}}


@pytest.fixture
def db(shared_database: Database) -> Iterator[psycopg.Connection[Any]]:
    with shared_database.cluster.connect(shared_database.name, options="-csearch_path=backend") as connection:
        yield connection


def challenges(db: psycopg.Connection[Any], email: str) -> list[str]:
    rows = db.execute("SELECT challenge_id FROM auth_challenges WHERE email = %s ORDER BY challenge_id", [email]).fetchall()
    return [str(row[0]) for row in rows]


def mails(db: psycopg.Connection[Any], email: str) -> int:
    row = db.execute("SELECT count(*) FROM mail_recipients WHERE address = %s", [email]).fetchone()
    assert row is not None
    return int(row[0])


def age(db: psycopg.Connection[Any], email: str, interval: str) -> None:
    """Make the challenges of an address older."""
    db.execute(
        """
        UPDATE auth_challenges SET created_at = created_at - %(by)s::interval, expires_at = expires_at - %(by)s::interval
         WHERE email = %(email)s
        """,
        {"by": interval, "email": email},
    )


def attempts(db: psycopg.Connection[Any], challenge_id: str) -> int:
    row = db.execute("SELECT attempts FROM auth_challenges WHERE challenge_id = %s", [challenge_id]).fetchone()
    assert row is not None
    return int(row[0])


def sessions(db: psycopg.Connection[Any], email: str) -> int:
    row = db.execute(
        "SELECT count(*) FROM device_sessions JOIN identities USING (user_id) WHERE provider = 'email' AND subject = %s", [email]
    ).fetchone()
    assert row is not None
    return int(row[0])


def refusal(answer: httpx.Response) -> tuple[int, dict[str, Any]]:
    found = dict(answer.json()["error"])
    del found["request_id"]
    return answer.status_code, found


# -- sending


def test_a_code_is_mailed_and_kept_as_a_hash(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    email = new_email()
    challenge_id = send_code(shared_api, email)
    code = read_code(shared_database, challenge_id)
    row = db.execute(
        """
        SELECT c.code_hash, c.expires_at - c.created_at, c.attempts, d.status, d.expires_at = c.expires_at, d.priority,
               p.subject, p.body_html,
               (SELECT array_agg(r.address) FROM mail_recipients AS r WHERE r.delivery_id = d.delivery_id)
          FROM auth_challenges AS c
          JOIN mail_deliveries AS d ON d.idempotency_key = c.challenge_id::text
          JOIN mail_payloads AS p USING (payload_id)
         WHERE c.challenge_id = %s
        """,
        [challenge_id],
    ).fetchone()
    assert row is not None
    code_hash, lifetime, tried, status, dies_with_it, priority, subject, html, recipients = row
    keyed = hmac.digest(shared_api.environment["BACKEND_AUTH_PEPPER"].encode(), code.encode(), hashlib.sha256)
    assert code_hash == hashlib.sha256(uuid.UUID(challenge_id).bytes + keyed).digest()
    assert lifetime.total_seconds() == 600
    assert (tried, status, dies_with_it, recipients) == (0, "pending", True, [email])
    assert priority > 0
    assert code in html
    assert code not in subject
    # Nowhere else is it in clear.
    for table in ("auth_challenges", "mail_deliveries", "push_pending", "procrastinate.procrastinate_jobs"):
        rows = db.execute(f"SELECT t::text FROM {table} AS t WHERE t::text LIKE %s", [f"%{email}%"]).fetchall()
        assert not any(re.search(rf"\b{code}\b", row[0]) for row in rows), table


def test_a_worker_is_told_in_the_same_transaction(shared_api: Api, db: psycopg.Connection[Any]) -> None:
    answer = shared_api.client.post(SEND, json={"email": new_email()}, headers={"X-Request-ID": f"send-{secrets.token_hex(8)}"})
    row = db.execute(
        "SELECT task_name, queue_name FROM procrastinate.procrastinate_jobs WHERE args -> 'context' ->> 'request_id' = %s",
        [answer.headers["X-Request-ID"]],
    ).fetchall()
    assert row == [("mail_deliver", "mail")]


def test_a_lifetime_and_a_number_of_tries_can_be_configured(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(
        database,
        BACKEND_AUTH_CHALLENGE_TTL="30s",
        BACKEND_AUTH_CHALLENGE_MAX_ATTEMPTS="2",
        BACKEND_AUTH_CHALLENGE_THROTTLE_MAX="1",
    )
    email = new_email()
    challenge_id = send_code(api, email)
    assert send_code(api, email) == challenge_id
    code = read_code(database, challenge_id)
    with database.connect() as db:
        row = db.execute("SELECT extract(epoch FROM expires_at - created_at) FROM auth_challenges").fetchone()
    assert row is not None
    assert int(row[0]) == 30
    assert [confirm(api, challenge_id, wrong_code(code)).status_code for _ in range(2)] == [400, 400]
    assert confirm(api, challenge_id, code).status_code == 400


def test_the_fourth_in_a_minute_gets_the_newest_challenge_and_no_mail(shared_api: Api, db: psycopg.Connection[Any]) -> None:
    email = new_email()
    first = [send_code(shared_api, email) for _ in range(3)]
    assert len(set(first)) == 3
    before = db.execute(
        "SELECT attempts, expires_at, code_hash FROM auth_challenges WHERE challenge_id = %s", [first[2]]
    ).fetchone()
    assert [send_code(shared_api, email) for _ in range(3)] == [first[2]] * 3
    assert challenges(db, email) == sorted(first)
    assert mails(db, email) == 3
    after = db.execute(
        "SELECT attempts, expires_at, code_hash FROM auth_challenges WHERE challenge_id = %s", [first[2]]
    ).fetchone()
    assert after == before, "asking again lengthens no life and forgives no try"


def test_reuse_forgives_no_wrong_code(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    email = new_email()
    newest = [send_code(shared_api, email) for _ in range(3)][2]
    code = read_code(shared_database, newest)
    for _ in range(5):
        confirm(shared_api, newest, wrong_code(code))
    assert send_code(shared_api, email) == newest
    assert attempts(db, newest) == 5
    assert refusal(confirm(shared_api, newest, code)) == (400, INVALID)


def test_after_the_window_there_is_another(shared_api: Api, db: psycopg.Connection[Any]) -> None:
    email = new_email()
    first = [send_code(shared_api, email) for _ in range(3)]
    age(db, email, "59 seconds")
    assert send_code(shared_api, email) == first[2]
    age(db, email, "1 second")
    assert send_code(shared_api, email) not in first
    assert mails(db, email) == 4


def test_expired_and_consumed_challenges_do_not_count(
    shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    email = new_email()
    first = [send_code(shared_api, email) for _ in range(3)]
    db.execute(
        "UPDATE auth_challenges SET expires_at = created_at + interval '1 microsecond' WHERE challenge_id = %s", [first[0]]
    )
    fourth = send_code(shared_api, email)
    assert fourth not in first
    assert send_code(shared_api, email) == fourth
    assert confirm(shared_api, fourth, read_code(shared_database, fourth)).status_code == 200
    fifth = send_code(shared_api, email)
    assert fifth not in (*first, fourth)


@pytest.mark.parametrize(
    "written",
    ["  {}", "{}  ", "\t{}\r\n", "UPPER", "Title"],
)
def test_an_address_is_the_same_however_it_is_written(
    written: str, shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    email = new_email()
    other = {"UPPER": email.upper(), "Title": email.title()}.get(written) or written.format(email)
    note_secret(other.strip())
    person = sign_in(shared_api, shared_database, email)
    again = sign_in(shared_api, shared_database, other)
    assert again.user_id == person.user_id
    send_code(shared_api, other)
    assert len(challenges(db, email)) == 3


@pytest.mark.parametrize(
    "email",
    [
        "abc",
        "a@b",
        "@example.org",
        "a@",
        "a@@example.org",
        "a@example..org",
        "a@.example.org",
        "a@example.org.",
        "a@-example.org",
        "a@example-.org",
        "a b@example.org",
        "a@exam ple.org",
        ".a@example.org",
        "a.@example.org",
        "a..b@example.org",
        "a@example.1",
        "a@[127.0.0.1]",
        '"a"@example.org',
        "a@example.org, b@example.org",
        "a@example.org\r\nBcc: b@example.org",
        "a\u00e4@example.org",
        "a@ex\u00e4mple.org",
        "a@example.org\u00a0",
        "a\u0130@example.org",
        "x" * 65 + "@example.org",
        "a@" + "b" * 64 + ".org",
        "a@" + "b" * 63 + "-.org",
        "a\u212a@example.org",
        "a<b>@example.org",
        "a@example.org;",
        "a\\@example.org",
        "mailto:a@example.org",
        "a@example_x.org",
        "   ",
    ],
)
def test_what_is_no_address_is_refused(email: str, shared_api: Api) -> None:
    answer = shared_api.client.post(SEND, json={"email": email})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert (error["code"], error["details"][0]["path"]) == ("invalid_request", "email")


@pytest.mark.parametrize("local", ["a", "a.b", "a+b", "o'neil", "a_b-c", "!#$%&*/=?^`{|}~", "0", "x" * 64])
def test_what_is_an_address_is_taken(local: str, shared_api: Api) -> None:
    domain = f"{secrets.token_hex(4)}.example.org"
    note_secret(f"{local}@{domain}")
    assert shared_api.client.post(SEND, json={"email": f"{local}@{domain}"}).status_code == 200


def test_the_longest_address_is_taken(shared_api: Api) -> None:
    domain = ".".join(["b" * 61] * 3) + f".{secrets.token_hex(4)}"
    domain = domain[: 254 - 65 - 4].rstrip(".") + ".org"
    email = "x" * (254 - 1 - len(domain)) + "@" + domain if 254 - 1 - len(domain) <= 64 else "x" * 64 + "@" + domain
    note_secret(email)
    assert len(email) <= 254
    assert shared_api.client.post(SEND, json={"email": email}).status_code == 200


# -- who is told what


def shape(answer: httpx.Response) -> tuple[Any, ...]:
    """All that could tell two answers apart, but for what is random in each."""
    body = {k: (len(v), bool(uuid.UUID(v))) for k, v in answer.json().items()}
    versions = {uuid.UUID(v).version for v in answer.json().values()}
    headers = sorted((k, v if k.lower() not in ("date", "x-request-id") else len(v)) for k, v in answer.headers.items())
    return answer.status_code, body, versions, headers, len(answer.content)


def test_known_unknown_and_throttled_addresses_are_answered_alike(shared_api: Api, shared_database: Database) -> None:
    known, throttled = new_email("k"), new_email("t")
    sign_in(shared_api, shared_database, known)
    for _ in range(3):
        send_code(shared_api, throttled)
    answers = [shared_api.client.post(SEND, json={"email": email}) for email in (known, new_email("u"), throttled, throttled)]
    assert len({repr(shape(answer)) for answer in answers}) == 1


def test_no_answer_leaves_before_its_time(shared_api: Api, db: psycopg.Connection[Any]) -> None:
    """At a multiple of 50 ms and not before, whatever was found, and however soon."""
    blocked = new_email()
    db.execute("INSERT INTO blocked_emails (email, actor) VALUES (%s, 'test')", [blocked])
    for body in ({"email": new_email()}, {"email": blocked}, {"email": "abc"}, {}):
        for _ in range(3):
            began = time.perf_counter()
            shared_api.client.post(SEND, json=body)
            assert time.perf_counter() - began >= 0.05, body


@pytest.mark.parametrize("change", ["lower", "upper", "title"])
def test_a_blocked_address_is_told_and_nothing_is_sent(change: str, shared_api: Api, db: psycopg.Connection[Any]) -> None:
    email = new_email()
    db.execute("INSERT INTO blocked_emails (email, actor) VALUES (%s, 'test')", [email])
    written = {"lower": email, "upper": email.upper(), "title": f" {email.title()} "}[change]
    note_secret(written.strip())
    assert refusal(shared_api.client.post(SEND, json={"email": written}))[1]["code"] == "email_blocked"
    assert challenges(db, email) == []
    assert mails(db, email) == 0


def test_the_address_of_a_blocked_account_is_told(
    shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    person = sign_in(shared_api, shared_database)
    sanction(db, person.user_id, "permanent_block")
    assert refusal(shared_api.client.post(SEND, json={"email": person.email}))[1]["code"] == "email_blocked"


def test_other_sanctions_are_not_told(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    person = sign_in(shared_api, shared_database)
    for code in ("login_block", "game_join_block"):
        sanction(db, person.user_id, code)
    assert shared_api.client.post(SEND, json={"email": person.email}).status_code == 200


# -- confirming


def test_a_right_code_opens_one_session(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    email, key = new_email(), new_key()
    challenge_id = send_code(shared_api, email)
    code = read_code(shared_database, challenge_id)
    answer = confirm(shared_api, challenge_id, code, client_public_key=key)
    assert answer.status_code == 200
    session = shared_api.client.get(
        f"/api/v1/internal/sessions/{answer.json()['device_session_id']}", headers=shared_api.internal
    ).json()
    assert (session["kind"], session["status"], session["client_public_key"]) == ("key", "active", key)
    assert refusal(confirm(shared_api, challenge_id, code)) == (400, INVALID)
    assert refusal(confirm(shared_api, challenge_id, wrong_code(code))) == (400, INVALID)
    assert sessions(db, email) == 1
    assert attempts(db, challenge_id) == 1, "what is consumed is compared with nothing"


def test_five_wrong_codes_and_no_more(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    email = new_email()
    challenge_id = send_code(shared_api, email)
    code = read_code(shared_database, challenge_id)
    for tried in range(1, 6):
        assert refusal(confirm(shared_api, challenge_id, wrong_code(code))) == (400, INVALID)
        assert attempts(db, challenge_id) == tried
    for guess in (code, wrong_code(code)):
        assert refusal(confirm(shared_api, challenge_id, guess)) == (400, INVALID)
    assert attempts(db, challenge_id) == 5
    assert sessions(db, email) == 0


def test_the_fifth_try_may_be_the_right_one(shared_api: Api, shared_database: Database) -> None:
    challenge_id = send_code(shared_api, new_email())
    code = read_code(shared_database, challenge_id)
    assert [confirm(shared_api, challenge_id, wrong_code(code)).status_code for _ in range(4)] == [400] * 4
    assert confirm(shared_api, challenge_id, code).status_code == 200


@pytest.mark.parametrize(("by", "status"), [("599 seconds", 200), ("600 seconds", 400), ("1 day", 400)])
def test_a_code_is_good_for_ten_minutes(
    by: str, status: int, shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    email = new_email()
    challenge_id = send_code(shared_api, email)
    code = read_code(shared_database, challenge_id)
    age(db, email, by)
    answer = confirm(shared_api, challenge_id, code)
    assert answer.status_code == status
    if status == 400:
        assert refusal(answer) == (400, INVALID)
        assert attempts(db, challenge_id) == 0


def test_every_way_of_being_wrong_is_one_answer(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    answers = []
    for what in ("wrong", "expired", "consumed", "worn out", "unknown", "somebody else's"):
        email = new_email()
        challenge_id = send_code(shared_api, email)
        code = read_code(shared_database, challenge_id)
        match what:
            case "wrong":
                code = wrong_code(code)
            case "expired":
                age(db, email, "1 hour")
            case "consumed":
                confirm(shared_api, challenge_id, code)
            case "worn out":
                db.execute("UPDATE auth_challenges SET attempts = 5 WHERE challenge_id = %s", [challenge_id])
            case "unknown":
                challenge_id = str(uuid.uuid4())
            case _:
                other = send_code(shared_api, new_email())
                code = read_code(shared_database, other)
                if code == read_code(shared_database, challenge_id):
                    code = wrong_code(code)
        answers.append(confirm(shared_api, challenge_id, code))
    assert [refusal(answer) for answer in answers] == [(400, INVALID)] * 6
    assert len({tuple(sorted(a.headers.keys())) for a in answers}) == 1
    assert len({len(a.content) for a in answers}) == 1


def test_what_is_malformed_counts_as_no_try(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    challenge_id = send_code(shared_api, new_email())
    code = read_code(shared_database, challenge_id)
    for change in (
        {"time_zone": "Mars/Olympus_Mons"},
        {"time_zone": "europe/berlin"},
        {"time_zone": "posix/Europe/Berlin"},
        {"client_public_key": base64.b64encode(b"x" * 31).decode()},
        {"client_public_key": base64.b64encode(b"x" * 33).decode()},
        {"client_public_key": "A" * 42 + "B="},
        {"client_public_key": "-_" * 21 + "A="},
        {"code": "12345"},
        {"code": "1234567"},
        {"code": "12345\u0661"},
        {"code": "12345 "},
        {"code": "123456\n"},
    ):
        answer = confirm(shared_api, challenge_id, **{"code": code, **change})
        assert answer.json()["error"]["code"] == "invalid_request", change
        assert {p["path"] for p in answer.json()["error"]["details"]} == set(change)
    assert attempts(db, challenge_id) == 0
    assert confirm(shared_api, challenge_id, code).status_code == 200


def test_a_code_that_another_pepper_hashed_opens_nothing(
    shared_api: Api, shared_database: Database, session_starter: Any, start_api: Callable[..., Api]
) -> None:
    """Whoever has the database alone cannot try codes out."""
    del session_starter
    other = start_api(shared_database, BACKEND_AUTH_PEPPER=fresh_secret())
    challenge_id = send_code(shared_api, new_email())
    assert refusal(confirm(other, challenge_id, read_code(shared_database, challenge_id))) == (400, INVALID)


# -- accounts


def account(api: Api, person: Person) -> dict[str, Any]:
    found: dict[str, Any] = api.client.get("/api/v1/user/account", headers=person.header).json()
    return found


def test_a_new_account_is_as_the_sign_in_said(shared_api: Api, shared_database: Database) -> None:
    person = sign_in(shared_api, shared_database, locale="de-AT", **{"X-Forwarded-For": "203.0.113.1"})
    found = account(shared_api, person)
    assert re.fullmatch(r"player-[0-9a-hjkmnp-tv-z]{8}", found["user_name"])
    assert found["display_name"] == found["user_name"]
    assert found["email"] == person.email
    assert found["identities"] == [{"provider": "email", "subject": person.email}]
    assert (found["preferred_language"], found["time_zone"], found["declared_country"]) == ("de", "Europe/Berlin", "JP")
    assert (found["entitlement"]["tier"], found["entitlement"]["ends_at"]) == ("free", None)
    assert (found["sanctions"], found["limits"]) == ([], [])


def test_signing_in_again_changes_nothing_of_the_account(shared_api: Api, shared_database: Database) -> None:
    person = sign_in(shared_api, shared_database, locale="fr", **{"X-Forwarded-For": "203.0.113.1"})
    before = account(shared_api, person)
    again = sign_in(shared_api, shared_database, person.email, locale="nl", **{"X-Forwarded-For": "192.0.2.1"})
    assert again.user_id == person.user_id
    assert again.device_session_id != person.device_session_id
    assert account(shared_api, again) == before


@pytest.mark.parametrize(("locale", "language"), [("en", "en"), ("pt-BR", "pt"), ("ZH-Hant-TW", "zh"), (None, "en")])
def test_the_language_is_that_of_the_locale(
    locale: str | None, language: str, shared_api: Api, shared_database: Database
) -> None:
    email = new_email()
    challenge_id = send_code(shared_api, email, **({"locale": locale} if locale else {}))
    answer = confirm(shared_api, challenge_id, read_code(shared_database, challenge_id))
    with shared_database.cluster.connect(shared_database.name) as db:
        row = db.execute("SELECT preferred_language FROM backend.accounts WHERE email = %s", [email]).fetchone()
    assert answer.status_code == 200
    assert row == (language,)


def test_a_login_block_consumes_the_code(shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]) -> None:
    person = sign_in(shared_api, shared_database)
    challenge_id = send_code(shared_api, person.email)
    code = read_code(shared_database, challenge_id)
    sanction(db, person.user_id, "login_block")
    assert refusal(confirm(shared_api, challenge_id, wrong_code(code))) == (400, INVALID), "only who knows the code is told"
    status, error = refusal(confirm(shared_api, challenge_id, code))
    assert (status, error["code"], error["details"]) == (403, "sanctioned", {"sanction": "login_block"})
    db.execute("DELETE FROM sanction_active WHERE user_id = %s", [person.user_id])
    assert refusal(confirm(shared_api, challenge_id, code)) == (400, INVALID)
    assert sessions(db, person.email) == 1


def test_a_login_block_that_is_over_has_no_effect(
    shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    person = sign_in(shared_api, shared_database)
    sanction(db, person.user_id, "login_block", "-1 second")
    assert sign_in(shared_api, shared_database, person.email).user_id == person.user_id


def test_a_permanent_block_that_came_after_the_mail_is_told_to_who_knows_the_code(
    shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    person = sign_in(shared_api, shared_database)
    challenge_id = send_code(shared_api, person.email)
    code = read_code(shared_database, challenge_id)
    sanction(db, person.user_id, "permanent_block")
    assert refusal(confirm(shared_api, challenge_id, wrong_code(code))) == (400, INVALID)
    assert refusal(confirm(shared_api, challenge_id, code))[1]["code"] == "account_blocked"
    assert refusal(confirm(shared_api, challenge_id, code)) == (400, INVALID)


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
def test_an_address_that_was_blocked_after_the_mail_opens_nothing(
    known: bool, shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    email = new_email()
    if known:
        sign_in(shared_api, shared_database, email)
    challenge_id = send_code(shared_api, email)
    code = read_code(shared_database, challenge_id)
    db.execute("INSERT INTO blocked_emails (email, actor) VALUES (%s, 'test')", [email])
    answer = confirm(shared_api, challenge_id, code)
    assert answer.status_code in (400, 403), "an address that may never sign in did"
    assert sessions(db, email) == int(known)


def test_the_address_of_a_deleted_account_begins_anew(
    shared_api: Api, shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    person = sign_in(shared_api, shared_database)
    delete_account(db, person.user_id)
    again = sign_in(shared_api, shared_database, person.email)
    assert again.user_id != person.user_id
    assert refusal(shared_api.client.get("/api/v1/user/account", headers=person.header))[1]["code"] == "account_deleted"


def test_the_bodies_of_confirmations_fit(shared_api: Api, shared_database: Database) -> None:
    """A time zone may be any that Postgres knows."""
    for zone in ("UTC", "America/Argentina/Buenos_Aires", "Etc/GMT+12", "Asia/Kolkata"):
        challenge_id = send_code(shared_api, new_email())
        body = confirmation(challenge_id, read_code(shared_database, challenge_id), time_zone=zone)
        assert shared_api.client.post(CONFIRM, json=body).status_code == 200, zone
