"""The country of an address, from a GeoLite2 Country database."""

from __future__ import annotations

from pathlib import Path

import geoip2.database
import geoip2.errors
import maxminddb


class Geo:
    """Look-ups in a database file that is opened once. Raises OSError or InvalidDatabaseError when it cannot be."""

    def __init__(self, path: Path) -> None:
        self._reader = geoip2.database.Reader(path)

    def country(self, address: str | None) -> str | None:
        """Return the ISO 3166-1 alpha-2 code of an address; None when it is not known."""
        if address is None:
            return None
        try:
            return self._reader.country(address).country.iso_code
        except (geoip2.errors.AddressNotFoundError, ValueError, maxminddb.InvalidDatabaseError):
            return None

    def close(self) -> None:
        self._reader.close()
