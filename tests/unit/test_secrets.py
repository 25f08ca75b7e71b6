"""Codes and their hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter

import bcrypt
import pytest

from app.secrets import PROVIDERS, code_hash

MAKE = PROVIDERS["code_make"]
CHECK = PROVIDERS["code_check"]


def made_code() -> bytes:
    code = MAKE.make({}, b"")["p_code"]
    assert code is not None
    return code


def test_a_code_is_six_digits_and_its_keyed_hash() -> None:
    made = MAKE.make({}, b"pepper")
    assert set(made) == set(MAKE.arguments) == {"p_code", "p_code_hash"}
    code = made["p_code"] or b""
    assert re.fullmatch(rb"[0-9]{6}", code)
    expected = hmac.new(b"pepper", code, hashlib.sha256).hexdigest().encode()
    assert made["p_code_hash"] == b"\\x" + expected


def test_codes_are_spread_over_all_that_there_are() -> None:
    codes = [made_code().decode() for _ in range(20_000)]
    assert len(set(codes)) > 19_500
    for place in range(6):
        # Each digit about 2,000 times; ten standard deviations are 424.
        assert all(abs(count - 2000) < 424 for count in Counter(code[place] for code in codes).values())
    assert any(code.startswith("00") for code in codes), "leading zeros are kept"


def test_a_code_that_is_checked_is_taken_out_of_the_body() -> None:
    body = {"code": "012345", "challenge_id": "x"}
    assert CHECK.make(body, b"pepper") == {"p_code_hash": b"\\x" + code_hash("012345", b"pepper").hex().encode()}
    assert body == {"challenge_id": "x"}


@pytest.mark.parametrize(("code", "pepper"), [("012345", b"other"), ("12345", b"pepper"), ("012346", b"pepper"), ("012345", b"")])
def test_another_code_or_pepper_is_another_hash(code: str, pepper: bytes) -> None:
    assert code_hash(code, pepper) != code_hash("012345", b"pepper")


def test_what_was_made_is_what_is_checked() -> None:
    made = MAKE.make({}, b"pepper")
    code = made["p_code"] or b""
    assert CHECK.make({"code": code.decode()}, b"pepper") == {"p_code_hash": made["p_code_hash"]}


PASSWORD = PROVIDERS["password_make"]


def test_a_password_is_taken_out_of_the_body_and_hashed() -> None:
    body = {"username": "ann", "password": "correct horse"}
    made = PASSWORD.make(body, b"pepper")
    assert tuple(made) == PASSWORD.arguments == ("p_password_hash",)
    assert body == {"username": "ann"}
    hashed = made["p_password_hash"] or b""
    assert hashed.startswith(b"$2b$12$")
    assert bcrypt.checkpw(b"correct horse", hashed)


@pytest.mark.parametrize("password", ["x" * 12, "x" * 72, "\u00e4" * 6, "\u00e4" * 36, "\U0001f600" * 3, "\U0001f600" * 18])
def test_a_password_has_12_to_72_bytes(password: str) -> None:
    assert PASSWORD.problems({"password": password}) == []


@pytest.mark.parametrize("password", ["x" * 11, "x" * 73, "\u00e4" * 37, "\U0001f600" * 19, "\u00e4" * 5])
def test_another_password_is_a_problem_that_does_not_tell_it(password: str) -> None:
    assert PASSWORD.problems({"password": password}) == [{"path": "password", "problem": "has not 12 to 72 bytes in UTF-8"}]


def test_a_token_is_256_bits_and_its_hash() -> None:
    make, check = PROVIDERS["token_make"], PROVIDERS["token_check"]
    tokens = set()
    for _ in range(100):
        made = make.make({}, b"pepper")
        assert set(made) == set(make.arguments)
        token = (made["p_token"] or b"").decode()
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", token)
        assert made["p_token_hash"] == b"\\x" + hashlib.sha256(token.encode()).hexdigest().encode()
        body = {"token": token}
        assert check.make(body, b"") == {"p_token_hash": made["p_token_hash"]}
        assert body == {}, "it goes no further"
        tokens.add(token)
    assert len(tokens) == 100
