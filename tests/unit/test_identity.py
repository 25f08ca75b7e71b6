"""Headers that say who is calling."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import bcrypt
import psycopg
import pytest

from app import identity
from app.errors import ApiError
from app.identity import Administrators, Credential, check_internal, hash_password, user_id

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


HERE = "192.0.2.1"


class Asked:
    """Where hashes come from, what was asked for, and what was told."""

    def __init__(self, **hashes: str) -> None:
        self.hashes = hashes
        self.names: list[str] = []
        self.wrong: list[tuple[str, str | None]] = []
        self.right: list[tuple[str, str | None]] = []
        self.retry_after: int | None = None
        self.compare_after: int | None = None
        self.is_to_be_noted = False
        self.is_away = False

    def find(self, name: str, source: str | None) -> Credential:
        self.names.append(name)
        return Credential(self.hashes.get(name), source or "unknown", self.retry_after, self.compare_after, self.is_to_be_noted)

    def failed(self, name: str, source: str | None) -> None:
        self.wrong.append((name, source))

    def used(self, name: str, source: str | None) -> None:
        self.right.append((name, source))
        if self.is_away:
            raise psycopg.OperationalError


class Comparisons:
    """The hashes that passwords were compared with, by bcrypt itself."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hashes: list[bytes] = []
        self._compare = bcrypt.checkpw
        monkeypatch.setattr(bcrypt, "checkpw", self)

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.hashes.append(hashed)
        return self._compare(password, hashed)


def refusal(administrators: Administrators, name: str, password: str, source: str | None = HERE) -> ApiError | None:
    try:
        found = administrators.check(header(name, password), source)
    except ApiError as error:
        return error
    # A name ends with its first colon.
    assert found == name.partition(":")[0]
    return None


def is_let_in(administrators: Administrators, name: str, password: str, source: str | None = HERE) -> bool:
    found = refusal(administrators, name, password, source)
    assert found is None or found.status == 401
    return found is None


def test_a_wrong_password_is_counted_for_whatever_name_and_a_right_one_is_not() -> None:
    asked = Asked(ann=cheap("secret"))
    administrators = Administrators(asked, 1)
    assert refusal(administrators, "ann", "secret", None) is None
    assert refusal(administrators, "ann", "wrong", None) is not None
    assert refusal(administrators, "bob", "wrong") is not None
    assert refusal(administrators, "ann", "secret") is None
    assert asked.wrong == [("ann", None), ("bob", HERE)]
    assert asked.right == []


def test_what_is_no_credential_is_not_counted() -> None:
    asked = Asked(ann=cheap("secret"))
    for given in (None, "", "Basic", "Basic !!!", "Bearer x", "Basic " + base64.b64encode(b"ann").decode()):
        with pytest.raises(ApiError):
            Administrators(asked, 1).check(given, HERE)
    assert (asked.names, asked.wrong) == ([], [])


def test_over_the_limit_a_right_password_is_not_looked_at() -> None:
    asked = Asked(ann=cheap("secret"))
    administrators = Administrators(asked, 1)
    assert is_let_in(administrators, "ann", "secret")
    asked.retry_after = 17
    for password in ("secret", "wrong"):
        found = refusal(administrators, "ann", password)
        assert found is not None
        assert (found.status, found.code, found.headers) == (429, "too_many_attempts", {"Retry-After": "17"})
    assert asked.wrong == [], "what is not looked at is not counted"
    asked.retry_after = None
    assert is_let_in(administrators, "ann", "secret")


def test_where_too_many_were_wrong_only_who_is_remembered_is_let_in() -> None:
    asked = Asked(ann=cheap("secret"), bob=cheap("other"))
    administrators = Administrators(asked, 1)
    assert is_let_in(administrators, "ann", "secret")
    asked.compare_after = 17
    assert is_let_in(administrators, "ann", "secret")
    for name, password in (("bob", "other"), ("ann", "wrong"), ("nobody", "wrong")):
        found = refusal(administrators, name, password)
        assert found is not None
        assert (found.status, found.code, found.headers) == (429, "too_many_attempts", {"Retry-After": "17"})
    assert asked.wrong == [], "what is not looked at is not counted"


