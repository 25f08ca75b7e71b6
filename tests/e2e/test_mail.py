"""Mail against the whole platform, with a relay that is not always there: tried again, given up, sent again."""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from dev.demo import Person, Platform
from tests.e2e.platform import RunningPlatform
from tests.services import add_session, until
from tests.smtp_relay import FaultyRelay, Received

# A platform takes its ports when it starts: one at a time.
pytestmark = pytest.mark.xdist_group("platform")

OPERATORS = "operators@example.org"


@pytest.fixture
def relay() -> Iterator[FaultyRelay]:
    with FaultyRelay() as relay:
        yield relay


@pytest.fixture
def galaxy(relay: FaultyRelay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    environment = {
        "BACKEND_SMTP_PORT": str(relay.port),
        "BACKEND_MAIL_WORKER_INTERVAL": "200ms",
        "BACKEND_NOTIFICATION_ADMIN_EMAIL": OPERATORS,
    }
    running = RunningPlatform(tmp_path_factory.mktemp("mail") / "dev", environment)
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


def mails_to(relay: FaultyRelay, address: str) -> list[Received]:
    return [mail for mail in list(relay.received) if mail.recipients == (address,)]


def register(running: RunningPlatform, name: str) -> Person:
    """Somebody who has signed in, without a mail."""
    person = Person(name)
    with running.connect() as connection:
        row = connection.execute(
            "SELECT (backend.account_create('email', %s, %s, 'en', 'UTC', NULL)).user_id", [person.address, person.address]
        ).fetchone()
        assert row is not None
        person.user_id = str(row[0])
        person.session_id = add_session(connection, person.user_id)
    return person


def test_mail_is_tried_again_given_up_and_sent_again(galaxy: RunningPlatform, relay: FaultyRelay) -> None:
    platform = Platform(galaxy.places)

    # A code that the relay does not take at once comes some seconds later.
    ann = Person("Ann")
    relay.fail("RCPT", "450 4.2.1 later")
    body = {"email": ann.address}
    challenge = platform.request("POST", "/public/auth/send-email-code", 200, json=body)["challenge_id"]
    [code] = until(lambda: mails_to(relay, ann.address), timeout=60)
    found = re.search(r"\b[0-9]{6}\b", code.body())
    assert found is not None
    confirmed = platform.request(
        "POST",
        "/public/auth/confirm-email-code",
        200,
        json={
            "challenge_id": challenge,
            "code": found[0],
            "client_public_key": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=",
            "time_zone": "Europe/Berlin",
        },
    )
    ann.user_id = platform.session(confirmed["device_session_id"])["user_id"]

    # An invite that the relay refuses for good is a dead letter, of which the operators are told.
    bob = register(galaxy, "Bob")
    game = {
        "game_name": f"Mail {secrets.token_hex(3)}",
        "min_players": 2,
        "max_players": 2,
        "enrollment_ends_at": "2100-01-01T00:00:00Z",
        "turn_schedule": "0 0 1 1 *",
    }
    path = f"/lobby/games/{ann.ask(platform, 'POST', '/lobby/games', 201, json=game)['game_id']}"
    ann.ask(platform, "POST", f"{path}/open-enrollment", 200)
    relay.fail("RCPT", "550 5.1.1 no such user")
    ann.ask(platform, "POST", f"{path}/invites", 201, json={"invited_user_id": bob.user_id})

    def dead() -> list[Any]:
        items: list[Any] = platform.admin("GET", "/mail/dead-letters", 200)["items"]
        return items

    [letter] = until(dead, timeout=60)
    assert (letter["template_id"], letter["recipients"]) == ("lobby.invite.received", [bob.address])
    assert letter["dead_letter_reason"].startswith("550")
    [notice] = until(lambda: mails_to(relay, OPERATORS), timeout=60)
    assert letter["delivery_id"] in notice.body()
    assert mails_to(relay, bob.address) == []

    # Sent again by an administrator it arrives, once.
    resend = f"/mail/deliveries/{letter['delivery_id']}"
    assert platform.admin("POST", f"{resend}/resend", 200)["status"] == "pending"
    [invite] = until(lambda: mails_to(relay, bob.address), timeout=60)
    assert invite.message_id.startswith(f"<{letter['delivery_id']}@")
    until(lambda: platform.admin("GET", resend, 200)["status"] == "sent", timeout=60)
    attempts = platform.admin("GET", f"{resend}/attempts", 200)["items"]
    assert [(a["attempt_no"], a["outcome"]) for a in attempts] == [(1, "permanent"), (2, "sent")]
    assert platform.admin("POST", f"{resend}/resend", 409)["error"]["code"] == "already_sent"
    assert dead() == []
    assert galaxy.violations() == []
