"""Administrators in several processes at once: who is one, from the very next request on, and how often one may guess."""

from __future__ import annotations

import secrets
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psycopg
import pytest

from tests.contract.administrators import new_address, new_name
from tests.contract.document import basic
from tests.contract.wire import request, volley
from tests.postgres import Database
from tests.services import ADMIN, Api, fresh_secret, simultaneously, travel

ADMINS = "/api/v1/admin/admin-accounts"
AUDIT = "/api/v1/admin/audit"

HASH = "$2b$12$" + "x" * 53


@pytest.fixture
def two(start_api: Callable[..., Api], database: Database) -> list[Api]:
    """Two programs of one process each, all alike."""
    same = {"BACKEND_INTERNAL_TOKEN": fresh_secret(), "BACKEND_ADMIN_BOOTSTRAP_PASSWORD": fresh_secret()}
    return [start_api(database, **same) for _ in range(2)]


def post(api: Api, path: str, body: Any = None, header: dict[str, str] | None = None) -> httpx.Response:
    return api.client.post(f"{ADMINS}{path}", json=body, headers=header or api.admin)


def add(api: Api, password: str) -> str:
    name = new_name()
    answer = post(api, "", {"username": name, "password": password})
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == f"{ADMINS}/{name}"
    return name


def statuses(apis: list[Api], header: dict[str, str]) -> list[int]:
    return [api.client.get(ADMINS, headers=header).status_code for api in apis for _ in range(2)]


def test_the_life_of_an_administrator_is_the_same_in_every_process(two: list[Api], database: Database) -> None:
    password, other = fresh_secret(), fresh_secret()
    name = add(two[0], password)
    header = basic(name, password)
    assert statuses(two, header) == [200] * 4, "made, and remembered"
    disabled = post(two[0], f"/{name}/disable")
    assert (disabled.status_code, disabled.json()["username"]) == (200, name)
    assert statuses(two, header) == [401] * 4
    assert post(two[1], f"/{name}/disable").json()["disabled_at"] == disabled.json()["disabled_at"]
    assert post(two[1], f"/{name}/enable").json()["disabled_at"] is None
    assert statuses(two, header) == [200] * 4
    assert post(two[0], f"/{name}/reset-password", {"password": other}).status_code == 204
    assert statuses(two, header) == [401] * 4
    assert statuses(two, basic(name, other)) == [200] * 4
    log = two[1].client.get(AUDIT, params={"object_id": name}, headers=two[1].admin)
    assert [entry["action"].removeprefix("administrator_") for entry in log.json()["items"]] == [
        "reset_password",
        "enable",
        "disable",
        "disable",
        "create",
    ]
    assert {entry["admin"] for entry in log.json()["items"]} == {ADMIN}
    assert {entry["source_ip"] for entry in log.json()["items"]} == {"127.0.0.1"}
    with database.connect() as db:
        for table in ("audit_log", "admin_accounts", "admin_attempts"):
            rows = db.execute(f"SELECT t::text FROM {table} AS t").fetchall()
            assert not any(word in row[0] for word in (password, other) for row in rows), table


def test_a_name_is_made_once_by_many(two: list[Api]) -> None:
    body = {"username": new_name(), "password": fresh_secret()}
    for api in two:
        assert api.client.get(ADMINS, headers=api.admin).status_code == 200
    answers = volley([api.address for api in two], [request("POST", ADMINS, body, two[0].admin) for _ in range(6)])
    found = Counter((answer.status, answer.json().get("error", {}).get("code")) for answer in answers)
    assert found == {(201, None): 1, (409, "administrator_exists"): 5}