def test_a_success_is_noted_when_it_is_to_be_and_nobody_is_refused_for_it() -> None:
    asked = Asked(ann=cheap("secret"))
    administrators = Administrators(asked, 1)
    asked.is_to_be_noted = asked.is_away = True
    assert is_let_in(administrators, "ann", "secret")
    assert is_let_in(administrators, "ann", "secret")
    assert not is_let_in(administrators, "ann", "wrong")
    assert asked.right == [("ann", HERE)] * 2


def test_more_passwords_than_there_are_places_for_are_refused_for_now(monkeypatch: pytest.MonkeyPatch) -> None:
    compare, started, go_on = bcrypt.checkpw, threading.Semaphore(0), threading.Event()

    def slow(password: bytes, hashed: bytes) -> bool:
        started.release()
        assert go_on.wait(20)
        return compare(password, hashed)

    asked = Asked(ann=cheap("secret"), bob=cheap("other"))
    administrators = Administrators(asked, 2)
    assert is_let_in(administrators, "bob", "other")
    monkeypatch.setattr(bcrypt, "checkpw", slow)
    with ThreadPoolExecutor(2) as pool:
        waiting = [pool.submit(is_let_in, administrators, "ann", "secret", f"192.0.2.{n}") for n in (2, 3)]
        assert all(started.acquire(timeout=20) for _ in range(2))
        found = refusal(administrators, "ann", "secret", "192.0.2.4")
        assert found is not None
        assert (found.status, found.code, found.headers) == (503, "unavailable", {"Retry-After": "1"})
        assert is_let_in(administrators, "bob", "other"), "who is remembered needs no place"
        go_on.set()
        assert [future.result() for future in waiting] == [True, True]
    assert is_let_in(administrators, "ann", "secret")
    assert asked.wrong == [], "nobody has been wrong"


def test_of_one_address_one_password_is_compared_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many places there are: guessing from one address leaves the others to those who are elsewhere."""
    compare, started, go_on = bcrypt.checkpw, threading.Semaphore(0), threading.Event()

    def slow(password: bytes, hashed: bytes) -> bool:
        started.release()
        assert go_on.wait(20)
        return compare(password, hashed)

    administrators = Administrators(Asked(ann=cheap("secret")), 2)
    monkeypatch.setattr(bcrypt, "checkpw", slow)
    with ThreadPoolExecutor(1) as pool:
        guess = pool.submit(is_let_in, administrators, "nobody", "guess")
        assert started.acquire(timeout=20)
        for _ in range(3):
            found = refusal(administrators, "bob", "another guess")
            assert found is not None
            assert found.status == 503
        monkeypatch.setattr(bcrypt, "checkpw", compare)
        assert is_let_in(administrators, "ann", "secret", "198.51.100.1")
        go_on.set()
        assert not guess.result()
    assert not is_let_in(administrators, "nobody", "guess"), "its place is free again"


def test_a_right_credential_is_remembered_and_the_row_still_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(ann=cheap("secret"))
    administrators = Administrators(asked, 64)
    assert is_let_in(administrators, "ann", "secret")
    compared = Comparisons(monkeypatch)
    assert all(is_let_in(administrators, "ann", "secret") for _ in range(20))
    assert compared.hashes == []
    assert asked.names == ["ann"] * 21


def test_another_hash_or_none_is_believed_at_once() -> None:
    asked = Asked(ann=cheap("secret"))
    administrators = Administrators(asked, 64)
    assert is_let_in(administrators, "ann", "secret")
    asked.hashes["ann"] = cheap("other")
    assert not is_let_in(administrators, "ann", "secret")
    assert is_let_in(administrators, "ann", "other")
    del asked.hashes["ann"]
    assert not is_let_in(administrators, "ann", "other")


def test_a_memory_ends_after_sixty_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(identity, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    compared = Comparisons(monkeypatch)
    administrators = Administrators(Asked(ann=cheap("secret")), 64)
    # So many comparisons there were in all, after so many seconds; to be asked for prolongs nothing.
    for seconds, count in ((0.0, 1), (30.0, 1), (59.9, 1), (60.0, 2), (119.9, 2), (120.0, 3)):
        clock[0] = 1000.0 + seconds
        assert is_let_in(administrators, "ann", "secret")
        assert len(compared.hashes) == count, seconds


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_REMEMBER_COUNT", 5)
    names = {f"admin{n}": cheap("secret") for n in range(12)}
    administrators = Administrators(Asked(**names), 64)
    assert all(is_let_in(administrators, name, "secret") for name in names)
    assert len(administrators._remembered) <= 5


def test_what_is_remembered_holds_neither_name_nor_password() -> None:
    administrators = Administrators(Asked(ann=cheap("secret")), 64)
    assert is_let_in(administrators, "ann", "secret")
    assert b"secret" not in b"".join(administrators._remembered)
    assert all(len(digest) == 32 for digest in administrators._remembered)


def test_parts_cannot_be_moved_between_name_and_password() -> None:
    administrators = Administrators(Asked(ann=cheap("b:c")), 64)
    assert administrators.check(header("ann", "b:c"), HERE) == "ann"
    assert administrators.check(header("ann:b", "c"), HERE) == "ann", "the same header: a name has no colon"


@pytest.mark.parametrize("length", [71, 72])
def test_a_password_of_72_bytes_is_the_longest(length: int) -> None:
    password = "x" * length
    administrators = Administrators(Asked(ann=cheap(password)), 64)
    assert is_let_in(administrators, "ann", password)
    for longer in ("x" * 73, "x" * 72 + "y", "x" * 1000):
        assert not is_let_in(administrators, "ann", longer)


def test_nobody_costs_as_much_as_somebody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is compared once, with a hash of the same cost."""
    asked = Asked(ann=hash_password("secret"))
    administrators = Administrators(asked, 64)
    compared = Comparisons(monkeypatch)
    for name, password in (("ann", "wrong"), ("nobody", "wrong"), ("", "wrong"), ("nobody", "x" * 73), ("ann", "x" * 73)):
        compared.hashes.clear()
        assert not is_let_in(administrators, name, password)
        assert [hashed[:7] for hashed in compared.hashes] == [b"$2b$12$"], name


