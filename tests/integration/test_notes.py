"""What is noted in memory and written down off the path of requests: when sessions were seen, and from where people come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import maxminddb
import psycopg
import pytest

from app.geo import Geo
from dev import geo_sample
from dev.cluster import free_port
from tests.contract.identities import add_token_session
from tests.contract.requests import World
from tests.postgres import Database
from tests.services import Api, delete_account, travel, until


@pytest.fixture
def world(api: Api, database: Database) -> World:
    return World(api, database)


@pytest.fixture
def db(database: Database) -> Iterator[psycopg.Connection[Any]]:
    with database.cluster.connect(database.name, options="-csearch_path=backend") as connection:
        yield connection


def look(api: Api, session_id: str, **headers: str) -> httpx.Response:
    return api.client.get(f"/api/v1/internal/sessions/{session_id}", headers={**api.internal, **headers})


def seen(db: psycopg.Connection[Any], session_id: str) -> Any:
    row = db.execute("SELECT last_seen_at FROM device_sessions WHERE device_session_id = %s", [session_id]).fetchone()
    assert row is not None
    return row[0]


def account(api: Api, user_id: str, address: str | None) -> None:
    headers = {"X-User-ID": user_id, **({} if address is None else {"X-Forwarded-For": address})}
    api.client.get("/api/v1/user/account", headers=headers)


def countries(world: World, user_id: str) -> dict[str, int]:
    path = f"/api/v1/admin/geo/users/{user_id}/countries"
    items = world.api.client.get(path, headers=world.api.admin).json()["items"]
    return {item["country"]: item["requests"] for item in items}


def test_a_session_that_is_looked_up_is_seen_without_a_change_of_its_bytes(world: World, db: psycopg.Connection[Any]) -> None:
    person, other = world.person(), world.person()
    first = look(world.api, person.device_session_id.upper())
    until(lambda: seen(db, person.device_session_id))
    again = look(world.api, person.device_session_id, **{"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304
    assert seen(db, other.device_session_id) is None
    listed = world.api.client.get("/api/v1/user/account/sessions", headers=person.header).json()["items"]
    assert listed[0]["last_seen_at"] is not None


def test_a_bearer_tokens_session_is_seen(world: World, db: psycopg.Connection[Any]) -> None:
    token = add_token_session(world, world.person().user_id)
    path = "/api/v1/internal/sessions/resolve"
    session = world.api.client.post(path, json={"token": token}, headers=world.api.internal).json()
    until(lambda: seen(db, session["device_session_id"]))


def test_what_was_noted_is_written_when_the_program_ends(world: World, db: psycopg.Connection[Any]) -> None:
    person = world.person()
    look(world.api, person.device_session_id)
    account(world.api, person.user_id, "192.0.2.1")
    assert world.api.stop() == 0
    assert seen(db, person.device_session_id) is not None
    assert db.execute("SELECT country, requests FROM user_country_counters").fetchall() == [("DE", 1)]


def test_trouble_with_notes_troubles_nobody(world: World, db: psycopg.Connection[Any]) -> None:
    person, other = world.person(), world.person()
    db.execute("ALTER FUNCTION api.sessions_seen(uuid[], double precision[]) RENAME TO sessions_seen_not")
    look(world.api, person.device_session_id)
    until(lambda: world.api.logged("notes were lost"))
    look(world.api, other.device_session_id)
    account(world.api, other.user_id, "192.0.2.1")
    db.execute("ALTER FUNCTION api.sessions_seen_not(uuid[], double precision[]) RENAME TO sessions_seen")
    last = world.person()
    look(world.api, last.device_session_id)
    until(lambda: seen(db, last.device_session_id))
    assert len(world.api.logged("notes were lost")) == 1
    assert seen(db, person.device_session_id) is None


def test_answered_requests_are_counted_by_country(world: World, db: psycopg.Connection[Any]) -> None:
    person = world.person()
    for address in ("192.0.2.1", "192.0.2.2, 10.0.0.1", "203.0.113.1", "8.8.8.8", None):
        account(world.api, person.user_id.upper(), address)
    # What was refused is not counted, nor is what no person asked for.
    world.api.client.get("/api/v1/user/account?x=1", headers={**person.header, "X-Forwarded-For": "192.0.2.1"})
    look(world.api, person.device_session_id, **{"X-Forwarded-For": "192.0.2.1"})
    # What is not modified is answered.
    first = world.api.client.get("/api/v1/user/account", headers=person.header)
    headers = {**person.header, "X-Forwarded-For": "198.51.100.1", "If-None-Match": first.headers["ETag"]}
    assert world.api.client.get("/api/v1/user/account", headers=headers).status_code == 304
    until(lambda: countries(world, person.user_id) == {"DE": 2, "JP": 1, "US": 1})
    delete_account(db, person.user_id)
    assert countries(world, person.user_id) == {}


def test_a_country_file_that_is_replaced_is_read_again(
    database: Database, start_api: Callable[..., Api], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "countries.mmdb"
    geo_sample.write(path)
    port = free_port()
    api = start_api(
        database,
        BACKEND_GEOIP_DB_PATH=str(path),
        BACKEND_OTEL_METRICS_EXPORTER="prometheus",
        BACKEND_OTEL_PROMETHEUS_LISTEN_ADDR=f"127.0.0.1:{port}",
    )
    world = World(api, database)
    person = world.person()

    def ask(address: str) -> dict[str, int]:
        account(api, person.user_id, address)
        return countries(world, person.user_id)

    until(lambda: "DE" in ask("192.0.2.1"))
    # Written over in place, as a careless copy does.
    path.write_bytes(b"not a database")
    until(lambda: ask("203.0.113.1") and api.logged("the new geo database cannot be read"))
    until(lambda: "JP" in ask("203.0.113.1"))
    monkeypatch.setattr(geo_sample, "NETWORKS", {"192.0.2.0/24": "GB"})
    geo_sample.write(path)
    until(lambda: "GB" in ask("192.0.2.1"))
    assert len(api.logged("the new geo database cannot be read")) == 1
    account(api, person.user_id, "8.8.8.8")
    with httpx.Client() as client:
        until(lambda: 'geo_lookups_total{outcome="unknown"}' in client.get(f"http://127.0.0.1:{port}/metrics").text)
        assert 'geo_lookups_total{outcome="found"}' in client.get(f"http://127.0.0.1:{port}/metrics").text


def test_a_session_is_seen_again_after_a_minute(
    database: Database, db: psycopg.Connection[Any], start_api: Callable[..., Api]
) -> None:
    """Each of two processes, which know nothing of each other, writes; within the minute only one of them."""
    one, two = start_api(database), start_api(database)
    person = World(one, database).person()
    look(one, person.device_session_id)
    first = until(lambda: seen(db, person.device_session_id))
    look(two, person.device_session_id)
    assert two.stop() == 0
    assert seen(db, person.device_session_id) == first
    three = start_api(database)
    travel(db, "61 seconds")
    look(three, person.device_session_id)
    assert three.stop() == 0
    assert seen(db, person.device_session_id) > first


def test_a_file_of_another_kind_is_no_database_of_countries(tmp_path: Path) -> None:
    from mmdb_writer import MMDBWriter
    from netaddr import IPSet

    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="GeoLite2-ASN")
    writer.insert_network(IPSet(["192.0.2.0/24"]), {"autonomous_system_number": 1})
    writer.to_db_file(str(tmp_path / "asn.mmdb"))
    with pytest.raises(maxminddb.InvalidDatabaseError):
        Geo(tmp_path / "asn.mmdb")
    os.unlink(tmp_path / "asn.mmdb")
    with pytest.raises(OSError):
        Geo(tmp_path / "asn.mmdb")
