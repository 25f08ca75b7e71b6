"""`make demo`: a whole story against what `make run` started, as a gateway would live it: over HTTP, SMTP and gRPC.

Each step is printed as it happens, and each answer is checked: the first that is not as it must be ends the story.
"""

from __future__ import annotations

import base64
import datetime
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
import psycopg
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ROOT = Path(__file__).resolve().parent.parent
ENDPOINTS = Path(os.environ.get("GALAXY_DEV_DIR") or ROOT / ".dev") / "endpoints.json"
PATIENCE = 30.0
# A schedule's smallest step is a minute, and a forced turn skips one.
SCHEDULE_PATIENCE = 150.0

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


def wait_for(what: str, ask: Callable[[], T | None], patience: float = PATIENCE) -> T:
    """Return what `ask` finds, asking again until it finds something."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        found = ask()
        if found is not None:
            return found
        time.sleep(0.05)
    raise StoryError(f"waited {patience:.0f} s in vain: {what}")


class Platform:
    """What `make run` started, as a gateway sees it."""

    def __init__(self, places: dict[str, Any]) -> None:
        """`places` is what endpoints.json says."""
        self.places = places
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

    def admin(self, method: str, path: str, status: int, **rest: Any) -> Any:
        return self.request(
            method, f"/admin{path}", status, auth=(self.places["admin_user"], self.places["admin_password"]), **rest
        )

    def session(self, session_id: str) -> Any:
        return self.request("GET", f"/internal/sessions/{session_id}", 200, headers=self.internal)


class Person:
    """Somebody with an address, a device and its Ed25519 key."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.address = f"{name.lower()}-{secrets.token_hex(4)}@example.org"
        self.session_id = ""
        self.user_id = ""

    def ask(self, platform: Platform, method: str, path: str, status: int, **rest: Any) -> Any:
        """Ask as this person, whom the gateway has checked."""
        return platform.request(method, f"/user{path}", status, headers={"X-User-ID": self.user_id}, **rest)

    def sign_in(self, platform: Platform, locale: str = "en-GB") -> None:
        """Ask for a code, read it from the mail, confirm it with a fresh key."""
        body = {"email": self.address, "locale": locale}
        before = platform.newest_mail(self.address)
        challenge = platform.request("POST", "/public/auth/send-email-code", 200, json=body)["challenge_id"]
        tell(f"{self.name} asked for a code; the challenge is {challenge}")
        mail = wait_for(f"mail to {self.name}", lambda: _unlike(before, platform.newest_mail(self.address)))
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


def _unlike(before: dict[str, Any] | None, mail: dict[str, Any] | None) -> dict[str, Any] | None:
    """A mail, unless it is the one that was there before."""
    return None if mail == before else mail


class Subscriber:
    """A gateway's push client in a process of its own, so that it can be killed like one."""

    def __init__(self, platform: Platform, client_id: str, cursor: str = "") -> None:
        self.cursor = cursor
        self.resume = ""
        self.events: list[dict[str, Any]] = []
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

    def invalidation(self, session_id: str) -> dict[str, Any]:
        """Wait for the invalidation of a session."""
        return wait_for(
            f"the invalidation of {session_id}",
            lambda: next((e for e in self.events if e.get("device_session_id") == session_id), None),
        )

    def client_event(self, user_id: str, kind: str, **payload: object) -> dict[str, Any]:
        """Wait for an event of a person with this payload."""

        def find() -> dict[str, Any] | None:
            return next(
                (
                    e
                    for e in self.events
                    if e["user_id"] == user_id and e["kind"] == kind and payload.items() <= e["payload"].items()
                ),
                None,
            )

        return wait_for(f"{kind} {payload}", find, patience=SCHEDULE_PATIENCE)

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


