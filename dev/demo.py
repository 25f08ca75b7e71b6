"""`make demo`: a whole story against what `make run` started, as a gateway would live it: over HTTP, SMTP and gRPC.

Each step is printed as it happens, and each answer is checked: the first that is not as it must be ends the story.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parent.parent
ENDPOINTS = Path(os.environ.get("GALAXY_DEV_DIR") or ROOT / ".dev") / "endpoints.json"
PATIENCE = 30.0

T = TypeVar("T")


class StoryError(Exception):
    """Something did not happen as it must."""


def step(text: str) -> None:
    print(f"\n• {text}", flush=True)


def tell(text: str) -> None:
    print(f"    {text}", flush=True)


def check(is_true: bool, what: str) -> None:
    if not is_true:
        raise StoryError(what)
    tell(f"✓ {what}")


def wait_for(what: str, ask: Callable[[], T | None]) -> T:
    """Return what `ask` finds, asking again until it finds something."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = ask()
        if found is not None:
            return found
        time.sleep(0.05)
    raise StoryError(f"waited {PATIENCE:.0f} s in vain: {what}")


class Platform:
    """What `make run` started, as a gateway sees it."""

    def __init__(self) -> None:
        self.places: dict[str, Any] = json.loads(ENDPOINTS.read_text())
        self.internal = {"Authorization": f"Bearer {self.places['internal_token']}"}

    def request(self, method: str, path: str, status: int, **rest: Any) -> Any:
        """Ask on a connection of its own, so that any process may answer; check the status, return the body."""
        with httpx.Client(base_url=self.places["http_url"], timeout=PATIENCE, trust_env=False) as client:
            answer = client.request(method, f"/api/v1{path}", **rest)
        if answer.status_code != status:
            raise StoryError(f"{method} {path} answered {answer.status_code}, not {status}: {answer.text}")
        return answer.json() if answer.content else None

    def newest_mail(self, address: str) -> dict[str, Any] | None:
        answer = httpx.get(f"{self.places['mail_url']}/messages", params={"to": address}, trust_env=False)
        items = answer.json()["items"]
        return items[0] if items else None

    def session(self, session_id: str) -> Any:
        return self.request("GET", f"/internal/sessions/{session_id}", 200, headers=self.internal)


