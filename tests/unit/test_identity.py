"""Headers that say who is calling."""

from __future__ import annotations

import base64
import threading
import time

import bcrypt
import pytest

from app import identity
from app.errors import ApiError
from app.identity import Administrators, check_internal, hash_password, user_id

UUID = "0192f0c4-7b1a-7c3e-8a55-0f6d1c2b3a49"


def header(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def cheap(password: str) -> str:
    return bcrypt.hashpw(password.encode()[:72], bcrypt.gensalt(4)).decode()


def test_a_uuid_is_taken_as_it_is() -> None:
    assert user_id(UUID) == UUID
    assert user_id(UUID.upper()) == UUID.upper()


@pytest.mark.parametrize(
    "given", [None, "", "x", UUID[:-1], UUID + "0", f" {UUID}", f"{UUID}\n", UUID.replace("-", ""), f"{{{UUID}}}", "\u0660" * 36]
)
def test_what_is_no_uuid_is_refused(given: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        user_id(given)
    assert (refused.value.status, refused.value.code) == (400, "invalid_user_id")


def test_without_a_token_nothing_is_demanded() -> None:
    for given in (None, "", "Bearer x"):
        check_internal(given, None)


@pytest.mark.parametrize("given", ["Bearer token", "bearer token", "BEARER token", "Bearer  token "])
def test_the_right_token_is_let_in(given: str) -> None:
    check_internal(given, "token")


@pytest.mark.parametrize(
    "given", [None, "", "token", "Bearer", "Bearer ", "Bearer toke", "Bearer tokens", "Basic token", "Bearer \xff", "Bearertoken"]
)
def test_another_token_is_refused(given: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        check_internal(given, "token")
    assert (refused.value.status, refused.value.code) == (401, "unauthorized")
    assert refused.value.headers["WWW-Authenticate"] == "Bearer"


class Asked:
    """Where hashes come from, and how often they were asked for."""

    def __init__(self, **hashes: str) -> None:
        self.hashes = hashes
        self.names: list[str] = []

    def __call__(self, name: str) -> str | None:
        self.names.append(name)
        return self.hashes.get(name)


def is_let_in(administrators: Administrators, name: str, password: str) -> bool:
    try:
        return administrators.check(header(name, password)) == name
    except ApiError:
        return False


def test_a_right_credential_is_remembered_and_the_row_still_asked() -> None:
    asked = Asked(ann=hash_password("secret"))
    administrators = Administrators(asked)
    assert is_let_in(administrators, "ann", "secret")
    started = time.perf_counter()
    assert all(is_let_in(administrators, "ann", "secret") for _ in range(20))
    assert time.perf_counter() - started < 1, "bcrypt was not asked again twenty times"
    assert asked.names == ["ann"] * 21


def test_another_hash_or_none_is_believed_at_once() -> None:
    asked = Asked(ann=cheap("secret"))
    administrators = Administrators(asked)
    assert is_let_in(administrators, "ann", "secret")
    asked.hashes["ann"] = cheap("other")
    assert not is_let_in(administrators, "ann", "secret")
    assert is_let_in(administrators, "ann", "other")
    del asked.hashes["ann"]
    assert not is_let_in(administrators, "ann", "other")


def test_a_memory_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_REMEMBER_SECONDS", 0)
    administrators = Administrators(Asked(ann=cheap("secret")))
    assert is_let_in(administrators, "ann", "secret")
    assert is_let_in(administrators, "ann", "secret")
    assert not is_let_in(administrators, "ann", "wrong")


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_REMEMBER_COUNT", 5)
    names = {f"admin{n}": cheap("secret") for n in range(12)}
    administrators = Administrators(Asked(**names))
    assert all(is_let_in(administrators, name, "secret") for name in names)
    assert len(administrators._remembered) <= 5


def test_what_is_remembered_holds_neither_name_nor_password() -> None:
    administrators = Administrators(Asked(ann=cheap("secret")))
    assert is_let_in(administrators, "ann", "secret")
    assert b"secret" not in b"".join(administrators._remembered)
    assert all(len(digest) == 32 for digest in administrators._remembered)


def test_parts_cannot_be_moved_between_name_and_password() -> None:
    administrators = Administrators(Asked(ann=cheap("b:c")))
    assert is_let_in(administrators, "ann", "b:c")
    assert not is_let_in(administrators, "ann:b", "c")


@pytest.mark.parametrize("length", [71, 72])
def test_a_password_of_72_bytes_is_the_longest(length: int) -> None:
    password = "x" * length
    administrators = Administrators(Asked(ann=cheap(password)))
    assert is_let_in(administrators, "ann", password)
    for longer in ("x" * 73, "x" * 72 + "y", "x" * 1000):
        assert not is_let_in(administrators, "ann", longer)


def test_nobody_costs_as_much_as_somebody() -> None:
    """Both are compared with a hash of the same cost."""
    asked = Asked(ann=hash_password("secret"))
    administrators = Administrators(asked)
    assert asked.hashes["ann"].startswith("$2b$12$")
    assert administrators._nobody.startswith("$2b$12$")


def test_many_threads_at_once_are_all_answered() -> None:
    administrators = Administrators(Asked(ann=cheap("secret")))
    found: list[bool] = []

    def ask(number: int) -> None:
        is_right = bool(number % 2)
        found.append(is_let_in(administrators, "ann", "secret" if is_right else "wrong") == is_right)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40


def test_a_hash_is_of_cost_12_and_salted() -> None:
    one, other = hash_password("secret"), hash_password("secret")
    assert one != other
    assert one.startswith("$2b$12$")
    assert bcrypt.checkpw(b"secret", one.encode())
