"""What a process notes in memory and writes down now and then, off the path of requests.

Notes are signals, not facts: a process that is killed, or a database that is away, loses some, and nothing else.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable

import psycopg

from app.context import Network, source_address
from app.database import Database, Statement
from app.geo import Geo

log = logging.getLogger("galaxy.api")

_UUIDS, _DOUBLES, _JSONB = 2951, 1022, 3802
_SESSIONS_SEEN = Statement("sessions_seen", "SELECT api.sessions_seen($1, $2)", (_UUIDS, _DOUBLES), False)
_COUNTRIES_ADD = Statement("geo_countries_add", "SELECT api.geo_countries_add($1)", (_JSONB,), False)
STATEMENTS = (_SESSIONS_SEEN, _COUNTRIES_ADD)

_MOST = 100_000
"""So many notes at most are kept; beyond them, what comes is not noted."""

_LONGEST = 256
"""So much of an X-Forwarded-For is kept."""

_BATCH = 1000


class SeenSessions:
    """Which sessions were asked for, and when: `device_sessions.last_seen_at`, once a minute at most."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._noted: dict[str, float] = {}
        self._recent: dict[str, float] = {}

    def note(self, device_session_id: str) -> None:
        """Note that a session was asked for; on the path of every client request, and mostly one look into a dict."""
        now = time.monotonic()
        if now - self._recent.get(device_session_id, -60.0) < 60.0:
            return
        with self._lock:
            if len(self._recent) >= _MOST:
                self._recent = {i: at for i, at in self._recent.items() if now - at < 60.0}
                if len(self._recent) >= _MOST:
                    return
            self._recent[device_session_id] = now
            self._noted[device_session_id] = now

    def flush(self) -> None:
        """Write down what was noted. Raises psycopg.Error."""
        with self._lock:
            noted, self._noted = sorted(self._noted.items()), {}
        for start in range(0, len(noted), _BATCH):
            batch = noted[start : start + _BATCH]
            now = time.monotonic()
            ids = ",".join(i for i, _ in batch)
            ages = ",".join(f"{now - at:.3f}" for _, at in batch)
            self._database.call(_SESSIONS_SEEN.name, [f"{{{ids}}}".encode(), f"{{{ages}}}".encode()])


class Countries:
    """From which countries people's requests came. Noted is who and from where; the country is looked up when it is written."""

    def __init__(self, database: Database, geo: Geo, trusted_proxies: tuple[Network, ...]) -> None:
        self._database = database
        self._geo = geo
        self._trusted_proxies = trusted_proxies
        self._lock = threading.Lock()
        self._noted: dict[tuple[str, str, str | None], int] = {}

    def note(self, user_id: str, peer: str, forwarded_for: str | None) -> None:
        """Count an answered request of a person, with what says where it came from."""
        if forwarded_for is not None and len(forwarded_for) > _LONGEST:
            # From the right, whole addresses: what a client makes up stands on the left, and must not fill the memory.
            forwarded_for = forwarded_for[-_LONGEST:].partition(",")[2]
        key = (user_id.lower(), peer, forwarded_for)
        with self._lock:
            if key in self._noted or len(self._noted) < _MOST:
                self._noted[key] = self._noted.get(key, 0) + 1

    def flush(self) -> None:
        """Write down what was noted. Raises psycopg.Error."""
        with self._lock:
            noted, self._noted = self._noted, {}
        counts: dict[tuple[str, str], int] = {}
        for (user_id, peer, forwarded_for), requests in noted.items():
            environ = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": forwarded_for or ""}
            country = self._geo.country(source_address(environ, self._trusted_proxies))
            if country is not None:
                counts[user_id, country] = counts.get((user_id, country), 0) + requests
        rows = [{"user_id": u, "country": c, "requests": n} for (u, c), n in sorted(counts.items())]
        for start in range(0, len(rows), _BATCH):
            self._database.call(_COUNTRIES_ADD.name, [json.dumps(rows[start : start + _BATCH]).encode()])


class Flusher:
    """A thread that writes notes down every few seconds, and once more at the end. Start it after a fork."""

    def __init__(self, flushes: Iterable[Callable[[], None]], interval: float = 2.0) -> None:
        self._flushes = tuple(flushes)
        self._interval = interval
        self._ending = threading.Event()
        self._is_warned = False
        self._thread = threading.Thread(target=self._run, name="notes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Write down what is left. To be called when no more requests are served."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.wait(self._interval):
            self._flush()
        self._flush()

    def _flush(self) -> None:
        for flush in self._flushes:
            try:
                flush()
            except psycopg.Error as error:
                if not self._is_warned:
                    log.warning("notes were lost", extra={"error": type(error).__name__, "sqlstate": error.sqlstate})
                self._is_warned = True
                return
            except Exception:
                # A thread that ends would end in silence; what was noted is lost, what comes is not.
                log.exception("notes were lost")
                return
        self._is_warned = False
