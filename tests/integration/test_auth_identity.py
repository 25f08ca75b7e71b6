"""Administrators by Basic, the gateway by its token, and people by the header that the gateway has checked."""

from __future__ import annotations

import base64
import secrets
import uuid
from collections.abc import Callable

import bcrypt
import httpx
import pytest

from tests.contract.administrators import new_address
from tests.contract.document import basic
from tests.postgres import Database
from tests.services import ADMIN, Api, StartProgram, fresh_secret, note_secret

ADMINS = "/api/v1/admin/admin-accounts"


def ask(api: Api, header: str | bytes | None) -> httpx.Response:
    given = header.encode() if isinstance(header, str) else header
    # Each from somewhere else: wrong ones are counted for where they come from.
    source = {b"X-Forwarded-For": new_address().encode()}
    return api.client.get(ADMINS, headers=source if given is None else {**source, b"Authorization": given})


def make_admin(database: Database, password: str) -> str:
    """An administrator, made past the API."""
    name = f"admin-{secrets.token_hex(4)}"
    note_secret(password)
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(12)).decode()
    with database.cluster.connect(database.name) as connection:
        connection.execute("INSERT INTO backend.admin_accounts (username, password_hash) VALUES (%s, %s)", [name, hashed])
    return name


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def test_the_right_password_is_let_in(shared_api: Api) -> None:
    answer = ask(shared_api, shared_api.admin["Authorization"])
    assert answer.status_code == 200
    assert ADMIN in [item["username"] for item in answer.json()["items"]]


def test_the_scheme_may_be_written_in_any_case(shared_api: Api) -> None:
    credentials = shared_api.admin["Authorization"].removeprefix("Basic ")
    for scheme in ("basic", "BASIC", "bAsIc"):
        assert ask(shared_api, f"{scheme} {credentials}").status_code == 200


def test_everything_else_is_one_answer(shared_api: Api, shared_database: Database) -> None:
    password = fresh_secret()
    name = make_admin(shared_database, password)
    right = encoded(f"{name}:{password}")
    wrong: dict[str, str | bytes | None] = {
        "nothing": None,
        "empty": "",
        "no credentials": "Basic",
        "another scheme": f"Bearer {right}",
        "no scheme": right,
        "no base64": "Basic !!!!",
        "base64 for URLs": "Basic " + base64.urlsafe_b64encode(b"\xff\xfe\xfd:x").decode(),
        "cut off": f"Basic {right[:-2]}",
        "something behind": f"Basic {right} x",
        "no colon": "Basic " + encoded(name),
        "no UTF-8": "Basic " + encoded(b"\xff\xfe:x"),
        "no ASCII": b"Basic \xc3\xa4",
        "no name": "Basic " + encoded(f":{password}"),
        "no password": "Basic " + encoded(f"{name}:"),
        "a wrong password": "Basic " + encoded(f"{name}:{password}x"),
        "a shorter one": "Basic " + encoded(f"{name}:{password[:-1]}"),
        "another case": "Basic " + encoded(f"{name.upper()}:{password}"),
        "a space more": "Basic " + encoded(f"{name} :{password}"),
        "an unknown name": "Basic " + encoded(f"nobody:{password}"),
        "NUL in the name": "Basic " + encoded(f"{name}\0:{password}"),
        "NUL in the password": "Basic " + encoded(f"{name}:{password}\0"),
        "NUL before": "Basic " + encoded(f"\0{name}:{password}"),
        "a surrogate": "Basic " + encoded(b"\xed\xa0\x80:x"),
        "a long name": "Basic " + encoded("a" * 3000 + ":x"),
        "a long password": "Basic " + encoded(f"{name}:" + "x" * 3000),
        "an injection": "Basic " + encoded("' OR '1'='1:x"),
        "a pattern": "Basic " + encoded(f"{name[:-1]}%:{password}"),
    }
    bodies = set()
    for what, header in wrong.items():
        answer = ask(shared_api, header)
        error = answer.json()["error"]
        assert (answer.status_code, error.pop("request_id") != "") == (401, True), what
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="galaxy-admin"', what
        bodies.add(repr(error))
    assert len(bodies) == 1
    assert ask(shared_api, f"Basic {right}").status_code == 200


def test_two_credentials_at_once_are_none(shared_api: Api) -> None:
    header = shared_api.admin["Authorization"]
    answer = shared_api.client.get(ADMINS, headers=[("Authorization", header), ("Authorization", header)])
    assert answer.status_code == 401


@pytest.mark.parametrize("password", ["a:b:c", "ä€😀", " spaces ", "x" * 72, "ä" * 36, "a,b", "\t"])
def test_a_password_may_be_anything_up_to_72_bytes(password: str, shared_api: Api, shared_database: Database) -> None:
    whole = password if len(password.encode()) > 60 else password + secrets.token_hex(4)
    name = make_admin(shared_database, whole)
    assert ask(shared_api, basic(name, whole)["Authorization"]).status_code == 200


