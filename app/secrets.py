"""Secrets that the app makes and hashes, so that the database never holds what would open anything.

The pepper is the app's alone: without it, what the database stores of a six-digit code cannot be tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple

from app.identity import PASSWORD_BYTES, hash_password

Problem = dict[str, str]


def _no_problems(_body: Mapping[str, Any]) -> list[Problem]:
    return []


class Provider(NamedTuple):
    """What `x-secrets` of an operation names: the arguments it gives, and how it makes them of the body and the pepper.

    It may take a secret out of the body, so that the clear text goes no further. `problems` says what is wrong with the body
    that a schema cannot say; it is asked before it is known who calls, `make` after that.
    """

    arguments: tuple[str, ...]
    make: Callable[[MutableMapping[str, Any], bytes], dict[str, bytes | None]]
    problems: Callable[[Mapping[str, Any]], list[Problem]] = _no_problems


def code_hash(code: str, pepper: bytes) -> bytes:
    """Return the HMAC-SHA-256 of a login code; the database salts it with the challenge."""
    return hmac.digest(pepper, code.encode(), hashlib.sha256)


def _bytea(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _code_make(_body: MutableMapping[str, Any], pepper: bytes) -> dict[str, bytes | None]:
    code = f"{secrets.randbelow(1_000_000):06d}"
    return {"p_code": code.encode(), "p_code_hash": _bytea(code_hash(code, pepper))}


def _code_check(body: MutableMapping[str, Any], pepper: bytes) -> dict[str, bytes | None]:
    return {"p_code_hash": _bytea(code_hash(body.pop("code"), pepper))}


_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_READ_AS = str.maketrans("OIL", "011")


def invite_code_hash(code: str) -> bytes:
    """Return the SHA-256 of an invite's code, read as Crockford's base 32 is: in any case, O as 0, I and L as 1."""
    return hashlib.sha256(code.upper().translate(_READ_AS).encode()).digest()


def _invite_code_make(_body: MutableMapping[str, Any], _pepper: bytes) -> dict[str, bytes | None]:
    bits = secrets.randbits(128)
    code = "".join(_CROCKFORD[(bits >> shift) & 31] for shift in range(125, -1, -5))
    return {"p_code": code.encode(), "p_code_hash": _bytea(invite_code_hash(code))}


def _invite_code_check(body: MutableMapping[str, Any], _pepper: bytes) -> dict[str, bytes | None]:
    code = body.pop("code", None)
    return {"p_code_hash": None if code is None else _bytea(invite_code_hash(code))}


def _password_make(body: MutableMapping[str, Any], _pepper: bytes) -> dict[str, bytes | None]:
    return {"p_password_hash": hash_password(body.pop("password")).encode()}


def _password_problems(body: Mapping[str, Any]) -> list[Problem]:
    least, most = PASSWORD_BYTES
    if least <= len(body["password"].encode()) <= most:
        return []
    return [{"path": "password", "problem": f"has not {least} to {most} bytes in UTF-8"}]


def token_hash(token: str) -> bytes:
    """Return the SHA-256 of a bearer token. It has 256 random bits: nobody finds it by trying."""
    return hashlib.sha256(token.encode()).digest()


def _token_make(_body: MutableMapping[str, Any], _pepper: bytes) -> dict[str, bytes | None]:
    token = secrets.token_urlsafe(32)
    return {"p_token": token.encode(), "p_token_hash": _bytea(token_hash(token))}


def _token_check(body: MutableMapping[str, Any], _pepper: bytes) -> dict[str, bytes | None]:
    return {"p_token_hash": _bytea(token_hash(body.pop("token")))}


PROVIDERS: Mapping[str, Provider] = {
    "code_make": Provider(("p_code", "p_code_hash"), _code_make),
    "code_check": Provider(("p_code_hash",), _code_check),
    "token_make": Provider(("p_token", "p_token_hash"), _token_make),
    "token_check": Provider(("p_token_hash",), _token_check),
    "invite_code_make": Provider(("p_code", "p_code_hash"), _invite_code_make),
    "invite_code_check": Provider(("p_code_hash",), _invite_code_check),
    "password_make": Provider(("p_password_hash",), _password_make, _password_problems),
}