class Person:
    """Somebody with an address, a device and its Ed25519 key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = f"{name.lower()}-{secrets.token_hex(4)}@example.org"
        self.session_id = ""
        self.user_id = ""

    def sign_in(self, platform: Platform) -> None:
        """Ask for a code, read it from the mail, confirm it with a fresh key."""
        body = {"email": self.address, "locale": "en-GB"}
        challenge = platform.request("POST", "/public/auth/send-email-code", 200, json=body)["challenge_id"]
        tell(f"{self.name} asked for a code; the challenge is {challenge}")
        mail = wait_for(f"mail to {self.name}", lambda: platform.newest_mail(self.address))
        code = re.search(r"\b[0-9]{6}\b", mail["text"])
        if code is None:
            raise StoryError("the mail has no code")
        tell(f"a mail came over SMTP: “{mail['subject']}”")
        key = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
        confirmed = platform.request(
            "POST",
            "/public/auth/confirm-email-code",
            200,
            json={
                "challenge_id": challenge,
                "code": code[0],
                "client_public_key": base64.b64encode(key).decode(),
                "time_zone": "Europe/Berlin",
            },
        )
        self.session_id = confirmed["device_session_id"]
        session = platform.session(self.session_id)
        self.user_id = session["user_id"]
        check(session["status"] == "active", f"{self.name} is signed in: session {self.session_id} is active")
        check(base64.b64decode(session["client_public_key"]) == key, "the gateway is given the device's key")
        account = platform.request("GET", "/user/account", 200, headers={"X-User-ID": self.user_id})
        check(account["email"] == self.address, f"the account is {account['user_name']}, tier {account['entitlement']['tier']}")


class Subscriber:
    """A gateway's push client in a process of its own, so that it can be killed like one."""

    def __init__(self, platform: Platform, client_id: str, cursor: str = "") -> None:
        self.cursor = cursor
        self.resume = ""
        self.events: list[dict[str, str]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dev.demo_subscriber", platform.places["grpc_target"], client_id, cursor],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "INTERNAL_TOKEN": platform.places["internal_token"]},
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        wait_for("the stream to open", lambda: self.resume or None)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            event = json.loads(line)
            if "resume" in event:
                self.resume = event["resume"]
                continue
            self.cursor = event["cursor"]
            self.events.append(event)

    def invalidation(self, session_id: str) -> dict[str, str]:
        """Wait for the invalidation of a session."""
        return wait_for(
            f"the invalidation of {session_id}",
            lambda: next((e for e in self.events if e.get("device_session_id") == session_id), None),
        )

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join()


def signed_in_devices(platform: Platform) -> None:
    """People sign in; sessions are revoked, and no gateway misses it, whoever is killed."""
    gateway = f"demo-{secrets.token_hex(4)}"

    step("A gateway subscribes to the push stream")
    subscriber = Subscriber(platform, gateway)
    check(subscriber.resume == "fresh", "the stream begins from now")

    step("Three people sign in by a mailed code")
    ann, bob = Person("Ann"), Person("Bob")
    ann.sign_in(platform)
    bob.sign_in(platform)
    cleo = Person("Cleo")
    cleo.sign_in(platform)

    step("Ann's session is revoked")
    revoke = {"json": {"reason": "logout"}, "headers": platform.internal}
    revoked = platform.request("POST", f"/internal/sessions/{ann.session_id}/revoke", 200, **revoke)
    check(revoked["status"] == "revoked", "the answer says so")
    told = subscriber.invalidation(ann.session_id)
    check(told["reason"] == "logout", f"its SessionInvalidation came on the push stream, cursor {told['cursor']}")
    answers = {platform.session(ann.session_id)["status"] for _ in range(40)}
    check(answers == {"revoked"}, "40 look-ups on connections of their own, whichever process answers: revoked")
    check(platform.session(bob.session_id)["status"] == "active", "Bob's session is untouched")

    step("The subscriber is killed; meanwhile Bob revokes his own device")
    cursor = subscriber.cursor
    subscriber.kill()
    identity = {"X-User-ID": bob.user_id}
    platform.request("POST", f"/user/account/sessions/{bob.session_id}/revoke", 200, headers=identity)
    subscriber = Subscriber(platform, gateway, cursor)
    check(subscriber.resume == "exact", f"a new one resumes exactly, after {cursor}")
    told = subscriber.invalidation(bob.session_id)
    check(told["reason"] == "revoked_by_user", "what it had missed has come")

    step("`serve` is killed with -9")
    cursor = subscriber.cursor
    killed = platform.places["serve_pid"]
    os.kill(killed, signal.SIGKILL)
    tell(f"process {killed} is gone, and its programs with it; waiting for the next")
    platform.places = wait_for("serve to come back", lambda: _places_of_another(killed))
    check(platform.session(ann.session_id)["status"] == "revoked", "Ann's session is still revoked")
    check(platform.session(bob.session_id)["status"] == "revoked", "Bob's session is still revoked")
    check(platform.session(cleo.session_id)["status"] == "active", "Cleo's session is still active")
    platform.request("POST", f"/internal/sessions/users/{cleo.user_id}/revoke-all", 200, **revoke)
    subscriber.kill()
    again = Subscriber(platform, gateway, cursor)
    check(again.resume == "exact", "a subscriber resumes exactly over the restart")
    told = wait_for(
        "the invalidation of all of Cleo's sessions",
        lambda: next((e for e in again.events if e.get("user_id") == cleo.user_id), None),
    )
    check(told["device_session_id"] == "", "one invalidation came for all of Cleo's devices")
    check(platform.session(cleo.session_id)["status"] == "revoked", "and they are revoked")
    again.kill()


def _places_of_another(serve_pid: int) -> dict[str, Any] | None:
    try:
        places: dict[str, Any] = json.loads(ENDPOINTS.read_text())
    except FileNotFoundError:
        return None
    return places if places["serve_pid"] != serve_pid else None


def _give_up(reason: str) -> NoReturn:
    print(f"\n✗ {reason}", file=sys.stderr, flush=True)
    sys.exit(1)


def main() -> None:
    """Play the story; exit 1 at the first step that fails."""
    if not ENDPOINTS.exists():
        _give_up("the platform is not running: start it with `make run`, in another terminal")
    started = time.monotonic()
    try:
        signed_in_devices(Platform())
    except (StoryError, httpx.HTTPError) as error:
        _give_up(str(error))
    print(f"\nAll of it held. {time.monotonic() - started:.1f} s.")


if __name__ == "__main__":
    main()
