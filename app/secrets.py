"""Secrets that the app makes and hashes, so that the database never holds what would open anything.

The pepper is the app's alone: without it, what the database stores of a six-digit code cannot be tried out.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, NamedTuple


class Provider(NamedTuple):
    """What `x-secrets` of an operation names: the arguments it gives, and how it makes them of the body and the pepper.

    It may take a secret out of the body, so that the clear text goes no further.
    """

    arguments: tuple[str, ...]
    make: Callable[[MutableMapping[str, Any], bytes], dict[str, bytes]]


def code_hash(code: str, pepper: bytes) -> bytes:
    """Return the HMAC-SHA-256 of a login code; the database salts it with the challenge."""
    return hmac.digest(pepper, code.encode(), hashlib.sha256)


def _bytea(value: bytes) -> bytes:
    return b"\\x" + value.hex().encode()


def _code_make(_body: MutableMapping[str, Any], pepper: bytes) -> dict[str, bytes]:
    code = f"{secrets.randbelow(1_000_000):06d}"
    return {"p_code": code.encode(), "p_code_hash": _bytea(code_hash(code, pepper))}


def _code_check(body: MutableMapping[str, Any], pepper: bytes) -> dict[str, bytes]:
    return {"p_code_hash": _bytea(code_hash(body.pop("code"), pepper))}


PROVIDERS: Mapping[str, Provider] = {
    "code_make": Provider(("p_code", "p_code_hash"), _code_make),
    "code_check": Provider(("p_code_hash",), _code_check),
}
