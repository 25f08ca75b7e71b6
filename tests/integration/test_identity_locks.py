"""Whoever changes what a way in leads to waits for whoever does so at that moment: two connections, the second seen waiting."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.identities import add_telegram, new_subject
from tests.contract.requests import World
from tests.postgres import Database
from tests.services import ADMIN, Api, new_email, until


@pytest.fixture
def world(shared_api: Api, shared_database: Database) -> World:
    return World(shared_api, shared_database)


def is_waited_for(world: World, held: str, parameters: list[Any], query: str, arguments: list[Any]) -> bool:
    """Whether a call of the API's functions waits for what another transaction holds, and goes on when that ends."""
    with (
        world.connect() as holder,
        world.database.connect("galaxy_api") as caller,
        world.connect() as watcher,
        ThreadPoolExecutor(1) as pool,
    ):
        with holder.transaction():
            holder.execute(held, parameters)
            called = pool.submit(caller.execute, query, arguments)
            waiting = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"

            def is_waiting() -> bool:
                return watcher.execute(waiting, [caller.info.backend_pid]).fetchone() == (True,)

            until(lambda: called.done() or is_waiting())
            has_waited = not called.done()
        called.result(30)
    return has_waited


LOCK = "SELECT identity_lock(%s, %s)"


def test_an_address_that_is_blocked_or_asked_for_waits_for_its_way_in(world: World) -> None:
    email = new_email()
    send = "SELECT api.email_code_send(%s, '123456', sha256('x'), NULL)"
    assert is_waited_for(world, LOCK, ["email", email], send, [json.dumps({"email": email})])
    block = "SELECT api.blocked_email_create(%s, %s)"
    assert is_waited_for(world, LOCK, ["email", email], block, [ADMIN, json.dumps({"email": email, "reason": "A test"})])


def test_a_way_in_that_is_opened_or_linked_waits_for_who_does_so(world: World) -> None:
    subject, person = new_subject(), world.person()
    link = "SELECT api.identity_link(%s, %s)"
    body = json.dumps({"provider": "telegram", "subject": subject})
    assert is_waited_for(world, LOCK, ["telegram", subject], link, [person.user_id, body])
    enter = "SELECT api.identity_session_open('telegram', %s, 'token', sha256(%s), NULL)"
    assert is_waited_for(world, LOCK, ["telegram", subject], enter, [json.dumps({"subject": subject}), subject.encode()])


@pytest.mark.parametrize("provider", ["email", "telegram"])
def test_whoever_goes_waits_for_who_signs_in(provider: str, world: World) -> None:
    ways: dict[str, Any] = {
        "api.my_account_delete(%s)": lambda user_id: [user_id],
        "api.user_soft_delete(%s, %s, '{}')": lambda user_id: [ADMIN, user_id],
        "api.identity_unlink(%s, 'email')": lambda user_id: [user_id],
    }
    for call, arguments in ways.items():
        person = world.person()
        subject = {"email": person.email, "telegram": add_telegram(world, person.user_id)}[provider]
        assert is_waited_for(world, LOCK, [provider, subject], f"SELECT {call}", arguments(person.user_id)), call


def test_counters_wait_for_a_deletion_and_find_nobody(world: World) -> None:
    person = world.person()
    counts = json.dumps([{"user_id": person.user_id, "country": "DE", "requests": 3}])
    gone = "SELECT account_delete(user_id) FROM (SELECT user_id FROM accounts WHERE user_id = %s FOR NO KEY UPDATE) AS a"
    assert is_waited_for(world, gone, [person.user_id], "SELECT api.geo_countries_add(%s)", [counts])
    with world.connect() as connection:
        counted = connection.execute("SELECT FROM user_country_counters WHERE user_id = %s", [person.user_id]).fetchall()
    assert counted == []