def game_in_play(platform: Platform, hurry: bool) -> None:
    """A private game of two: created, filled, started, played by force and by schedule, finished."""
    mark = secrets.token_hex(3)
    step("An administrator registers an engine version")
    version = f"1.0.{secrets.randbelow(10**8) + 1}"
    body: dict[str, Any] = {"version": version, "image_ref": f"dev-engine:{version}"}
    registered = platform.admin("POST", "/engine-versions", 201, json=body)
    check(registered["enabled"], f"{version} is enabled, image {registered['image_ref']}")

    step("Dana creates a private game with a seat of her own; Emil is invited by a code")
    subscriber = Subscriber(platform, f"demo-{mark}")
    dana, emil = Person("Dana"), Person("Emil")
    dana.sign_in(platform)
    emil.sign_in(platform, "de-AT")
    dana_race, emil_race = f"Zorg {mark}", f"Blips {mark}"
    ends_at = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=365)).isoformat()
    body = {
        "game_name": f"Friday night {mark}",
        "min_players": 2,
        "max_players": 2,
        "enrollment_ends_at": ends_at,
        "turn_schedule": "* * * * *",
        "target_engine_version": version,
        "race_name": dana_race,
    }
    game = dana.ask(platform, "POST", "/lobby/games", 201, json=body)
    path = f"/lobby/games/{game['game_id']}"
    check(game["status"] == "draft" and game["member_count"] == 1, f"game {game['game_id']} is a draft, Dana plays {dana_race}")
    emil.ask(platform, "GET", path, 404)
    tell("✓ for Emil there is no such game")
    opened = dana.ask(platform, "POST", f"{path}/open-enrollment", 200)
    check(opened["status"] == "enrollment_open", "enrolment is open")
    invite = dana.ask(platform, "POST", f"{path}/invites", 201, json={})
    tell(f"the invite's code, shown once: {invite['code']}")
    taken = {"code": invite["code"], "race_name": dana_race.upper().replace(" ", "-")}
    refused = emil.ask(platform, "POST", "/lobby/invites/redeem", 422, json=taken)
    check(refused["error"]["code"] == "name_taken", f"{taken['race_name']} is too much like {dana_race}: name_taken")
    seat = emil.ask(platform, "POST", "/lobby/invites/redeem", 200, json={"code": invite["code"], "race_name": emil_race})
    check(seat["race_name"] == emil_race, f"Emil has the last seat, and plays {emil_race}")
    again = emil.ask(platform, "POST", "/lobby/invites/redeem", 404, json={"code": invite["code"], "race_name": emil_race})
    check(again["error"]["code"] == "invite_not_found", "the code opens nothing any more")

    step("The game starts: a job starts an engine and tells it the races")
    ready = dana.ask(platform, "POST", f"{path}/ready-to-start", 200)
    check(ready["status"] == "ready_to_start", "enrolment is closed")
    starting = dana.ask(platform, "POST", f"{path}/start", 202)
    check(starting["status"] == "starting", "the start is under way")
    for person in (dana, emil):
        subscriber.client_event(person.user_id, "game.started", game_id=game["game_id"])
    running = dana.ask(platform, "GET", path, 200)
    check(running["status"] == "running" and running["current_turn"] == 0, "it runs, and both were told on the push stream")

    _write_to_each_other(platform, subscriber, game["game_id"], dana, emil, dana_race, emil_race)

    step("The administrator forces a turn")
    force = f"/runtimes/{game['game_id']}/force-next-turn"
    platform.admin("POST", force, 202)
    for person in (dana, emil):
        subscriber.client_event(person.user_id, "game.turn.ready", game_id=game["game_id"], turn=1)
    check(True, "game.turn.ready reached both on the push stream")
    reports = {p.name: p.ask(platform, "GET", f"/games/{game['game_id']}/reports/1", 200) for p in (dana, emil)}
    check(
        reports["Dana"]["race"] == dana_race and reports["Emil"]["race"] == emil_race, "each reads the report of their own race"
    )
    for line in reports["Dana"]["text"].splitlines()[:6]:
        tell(f"  {line}")

    step("Both send orders; the next turn comes by schedule")
    orders_path = f"/games/{game['game_id']}/orders"
    for person in (dana, emil):
        home = reports[person.name]["planets"][0]["number"]
        orders = {"turn": 1, "commands": [{"order": "grow", "planet": home}]}
        person.ask(platform, "POST", orders_path, 200, json=orders)
    stored = dana.ask(platform, "GET", f"{orders_path}?turn=1", 200)
    check("grow" in json.dumps(stored), "Dana's orders are stored")
    bad = {"turn": 1, "commands": [{"order": "conquer everything"}]}
    refused = emil.ask(platform, "POST", orders_path, 400, json=bad)
    check(refused["error"]["code"] == "engine_rejected", "what the engine does not know, it refuses: engine_rejected")
    if hurry:
        _move_clock(platform, minutes=2)
    else:
        tell("waiting for the schedule; a forced turn skips one minute")
    for person in (dana, emil):
        subscriber.client_event(person.user_id, "game.turn.ready", game_id=game["game_id"], turn=2)
    check(True, "turn 2 came by schedule")
    report = dana.ask(platform, "GET", f"/games/{game['game_id']}/reports/2", 200)
    check("grow" in json.dumps(report["orders"]), "Dana's report tells of the orders that were carried out")

    step("The rest is played by force, to the end")
    # A second planet: who has more planets and more people at their best than at first has earned their race's name.
    home = report["planets"][0]["number"]
    settle = {"order": "settle", "planet": home, "target": home % 8 + 1, "people": 10}
    dana.ask(platform, "POST", orders_path, 200, json={"turn": 2, "commands": [settle]})
    turn = 2
    while (seen := dana.ask(platform, "GET", path, 200))["status"] == "running":
        if seen["current_turn"] >= turn:
            turn = seen["current_turn"] + 1
            platform.admin("POST", force, 202)
        time.sleep(0.05)
    check(seen["status"] == "finished", f"the engine ended the game after turn {seen['current_turn']}")
    for person in (dana, emil):
        subscriber.client_event(person.user_id, "game.finished", game_id=game["game_id"])
    check(True, "game.finished reached both")
    turns = [e["payload"]["turn"] for e in subscriber.events if e["kind"] == "game.turn.ready" and e["user_id"] == dana.user_id]
    check(turns == list(range(1, seen["current_turn"] + 1)), "Dana was told of each turn once, in order")

    step("Dana's race grew: its name is earned, and she registers it")
    subscriber.client_event(dana.user_id, "lobby.race_name.pending", race_name=dana_race)
    mine = dana.ask(platform, "GET", "/lobby/my/race-names", 200)["items"]
    check(
        [n["status"] for n in mine if n["race_name"] == dana_race] == ["pending_registration"],
        f"{dana_race} waits to be registered",
    )
    registered = dana.ask(platform, "POST", "/lobby/race-names/register", 200, json={"race_name": dana_race})
    subscriber.client_event(dana.user_id, "lobby.race_name.registered", race_name=dana_race)
    check(registered["status"] == "registered", f"{dana_race} is hers for good")
    asked = emil.ask(platform, "GET", "/lobby/race-names/check", 200, params={"name": dana_race.upper()})
    check(asked["reason"] == "name_taken", "and nobody else's")

    step("The game is over")
    refused = platform.admin("POST", force, 409)
    check(refused["error"]["code"] == "game_not_running", "no turn can be forced any more")
    # Else every game made after this would be played with it.
    platform.admin("POST", f"/engine-versions/{version}/disable", 200)
    subscriber.kill()


