"""A small database in the shape of GeoLite2-Country, for development and tests.

    python -m dev.geo_sample FILE

It knows only addresses that are reserved for documentation, so no real address has a country in it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mmdb_writer import MMDBWriter
from netaddr import IPSet

# Network → ISO code of the country.
NETWORKS = {
    "192.0.2.0/26": "DE",
    "192.0.2.64/26": "FR",
    "192.0.2.128/26": "GB",
    "192.0.2.192/26": "NL",
    "198.51.100.0/25": "US",
    "198.51.100.128/25": "BR",
    "203.0.113.0/25": "JP",
    "203.0.113.128/25": "AU",
    "2001:db8::/34": "DE",
    "2001:db8:4000::/34": "US",
    "2001:db8:8000::/34": "JP",
    "2001:db8:c000::/34": "BR",
}

# ISO code → name, GeoNames id, code of the continent, whether it is in the European Union.
COUNTRIES = {
    "AU": ("Australia", 2077456, "OC", False),
    "BR": ("Brazil", 3469034, "SA", False),
    "DE": ("Germany", 2921044, "EU", True),
    "FR": ("France", 3017382, "EU", True),
    "GB": ("United Kingdom", 2635167, "EU", False),
    "JP": ("Japan", 1861060, "AS", False),
    "NL": ("The Netherlands", 2750405, "EU", True),
    "US": ("United States", 6252001, "NA", False),
}

CONTINENTS = {
    "AS": ("Asia", 6255147),
    "EU": ("Europe", 6255148),
    "NA": ("North America", 6255149),
    "OC": ("Oceania", 6255151),
    "SA": ("South America", 6255150),
}


def write(path: Path) -> None:
    """Write the database to `path`, replacing it in one step."""
    writer = MMDBWriter(
        ip_version=6,
        ipv4_compatible=True,
        database_type="GeoLite2-Country",
        languages=["en"],
        description={"en": "Sample data: documentation networks only"},
    )
    for network, code in NETWORKS.items():
        writer.insert_network(IPSet([network]), _entry(code))
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{os.getpid()}")
    writer.to_db_file(str(unfinished))
    unfinished.replace(path)


def _entry(code: str) -> dict[str, object]:
    name, geoname_id, continent_code, is_in_union = COUNTRIES[code]
    continent_name, continent_id = CONTINENTS[continent_code]
    country: dict[str, object] = {"iso_code": code, "geoname_id": geoname_id, "names": {"en": name}}
    if is_in_union:
        country["is_in_european_union"] = True
    return {
        "continent": {"code": continent_code, "geoname_id": continent_id, "names": {"en": continent_name}},
        "country": country,
        "registered_country": country,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dev.geo_sample FILE")
    write(Path(sys.argv[1]))
