"""Who is calling: a person whom the gateway has checked, the gateway itself, or an administrator."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections import OrderedDict
from typing import NamedTuple, Protocol

import bcrypt
import psycopg

from app.errors import ApiError, unavailable

log = logging.getLogger("galaxy.api")

_UUID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")

_REMEMBER_SECONDS = 60

# Seconds; a comparison of cost 12 takes a quarter of one.
_LONGEST_COMPARISON = 10.0
_REMEMBER_COUNT = 1000

_COST = 12

PASSWORD_BYTES = (12, 72)
"""The least and the most bytes of an administrator's password in UTF-8; bcrypt looks at no more than that."""


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


class Credential(NamedTuple):
    """What the database says of a name, to somebody at an address."""

    password_hash: str | None
    """bcrypt's; None for nobody."""
    source: str
    """What the address is told by: itself, or the network that one host can use all of."""
    retry_after: int | None
    """Seconds for which nobody of this name is let in from there."""
    compare_after: int | None
    """Seconds for which no password that comes from there is compared."""
    is_to_be_noted: bool
    """Whether a success should be told to the database."""


class Credentials(Protocol):
    """Where the hashes are, and where attempts are counted. Addresses are None where there is none."""

    def find(self, name: str, source: str | None) -> Credential:
        """Look a name up."""

    def failed(self, name: str, source: str | None) -> None:
        """Count a wrong password, for whatever name."""

    def used(self, name: str, source: str | None) -> None:
        """Note a right one."""


class _Comparison:
    """A password that is being compared, and what came of it."""

    def __init__(self, digest: bytes) -> None:
        self.digest = digest
        self.is_over = threading.Event()
        self.is_right = False


class Administrators:
    """Checks Basic credentials against bcrypt hashes.

    A credential that was right is remembered for at most 60 seconds, as a digest keyed with a secret of this process, and only
    together with the hash it was right for: once the row says another, or none, it is forgotten. Unknown names cost the same.
    """

    def __init__(self, credentials: Credentials, at_once: int) -> None:
        """At most `at_once` passwords are compared at the same time, so that guessing leaves threads for everything else.

        Of one address it is one at a time, so that guessing leaves places for those who are elsewhere. Requests that come at
        once with one credential from one address share one comparison.
        """
        self._credentials = credentials
        self._at_once = at_once
        self._comparing: dict[str, _Comparison] = {}
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()
        self._nobody = bcrypt.hashpw(secrets.token_bytes(16), bcrypt.gensalt(_COST)).decode()

    def check(self, header: str | None, source: str | None) -> str:
        """Return the name of the administrator who calls from an address. Raises ApiError 401, 429, 503."""
        name, password = _basic(header)
        found = self._credentials.find(name, source)
        if found.retry_after is not None:
            raise _too_many_attempts(found.retry_after)
        stored = found.password_hash
        digest = hmac.digest(self._key, b"\0".join((name.encode(), password, (stored or "").encode())), hashlib.sha256)
        if stored is None or not self._is_remembered(digest):
            if found.compare_after is not None:
                raise _too_many_attempts(found.compare_after)
            if not self._is_right(password, stored, found.source, digest):
                self._credentials.failed(name, source)
                raise _unauthorized()
            self._remember(digest)
        if found.is_to_be_noted:
            self._note(name, source)
        return name

    def _is_right(self, password: bytes, stored: str | None, source: str, digest: bytes) -> bool:
        with self._lock:
            shared = self._comparing.get(source)
            if shared is None:
                # Nobody waits for a place: those who wait would hold the threads.
                if len(self._comparing) >= self._at_once:
                    raise unavailable()
                comparison = self._comparing[source] = _Comparison(digest)
            elif shared.digest != digest:
                raise unavailable()
        if shared is not None:
            shared.is_over.wait(_LONGEST_COMPARISON)
            return shared.is_right
        try:
            # bcrypt looks at 72 bytes at most, and none of a hash of ours was made of more.
            is_equal = bcrypt.checkpw(password[:72], (stored or self._nobody).encode()) and len(password) <= 72
            comparison.is_right = stored is not None and is_equal
        finally:
            with self._lock:
                del self._comparing[source]
            comparison.is_over.set()
        return comparison.is_right

    def _note(self, name: str, source: str | None) -> None:
        try:
            self._credentials.used(name, source)
        except psycopg.Error as error:
            # Who is let in is let in; it is noted with the next request.
            log.warning("a sign-in was not noted", extra={"error": type(error).__name__, "sqlstate": error.sqlstate})

    def _remember(self, digest: bytes) -> None:
        with self._lock:
            self._remembered[digest] = time.monotonic() + _REMEMBER_SECONDS
            while len(self._remembered) > _REMEMBER_COUNT:
                self._remembered.popitem(last=False)

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


def _too_many_attempts(seconds: int) -> ApiError:
    return ApiError(
        429,
        "too_many_attempts",
        "Too many wrong passwords came from there.",
        {"retry_after": seconds},
        {"Retry-After": str(seconds)},
    )
