"""The country of an address, from a GeoLite2 Country database."""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import Path

import geoip2.database
import geoip2.errors
import maxminddb

from app import metrics

log = logging.getLogger("galaxy.api")

_Signature = tuple[int, int, int]


class Geo:
    """Look-ups in a database file. A file that is replaced is read again; one that cannot be read changes nothing.

    Raises OSError or InvalidDatabaseError when the first file cannot be read.
    """

    def __init__(self, path: Path, check_interval: float = 2.0) -> None:
        """`check_interval`: seconds for which the file is not looked at again."""
        self._path = path
        self._interval = check_interval
        self._signature = _signature(path)
        self._reader = _open(path)
        self._check_at = time.monotonic() + check_interval
        self._lock = threading.Lock()

    def country(self, address: str | None) -> str | None:
        """Return the ISO 3166-1 alpha-2 code of an address; None when it is not known."""
        if address is None:
            return None
        if time.monotonic() >= self._check_at:
            self._reload()
        try:
            found = self._reader.country(address).country.iso_code
        except geoip2.errors.AddressNotFoundError:
            found = None
        except (ValueError, maxminddb.InvalidDatabaseError):
            metrics.geo_lookups_total.add(1, {"outcome": "error"})
            return None
        metrics.geo_lookups_total.add(1, {"outcome": "unknown" if found is None else "found"})
        return found

    def close(self) -> None:
        self._reader.close()

    def _reload(self) -> None:
        # Whoever comes meanwhile uses what is there.
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._check_at = time.monotonic() + self._interval
            signature: _Signature | None = None
            try:
                signature = _signature(self._path)
                if signature == self._signature:
                    return
                # Not closed: somebody may be looking up in the old one just now.
                self._reader = _open(self._path)
                log.info("the geo database was read again")
            except (OSError, maxminddb.InvalidDatabaseError) as error:
                if signature is None and self._signature == _GONE:
                    return
                log.warning("the new geo database cannot be read; the old one stays", extra={"error": type(error).__name__})
            # Also of one that cannot be read: it is told once.
            self._signature = signature or _GONE
        finally:
            self._lock.release()


_GONE: _Signature = (0, 0, 0)


def _signature(path: Path) -> _Signature:
    found = os.stat(path)
    return found.st_mtime_ns, found.st_ino, found.st_size


def _open(path: Path) -> geoip2.database.Reader:
    # In memory: a file that is written over in place must not change, or end, under a look-up.
    reader = geoip2.database.Reader(path, mode=maxminddb.MODE_MEMORY)
    try:
        reader.country("0.0.0.0")  # noqa: S104 - an address that is in no country
    except geoip2.errors.AddressNotFoundError:
        pass
    except TypeError:
        raise maxminddb.InvalidDatabaseError("this is not a database of countries") from None
    return reader
