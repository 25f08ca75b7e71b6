"""Codes and their hashes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter

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