def test_of_a_password_over_72_bytes_nothing_is_cut_off(shared_api: Api, shared_database: Database) -> None:
    """bcrypt looks at 72 bytes only: who knows those has not the password yet."""
    password = secrets.token_hex(36)
    name = make_admin(shared_database, password)
    assert ask(shared_api, basic(name, password)["Authorization"]).status_code == 200
    for _ in range(2):
        assert ask(shared_api, basic(name, password + "x")["Authorization"]).status_code == 401
        assert ask(shared_api, basic(name, password + "\u00e4")["Authorization"]).status_code == 401


def test_what_is_remembered_is_forgotten_with_the_row(shared_api: Api, shared_database: Database) -> None:
    password, other = fresh_secret(), fresh_secret()
    name = make_admin(shared_database, password)
    header = basic(name, password)["Authorization"]
    with shared_database.cluster.connect(shared_database.name) as connection:

        def change(assignment: str, *values: object) -> None:
            connection.execute(f"UPDATE backend.admin_accounts SET {assignment} WHERE username = %s", [*values, name])

        for _ in range(3):
            assert ask(shared_api, header).status_code == 200
        change("disabled_at = now()")
        assert ask(shared_api, header).status_code == 401, "disabled, and let in from memory"
        change("disabled_at = NULL")
        assert ask(shared_api, header).status_code == 200
        change("password_hash = %s", bcrypt.hashpw(other.encode(), bcrypt.gensalt(12)).decode())
        assert ask(shared_api, header).status_code == 401, "the old password, from memory"
        assert ask(shared_api, basic(name, other)["Authorization"]).status_code == 200
        connection.execute("DELETE FROM backend.admin_accounts WHERE username = %s", [name])
        assert ask(shared_api, basic(name, other)["Authorization"]).status_code == 401


def test_a_wrong_password_is_not_helped_by_a_remembered_right_one(shared_api: Api, shared_database: Database) -> None:
    password = fresh_secret()
    name = make_admin(shared_database, password)
    assert ask(shared_api, basic(name, password)["Authorization"]).status_code == 200
    assert ask(shared_api, basic(name, password + "x")["Authorization"]).status_code == 401
    assert ask(shared_api, basic(ADMIN, password)["Authorization"]).status_code == 401


def test_an_administrator_is_nobody_elsewhere(shared_api: Api) -> None:
    """A right credential of one group opens no other."""
    session = f"/api/v1/internal/sessions/{uuid.uuid4()}"
    assert shared_api.client.get(session, headers=shared_api.admin).status_code == 401
    assert shared_api.client.get(ADMINS, headers=shared_api.internal).status_code == 401
    assert shared_api.client.get("/api/v1/user/account", headers=shared_api.admin).status_code == 400
    assert shared_api.client.get("/api/v1/user/account", headers=shared_api.internal).status_code == 400


# -- the gateway


def test_the_internal_token_is_demanded(shared_api: Api) -> None:
    token = shared_api.environment["BACKEND_INTERNAL_TOKEN"]
    path = f"/api/v1/internal/sessions/{uuid.uuid4()}"
    for header in (f"Bearer {token}", f"bearer {token}", f"BEARER  {token}"):
        assert shared_api.client.get(path, headers={"Authorization": header}).status_code == 404, header
    for wrong in (
        "",
        "Bearer",
        token,
        f"Basic {token}",
        f"Bearer {token}x",
        f"Bearer {token[:-1]}",
        f"Bearer {token} x",
        f"Bearer {token.upper()}",
        f"Bearer {token},{token}",
        "Bearer \u00e4".encode(),
        "Token x",
    ):
        given = wrong.encode() if isinstance(wrong, str) else wrong
        answer = shared_api.client.get(path, headers={b"Authorization": given})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthorized"), wrong
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert shared_api.client.get(f"{path}?token={token}").status_code == 400


def test_without_a_token_the_network_is_trusted(start_api: Callable[..., Api], database: Database) -> None:
    api = start_api(database, BACKEND_INTERNAL_TOKEN="")
    path = f"/api/v1/internal/sessions/{uuid.uuid4()}"
    assert api.client.get(path).status_code == 404
    assert api.client.get(path, headers={"Authorization": "Bearer whatever"}).status_code == 404
    assert any("BACKEND_INTERNAL_TOKEN" in line["msg"] for line in api.log_lines() if line["level"] == "warn")


def test_without_a_pepper_there_is_a_warning(start_program: StartProgram, database: Database) -> None:
    program = start_program("api", database, BACKEND_AUTH_PEPPER="")
    assert isinstance(program, Api)
    program.wait_ready()
    assert any("BACKEND_AUTH_PEPPER" in line["msg"] for line in program.log_lines() if line["level"] == "warn")