@pytest.mark.parametrize("size", [11, 73])
def test_a_password_of_another_size_is_refused_before_the_identity(size: int, two: list[Api]) -> None:
    password = "x" * size
    answer = post(two[0], "", {"username": new_name(), "password": password}, basic("nobody", "x"))
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    (problem,) = answer.json()["error"]["details"]
    assert problem["path"] == "password"
    assert password not in answer.text
    two_bytes = {"username": new_name(), "password": "\u00e4" * (size // 2 + size % 2 * (size > 12))}
    assert post(two[0], "", two_bytes, basic("nobody", "x")).json()["error"]["details"] == [
        {"path": "password", "problem": "has not 12 to 72 bytes in UTF-8"}
    ]


def test_two_who_disable_each_other_at_once_are_one_afterwards(database: Database) -> None:
    for _ in range(15):
        with database.connect() as db:
            db.execute("DELETE FROM admin_accounts")
            db.execute("INSERT INTO admin_accounts (username, password_hash) VALUES ('ann', %s), ('bob', %s)", [HASH, HASH])
        connections = [database.connect("galaxy_api") for _ in range(2)]

        def disable(place: int, connections: list[psycopg.Connection[Any]] = connections) -> str:
            me, other = (("ann", "bob"), ("bob", "ann"))[place]
            try:
                connections[place].execute("SELECT api.administrator_disable(%s, %s)", [me, other])
            except psycopg.Error as error:
                return error.diag.message_primary or ""
            return "done"

        assert Counter(simultaneously(2, disable)) == {"done": 1, "unauthorized": 1}
        with database.connect() as db:
            assert db.execute("SELECT count(*) FROM admin_accounts WHERE disabled_at IS NULL").fetchone() == (1,)


def test_many_who_disable_each_other_leave_one(database: Database) -> None:
    names = [f"admin{number}" for number in range(12)]
    with database.connect() as db:
        db.execute(
            "INSERT INTO admin_accounts (username, password_hash) SELECT n, %s FROM unnest(%s::text[]) AS n", [HASH, names]
        )
    connections = [database.connect("galaxy_api") for _ in names]

    def disable(place: int) -> str:
        try:
            connections[place].execute("SELECT api.administrator_disable(%s, %s)", [names[place], names[place]])
        except psycopg.Error as error:
            return error.diag.message_primary or ""
        return "done"

    assert Counter(simultaneously(12, disable)) == {"done": 11, "last_administrator": 1}


# -- guessing


def guess(api: Api, name: str, password: str, source: str) -> httpx.Response:
    return api.client.get(ADMINS, headers={**basic(name, password), "X-Forwarded-For": source})


def test_ten_wrong_passwords_are_looked_at_by_all_processes_together(two: list[Api], database: Database) -> None:
    source, elsewhere = new_address(), new_address()
    right = two[0].environment["BACKEND_ADMIN_BOOTSTRAP_PASSWORD"]
    assert guess(two[0], ADMIN, right, source).status_code == 200
    for name in (ADMIN, "nobody"):
        found = [guess(two[number % 2], name, secrets.token_hex(8), source) for number in range(12)]
        assert [answer.status_code for answer in found] == [401] * 10 + [429] * 2, name
        assert found[-1].json()["error"]["code"] == "too_many_attempts"
        assert 0 < int(found[-1].headers["Retry-After"]) <= 900
        assert found[-1].json()["error"]["details"] == {"retry_after": int(found[-1].headers["Retry-After"])}
    for api in two:
        assert guess(api, ADMIN, right, source).status_code == 429, "a right one is not looked at, not even a remembered one"
        assert guess(api, ADMIN, right, elsewhere).status_code == 200, "elsewhere it is"
    with database.connect() as db:
        travel(db, "15 minutes")
    assert guess(two[1], ADMIN, right, source).status_code == 200


def test_a_right_password_makes_the_wrong_ones_forgotten_also_from_memory(two: list[Api]) -> None:
    source = new_address()
    right = two[0].environment["BACKEND_ADMIN_BOOTSTRAP_PASSWORD"]
    for _ in range(3):
        for number in range(8):
            assert guess(two[number % 2], ADMIN, "wrong", source).status_code == 401
        assert guess(two[0], ADMIN, right, source).status_code == 200


def test_guesses_at_once_are_no_more_than_there_are_places(two: list[Api]) -> None:
    """Each process looks at one from an address at a time, so that at most so many more get in before the tenth is counted."""
    source = new_address()
    headers = [{**basic(ADMIN, f"wrong {number}"), "X-Forwarded-For": source} for number in range(60)]
    answers = volley([api.address for api in two], [request("GET", ADMINS, headers=header) for header in headers])
    found = Counter(answer.status for answer in answers)
    assert set(found) <= {401, 429, 503}
    assert found[401] <= 10 + 3
    while (last := guess(two[0], ADMIN, "wrong", source).status_code) != 429:
        assert last in (401, 503)
        found[last] += 1
    assert found[401] <= 10 + 3


def test_thirty_wrong_passwords_for_any_names_are_looked_at_from_an_address(two: list[Api], database: Database) -> None:
    source, password = new_address(), fresh_secret()
    name = add(two[0], password)
    assert guess(two[0], ADMIN, two[0].environment["BACKEND_ADMIN_BOOTSTRAP_PASSWORD"], source).status_code == 200
    found = [guess(two[number % 2], new_name(), "wrong", source) for number in range(32)]
    assert [answer.status_code for answer in found] == [401] * 30 + [429] * 2
    assert 0 < int(found[-1].headers["Retry-After"]) <= 900
    assert guess(two[0], name, password, source).status_code == 429, "a right one is not looked at"
    assert guess(two[0], name, password, new_address()).status_code == 200, "elsewhere it is"
    assert guess(two[0], name, password, source).status_code == 200, "and then remembered, from wherever it comes"
    with database.connect() as db:
        travel(db, "15 minutes")
    assert guess(two[1], name, password, source).status_code == 200


def test_who_guesses_keeps_no_administrator_out_who_is_elsewhere(two: list[Api], database: Database) -> None:
    """From one address on many connections, without an end: a right password that comes from another one gets in."""
    with database.connect() as db:
        db.execute("UPDATE settings SET default_value = max_value WHERE setting_name = 'admin_attempts_per_address'")
        names = [f"colleague-{number}" for number in range(8)]
        db.execute(
            "INSERT INTO admin_accounts (username, password_hash)"
            " SELECT n, password_hash FROM admin_accounts, unnest(%s::text[]) AS n WHERE username = %s",
            [names, ADMIN],
        )
    api, source, is_over = two[0], new_address(), threading.Event()
    right = api.environment["BACKEND_ADMIN_BOOTSTRAP_PASSWORD"]

    def guess_on(_place: int) -> set[int]:
        found = set()
        with api.new_client() as client:
            while not is_over.is_set():
                headers = {**basic(new_name(), "wrong"), "X-Forwarded-For": source}
                found.add(client.get(ADMINS, headers=headers).status_code)
        return found

    with ThreadPoolExecutor(6) as pool:
        guesses = [pool.submit(guess_on, place) for place in range(6)]
        try:
            # Nobody of them is remembered yet.
            assert [guess(api, name, right, new_address()).status_code for name in names] == [200] * 8
        finally:
            is_over.set()
        assert set().union(*(future.result() for future in guesses)) <= {401, 503}


def test_passwords_that_are_compared_leave_threads_for_others(two: list[Api]) -> None:
    """A flood of guesses, and among it requests that need no password: all of these are answered."""
    flood = [request("GET", ADMINS, headers=basic(new_name(), "wrong")) for _ in range(40)]
    others = [request("GET", "/api/v1/user/account", headers={"X-User-ID": "no id"}) for _ in range(40)]
    answers = volley([two[0].address], [one for pair in zip(flood, others, strict=True) for one in pair])
    assert Counter(answer.status for answer in answers[1::2]) == {400: 40}
    assert {answer.status for answer in answers[0::2]} <= {401, 429, 503}


# -- when somebody was there


def test_the_last_use_is_written_down_once_a_minute(two: list[Api], database: Database) -> None:
    def last_used() -> Any:
        return two[0].client.get(f"{ADMINS}/{ADMIN}", headers=two[0].admin).json()["last_used_at"]

    first = last_used()
    assert first is not None, "it is noted before the answer"
    assert last_used() == first
    with database.connect() as db:
        travel(db, "61 seconds")
        second = last_used()
        assert second > first
        assert last_used() == second
        # Somebody holds the row: nobody waits for it.
        travel(db, "61 seconds")
        with db.transaction():
            db.execute("SELECT FROM admin_accounts FOR NO KEY UPDATE")
            assert last_used() == second
        assert last_used() > second


def test_who_cannot_be_noted_is_let_in(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(database)
    with database.connect() as db:
        db.execute("ALTER TABLE admin_accounts ADD CONSTRAINT nobody_was_here CHECK (last_used_at IS NULL)")
    assert api.client.get(ADMINS, headers=api.admin).status_code == 200
    assert api.logged("a sign-in was not noted")
