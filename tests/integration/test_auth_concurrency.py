"""Many at once, through four processes: what is counted, is counted once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from tests.contract.wire import Answer, request, volley
from tests.postgres import Database
from tests.services import ADMIN, Api, StartProgram, confirmation, new_email, read_code, send_code, simultaneously, wrong_code

pytestmark = pytest.mark.xdist_group("four")

SEND = "/api/v1/public/auth/send-email-code"
CONFIRM = "/api/v1/public/auth/confirm-email-code"


@pytest.fixture
def db(shared_database: Database) -> Iterator[psycopg.Connection[Any]]:
    with shared_database.cluster.connect(shared_database.name, options="-csearch_path=backend") as connection:
        yield connection


def fire(apis: list[Api], path: str, bodies: list[dict[str, Any]], **headers: str) -> list[Answer]:
    return volley([api.address for api in apis], [request("POST", path, body, headers) for body in bodies])


def codes(answers: list[Answer]) -> Counter[str]:
    return Counter(str(a.status) if a.status == 200 else f"{a.status} {a.json()['error']['code']}" for a in answers)


def one(db: psycopg.Connection[Any], query: str, *parameters: Any) -> Any:
    row = db.execute(query, parameters).fetchone()
    assert row is not None
    return row[0]


def test_of_200_wrong_codes_five_are_evaluated(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    challenge_id = send_code(four_apis[0], new_email())
    code = read_code(shared_database, challenge_id)
    wrong = [f"{(int(code) + 1 + n) % 1_000_000:06d}" for n in range(200)]
    answers = fire(four_apis, CONFIRM, [confirmation(challenge_id, guess) for guess in wrong])
    assert codes(answers) == {"400 invalid_code": 200}
    assert one(db, "SELECT attempts FROM auth_challenges WHERE challenge_id = %s", challenge_id) == 5
    (last,) = fire(four_apis, CONFIRM, [confirmation(challenge_id, code)])
    assert codes([last]) == {"400 invalid_code": 1}
    assert one(db, "SELECT consumed_at IS NULL FROM auth_challenges WHERE challenge_id = %s", challenge_id)


def test_of_50_right_codes_one_opens_a_session(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    email = new_email()
    challenge_id = send_code(four_apis[0], email)
    code = read_code(shared_database, challenge_id)
    answers = fire(four_apis, CONFIRM, [confirmation(challenge_id, code) for _ in range(50)])
    assert codes(answers) == {"200": 1, "400 invalid_code": 49}
    assert one(db, "SELECT count(*) FROM accounts WHERE email = %s", email) == 1
    assert one(db, "SELECT count(*) FROM device_sessions JOIN accounts USING (user_id) WHERE email = %s", email) == 1


def test_a_right_code_among_wrong_ones_opens_at_most_one(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    email = new_email()
    challenge_id = send_code(four_apis[0], email)
    code = read_code(shared_database, challenge_id)
    guesses = [code if n % 10 == 5 else wrong_code(code) for n in range(60)]
    answers = fire(four_apis, CONFIRM, [confirmation(challenge_id, guess) for guess in guesses])
    found = codes(answers)
    assert found["200"] in (0, 1)
    assert found["400 invalid_code"] == 60 - found["200"]
    assert one(db, "SELECT attempts FROM auth_challenges WHERE challenge_id = %s", challenge_id) <= 5
    assert one(db, "SELECT count(*) FROM accounts WHERE email = %s", email) == found["200"]


def test_of_many_who_ask_for_a_code_three_get_mail(four_apis: list[Api], db: psycopg.Connection[Any]) -> None:
    email = new_email()
    written = [email, email.upper(), f" {email} "]
    answers = fire(four_apis, SEND, [{"email": written[n % 3]} for n in range(60)])
    assert codes(answers) == {"200": 60}
    assert one(db, "SELECT count(*) FROM auth_challenges WHERE email = %s", email) == 3
    assert one(db, "SELECT count(*) FROM mail_recipients WHERE address = %s", email) == 3
    assert len({a.json()["challenge_id"] for a in answers}) == 3
    assert one(db, "SELECT sum(requests) FROM auth_challenges WHERE email = %s", email) == 60


def test_two_first_sign_ins_of_one_address_make_one_account(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    for _ in range(8):
        email = new_email()
        bodies = []
        for _ in range(3):
            challenge_id = send_code(four_apis[0], email)
            bodies.append(confirmation(challenge_id, read_code(shared_database, challenge_id)))
        assert codes(fire(four_apis, CONFIRM, bodies)) == {"200": 3}
        assert one(db, "SELECT count(*) FROM accounts WHERE email = %s", email) == 1
        assert one(db, "SELECT count(*) FROM device_sessions JOIN accounts USING (user_id) WHERE email = %s", email) == 3


def test_many_new_people_at_once_are_as_many_accounts(
    four_apis: list[Api], shared_database: Database, db: psycopg.Connection[Any]
) -> None:
    emails = [new_email() for _ in range(40)]
    sent = fire(four_apis, SEND, [{"email": email} for email in emails])
    assert codes(sent) == {"200": 40}
    ids = [answer.json()["challenge_id"] for answer in sent]
    bodies = [confirmation(i, read_code(shared_database, i)) for i in ids]
    assert codes(fire(four_apis, CONFIRM, bodies)) == {"200": 40}
    assert one(db, "SELECT count(DISTINCT user_name) FROM accounts WHERE email = ANY (%s)", emails) == 40


def test_several_processes_at_once_make_one_first_administrator(start_program: StartProgram, database: Database) -> None:
    """Each with a password of its own: only one is taken, and all go on."""
    programs = [start_program("api", database) for _ in range(3)]
    apis = [program.wait_ready() for program in programs if isinstance(program, Api)]
    made = [api.logged("the first administrator was made") for api in apis]
    assert sum(map(len, made)) == 1
    right = [api for api, lines in zip(apis, made, strict=True) if lines]
    for api in apis:
        for other in apis:
            answer = other.client.get("/api/v1/admin/admin-accounts", headers=api.admin)
            assert answer.status_code == (200 if api in right else 401)
    with database.connect() as connection:
        assert connection.execute("SELECT username FROM admin_accounts").fetchall() == [(ADMIN,)]


def test_the_first_administrator_is_made_once(database: Database) -> None:
    hash_of = "$2b$12$" + "a" * 53

    def bootstrap(number: int) -> bool:
        with database.cluster.connect(database.name, "galaxy_api") as connection:
            row = connection.execute("SELECT api.administrator_bootstrap(%s, %s)", [f"admin{number}", hash_of]).fetchone()
            assert row is not None
            return bool(row[0])

    assert Counter(simultaneously(20, bootstrap)) == {True: 1, False: 19}
    with database.connect() as connection:
        connection.execute("UPDATE admin_accounts SET disabled_at = now()")
        assert not bootstrap(99), "nor when the only one is disabled"


def test_answers_are_whole(four_apis: list[Api]) -> None:
    """Connections and statements are not shared by threads: nobody gets another's answer."""
    requests = [request("GET", "/healthz", headers={"X-Request-ID": f"volley-{n:04d}"}) for n in range(100)]
    requests += [request("POST", SEND, {"email": "no address"}, {"X-Request-ID": f"volley-{n:04d}"}) for n in range(100, 200)]
    answers = volley([api.address for api in four_apis], requests)
    assert [a.headers["X-Request-ID"] for a in answers] == [f"volley-{n:04d}" for n in range(200)]
    assert all(json.loads(a.body)["error"]["request_id"] == a.headers["X-Request-ID"] for a in answers[100:])
