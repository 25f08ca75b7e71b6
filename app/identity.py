"""Who is calling: a person whom the gateway has checked, the gateway itself, or an administrator."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

import bcrypt

from app.errors import ApiError

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

_REMEMBER_SECONDS = 60
_REMEMBER_COUNT = 1000

_COST = 12


def user_id(header: str | None) -> str:
    """Return the id in X-User-ID. Raises ApiError 400 invalid_user_id; whether there is such an account, the database says."""
    if header is None or not _UUID.fullmatch(header):
        raise ApiError(400, "invalid_user_id", "X-User-ID must be the person's id, a UUID.")
    return header


def check_internal(header: str | None, token: str | None) -> None:
    """Check the Authorization header of the internal group against the shared secret, if there is one. Raises ApiError 401."""
    if token is None:
        return
    scheme, _, given = (header or "").partition(" ")
    if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), token.encode()):
        raise ApiError(401, "unauthorized", "The internal token is missing or wrong.", headers={"WWW-Authenticate": "Bearer"})


def hash_password(password: str) -> str:
    """Return the bcrypt hash (cost 12) of a password of at most 72 bytes."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(_COST)).decode()


class Administrators:
    """Checks Basic credentials against bcrypt hashes.

    A credential that was right is remembered for at most 60 seconds, as a digest keyed with a secret of this process, and only
    together with the hash it was right for: once the row says another, or none, it is forgotten. Unknown names cost the same.
    """

    def __init__(self, find_hash: Callable[[str], str | None]) -> None:
        self._find_hash = find_hash
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(_COST)).decode()

    def check(self, header: str | None) -> str:
        """Return the administrator's name. Raises ApiError 401."""
        name, password = _basic(header)
        stored = self._find_hash(name)
        digest = hmac.digest(self._key, b"\0".join((name.encode(), password, (stored or "").encode())), hashlib.sha256)
        if stored is not None and self._is_remembered(digest):
            return name
        # bcrypt looks at 72 bytes at most, and none of a hash of ours was made of more.
        is_right = bcrypt.checkpw(password[:72], (stored or self._nobody).encode()) and len(password) <= 72
        if stored is None or not is_right:
            raise _unauthorized()
        with self._lock:
            self._remembered[digest] = time.monotonic() + _REMEMBER_SECONDS
            while len(self._remembered) > _REMEMBER_COUNT:
                self._remembered.popitem(last=False)
        return name

    def _is_remembered(self, digest: bytes) -> bool:
        with self._lock:
            until = self._remembered.get(digest)
            if until is not None and until > time.monotonic():
                return True
            self._remembered.pop(digest, None)
            return False


def _basic(header: str | None) -> tuple[str, bytes]:
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        raise _unauthorized()
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        text = name.decode()
    except (binascii.Error, ValueError):
        raise _unauthorized() from None
    # A NUL can be neither in a name nor in what bcrypt compares.
    if not colon or b"\0" in name or b"\0" in password:
        raise _unauthorized()
    return text, password


def _unauthorized() -> ApiError:
    return ApiError(
        401,
        "unauthorized",
        "Sign in as an administrator.",
        headers={"WWW-Authenticate": 'Basic realm="galaxy-admin"'},
    )