def test_many_threads_at_once_are_all_answered() -> None:
    administrators = Administrators(Asked(ann=cheap("secret")), 64)
    found: list[bool] = []

    def ask(number: int) -> None:
        is_right = bool(number % 2)
        found.append(is_let_in(administrators, "ann", "secret" if is_right else "wrong", f"192.0.2.{number}") == is_right)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 40


@pytest.mark.parametrize("password", ["secret", "wrong"])
def test_requests_at_once_with_one_credential_share_a_comparison(password: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(ann=cheap("secret"))
    administrators = Administrators(asked, 1)
    compared = Comparisons(monkeypatch)
    begun, goes_on = threading.Event(), threading.Event()
    compare = bcrypt.checkpw

    def slowly(given: bytes, hashed: bytes) -> bool:
        begun.set()
        assert goes_on.wait(10)
        return compare(given, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", slowly)
    with ThreadPoolExecutor(6) as threads:
        found = [threads.submit(is_let_in, administrators, "ann", password)]
        assert begun.wait(10)
        [comparison] = administrators._comparing.values()
        waiting = threading.Semaphore(0)
        wait = comparison.is_over.wait

        def counted(timeout: float | None = None) -> bool:
            waiting.release()
            return wait(timeout)

        monkeypatch.setattr(comparison.is_over, "wait", counted)
        found += [threads.submit(is_let_in, administrators, "ann", password) for _ in range(5)]
        for _ in range(5):
            assert waiting.acquire(timeout=10)
        with pytest.raises(ApiError) as refused:
            administrators.check(header("ann", "another"), HERE)
        assert refused.value.status == 503
        goes_on.set()
    assert [answer.result() for answer in found] == [password == "secret"] * 6
    assert len(compared.hashes) == 1


def test_a_hash_is_of_cost_12_and_salted() -> None:
    one, other = hash_password("secret"), hash_password("secret")
    assert one != other
    assert one.startswith("$2b$12$")
    assert bcrypt.checkpw(b"secret", one.encode())