def _write_to_each_other(
    platform: Platform, subscriber: Subscriber, game_id: str, dana: Person, emil: Person, dana_race: str, emil_race: str
) -> None:
    """Dana reads English, Emil German."""
    step("Dana and Emil write to each other; neither reads the other's language")
    path = f"/games/{game_id}/mail"
    pact = {"recipients": [emil_race], "subject": "A pact", "body": "Let us leave each other in peace. \N{DOVE OF PEACE}"}
    sent = dana.ask(platform, "POST", f"{path}/messages", 201, json=pact)
    tell(f"Dana wrote in {sent['language']}; Emil gets it when it is translated")
    subscriber.client_event(emil.user_id, "diplomail.received", game_id=game_id, message_id=sent["message_id"])
    message = emil.ask(platform, "GET", f"{path}/messages/{sent['message_id']}", 200)
    check(message["body"] == pact["body"] and message["sender_race_name"] == dana_race, "Emil reads what Dana wrote")
    translation = message["translation"] or {}
    check(translation.get("language") == "de", f"and in German: “{translation.get('body')}”")
    unread = emil.ask(platform, "GET", "/mail/unread", 200)["items"]
    check(unread == [{"game_id": game_id, "unread_count": 1}], "it counts as unread")
    emil.ask(platform, "POST", f"{path}/messages/{sent['message_id']}/read", 200)
    check(emil.ask(platform, "GET", "/mail/unread", 200)["items"] == [], "until he has read it")
    answer = emil.ask(platform, "POST", f"{path}/messages", 201, json={"recipients": [dana_race], "body": "Einverstanden."})
    subscriber.client_event(dana.user_id, "diplomail.received", message_id=answer["message_id"])
    inbox = dana.ask(platform, "GET", f"{path}/inbox", 200)["items"]
    check([m["body"] for m in inbox] == ["Einverstanden."], "Dana has Emil's answer in her inbox")
    dana.ask(platform, "DELETE", f"{path}/messages/{answer['message_id']}", 204)
    kept = [m["message_id"] for m in emil.ask(platform, "GET", f"{path}/sent", 200)["items"]]
    check(kept == [answer["message_id"]], "she deletes it for herself; Emil still has what he wrote")
    dana.ask(platform, "POST", f"{path}/messages", 422, json={"recipients": ["Nobody"], "body": "Hello?"})
    tell("✓ nobody else can be written to")


def _move_clock(platform: Platform, minutes: int) -> None:
    """Let the platform's clock jump, as only the owner of the database can."""
    with psycopg.connect(platform.places["postgres_dsn"]) as connection:
        connection.execute("UPDATE backend.clock SET clock_offset = clock_offset + make_interval(mins => %s)", (minutes,))
    tell(f"the platform's clock was moved on by {minutes} minutes")


def _places_of_another(serve_pid: int) -> dict[str, Any] | None:
    try:
        places: dict[str, Any] = json.loads(ENDPOINTS.read_text())
    except FileNotFoundError:
        return None
    return places if places["serve_pid"] != serve_pid else None


def _give_up(reason: str) -> NoReturn:
    print(f"\n✗ {reason}", file=sys.stderr, flush=True)
    sys.exit(1)


def main(arguments: list[str]) -> None:
    """Play the story; exit 1 at the first step that fails. `--hurry` moves the platform's clock instead of waiting."""
    if not ENDPOINTS.exists():
        _give_up("the platform is not running: start it with `make run`, in another terminal")
    started = time.monotonic()
    try:
        platform = Platform(json.loads(ENDPOINTS.read_text()))
        signed_in_devices(platform)
        game_in_play(platform, hurry="--hurry" in arguments)
    except (StoryError, httpx.HTTPError) as error:
        _give_up(str(error))
    print(f"\nAll of it held. {time.monotonic() - started:.1f} s.")


if __name__ == "__main__":
    main(sys.argv[1:])
