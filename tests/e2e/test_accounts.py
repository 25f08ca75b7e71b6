"""People and administrators from their first sign-in to their end, as a gateway and a console would live it."""

from __future__ import annotations

import secrets
from typing import Any

import httpx
import pytest

from dev.demo import Person, Platform
from tests.e2e.platform import RunningPlatform
from tests.services import fresh_secret

# A platform takes its ports when it starts: one at a time.
pytestmark = pytest.mark.xdist_group("platform")


def test_an_account_is_deleted_for_good_and_its_address_begins_anew(platform: RunningPlatform) -> None:
    galaxy = Platform(platform.places)
    ann, bob = Person("Ann"), Person("Bob")
    for person in (ann, bob):
        person.sign_in(galaxy)
    mark = secrets.token_hex(3)
    body = {
        "game_name": f"Last {mark}",
        "min_players": 2,
        "max_players": 2,
        "enrollment_ends_at": "2100-01-01T00:00:00Z",
        "turn_schedule": "0 0 1 1 *",
        "race_name": f"Alphas {mark}",
    }
    game = f"/lobby/games/{ann.ask(galaxy, 'POST', '/lobby/games', 201, json=body)['game_id']}"
    ann.ask(galaxy, "POST", f"{game}/open-enrollment", 200)
    invite = ann.ask(galaxy, "POST", f"{game}/invites", 201, json={})
    seat = {"code": invite["code"], "race_name": f"Betas {mark}"}
    bob.ask(galaxy, "POST", "/lobby/invites/redeem", 200, json=seat)

    galaxy.admin("POST", f"/users/{ann.user_id}/soft-delete", 204, json={"reason": "Asked for by letter"})
    assert ann.ask(galaxy, "GET", "/account", 403)["error"]["code"] == "account_deleted"
    session = galaxy.session(ann.session_id)
    assert (session["status"], session["client_public_key"]) == ("revoked", None)
    left = galaxy.request("GET", f"/internal/users/{ann.user_id}/account-internal", 200, headers=galaxy.internal)
    assert left["deleted_at"] is not None
    assert (left["email"], left["display_name"], left["identities"]) == (None, "deleted", [])
    assert bob.ask(galaxy, "GET", game, 200)["status"] == "cancelled"
    found = galaxy.admin("GET", "/users", 200, params={"q": ann.address})
    assert [user["user_id"] for user in found["items"]] == [ann.user_id], "who knows the address finds that it is gone"
    galaxy.admin("POST", f"/users/{ann.user_id}/soft-delete", 409, json={"reason": "Again"})

    again = Person("Ann")
    again.address = ann.address
    again.sign_in(galaxy)
    assert again.user_id != ann.user_id
    again.ask(galaxy, "GET", game, 404)
    assert platform.violations() == []


def test_administrators_come_and_go_and_the_last_one_stays(platform: RunningPlatform) -> None:
    galaxy = Platform(platform.places)
    first, second = fresh_secret(), fresh_secret()
    name = f"colleague-{secrets.token_hex(4)}"
    path = f"/admin-accounts/{name}"

    def answer(password: str) -> httpx.Response:
        url = f"{galaxy.places['http_url']}/api/v1/admin{path}"
        return httpx.get(url, auth=(name, password), trust_env=False, timeout=30)

    def actions() -> list[str]:
        log: Any = galaxy.admin("GET", "/audit", 200, params={"object_id": name})
        return [entry["action"] for entry in log["items"]]

    galaxy.admin("POST", "/admin-accounts", 201, json={"username": name, "password": first})
    assert answer(first).json()["username"] == name
    galaxy.admin("POST", f"{path}/disable", 200)
    assert answer(first).status_code == 401
    galaxy.admin("POST", f"{path}/enable", 200)
    assert answer(first).status_code == 200
    galaxy.admin("POST", f"{path}/reset-password", 204, json={"password": second})
    assert (answer(first).status_code, answer(second).status_code) == (401, 200)
    assert [answer(fresh_secret()).status_code for _ in range(11)] == [401] * 10 + [429]
    assert int(answer(second).headers["Retry-After"]) > 0, "a right one is not looked at any more"
    assert galaxy.admin("GET", path, 200)["disabled_at"] is None, "the others are"
    galaxy.admin("POST", f"{path}/disable", 200)
    root = galaxy.places["admin_user"]
    last = galaxy.admin("POST", f"/admin-accounts/{root}/disable", 409)
    assert last["error"]["code"] == "last_administrator"
    assert [action.removeprefix("administrator_") for action in actions()] == [
        "disable",
        "reset_password",
        "enable",
        "disable",
        "create",
    ]
    assert platform.violations() == []
