"""Games from their creation to their end, through HTTP, with a real job program and real engines."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.cluster import Cluster
from dev.mail_catcher import MailCatcher
from tests.contract.games import FAR, RudeEngine, answer_of, new_race
from tests.contract.requests import World
from tests.postgres import Database
from tests.services import Api, Person, Program, StartProgram, note_secret, session_database, simultaneously, travel, until
from workers.runtime.driver import Spec
from workers.runtime.process_driver import ProcessDriver

ADMINISTRATORS = "operators@example.org"
LAST_TURN = 4
# Longer than the sweep that looks for due turns takes to come round.
TWO_SWEEPS = 2.5

# One platform for all of them, where the run can see to it.
pytestmark = pytest.mark.xdist_group("games_story")


class Platform(World):
    """The API and the job program over one database, the mail they send, and the directory of the engines."""

    def __init__(
        self, api: Api, database: Database, mail: MailCatcher, engines: Path, start_worker: Callable[..., Program]
    ) -> None:
        super().__init__(api, database)
        self.mail = mail
        self.engines = engines
        self._start_worker = start_worker
        self.violations: set[Any] = set()

    def user(self, person: Person, method: str, path: str, status: int, body: Any = None) -> Any:
        """Ask in the name of somebody and return the JSON of an answer with a status."""
        return self._ask(person.header, method, f"/user{path}", status, body)

    def admin(self, method: str, path: str, status: int, body: Any = None) -> Any:
        """Ask as an administrator."""
        return self._ask(self.api.admin, method, f"/admin{path}", status, body)

    def _ask(self, headers: dict[str, str], method: str, path: str, status: int, body: Any) -> Any:
        answer = self.api.client.request(method, f"/api/v1{path}", headers=headers, **({} if body is None else {"json": body}))
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json()

    def version(self, image: str | None = None) -> str:
        """Register an engine version, with an image that can be started unless another is given."""
        version = f"1.{secrets.randbelow(10**9)}.0"
        self.admin("POST", "/engine-versions", 201, {"version": version, "image_ref": image or f"dev-engine:{version}"})
        return version

    @contextlib.contextmanager
    def reconciling(self) -> Iterator[None]:
        """Have another job program that looks after the engines all the time."""
        worker = self._start_worker(BACKEND_RUNTIME_RECONCILE_INTERVAL="500ms")
        try:
            yield
        finally:
            worker.close()

    def travel(self, interval: str) -> None:
        with self.connect() as connection:
            travel(connection, interval)

    def wait_for_mail(self, person: Person, subject: str) -> None:
        until(lambda: subject in {mail.subject for mail in self.mail.messages(person.email)})

    def query(self, sql: str, *arguments: Any) -> list[Any]:
        with self.connect() as connection:
            return connection.execute(sql, arguments).fetchall()


@pytest.fixture(scope="module")
def running(
    cluster: Cluster, template_database: str, session_starter: StartProgram, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    engines = tmp_path_factory.mktemp("games")
    with session_database(cluster, template_database, "story") as database, MailCatcher() as mail:
        common = {
            "BACKEND_GAME_STATE_ROOT": str(engines),
            "BACKEND_SMTP_PORT": str(mail.smtp_port),
            "BACKEND_NOTIFICATION_ADMIN_EMAIL": ADMINISTRATORS,
            "BACKEND_NOTIFICATION_WORKER_INTERVAL": "500ms",
            "BACKEND_MAIL_WORKER_INTERVAL": "500ms",
            "GALAXY_ENGINE_LAST_TURN": str(LAST_TURN),
        }
        api = session_starter("api", database, **common)
        worker = session_starter("worker", database, **common)
        assert isinstance(api, Api)
        until(lambda: worker.logged("working") or worker.process.poll() is not None)

        def start_worker(**more: str) -> Program:
            return session_starter("worker", database, **common, **more)

        platform = Platform(api.wait_ready(), database, mail, engines, start_worker)
        try:
            yield platform
        finally:
            worker.close()
            api.close()
            # Engines outlive the job program, to be adopted by the next.
            for record in engines.glob("*/process.json"):
                with contextlib.suppress(ProcessLookupError, KeyError, TypeError):
                    os.kill(json.loads(record.read_text())["pid"], signal.SIGKILL)


@pytest.fixture
def platform(running: Platform) -> Iterator[Platform]:
    yield running
    # A violation stays, and is the fault of one test only.
    found = set(running.query("SELECT * FROM invariants")) - running.violations
    running.violations |= found
    assert found == set()
    assert running.query("SELECT * FROM notification_malformed_intents") == []


class Match:
    """A game and the two who play it."""

    def __init__(self, platform: Platform, version: str | None = None, **body: Any) -> None:
        self.platform = platform
        self.owner, self.guest = platform.person(), platform.person()
        self.races = (new_race(), new_race())
        whole = {
            "game_name": f"Story {secrets.token_hex(3)}",
            "min_players": 2,
            "max_players": 2,
            "enrollment_ends_at": FAR,
            "turn_schedule": "0 0 * * *",
            "target_engine_version": version or platform.version(),
            "race_name": self.races[0],
        }
        made = platform.user(self.owner, "POST", "/lobby/games", 201, whole | body)
        assert (made["status"], made["member_count"]) == ("draft", 1)
        self.game_id: str = made["game_id"]
        self.path = f"/lobby/games/{self.game_id}"

    def do(self, action: str, status: int = 200) -> Any:
        return self.platform.user(self.owner, "POST", f"{self.path}/{action}", status)

    def state(self) -> Any:
        return self.platform.user(self.owner, "GET", self.path, 200)

    def wait_for(self, status: str) -> Any:
        """Wait until the game has a status, or one that it does not leave by itself."""

        def there() -> Any:
            found = self.state()
            return found if found["status"] in {status, "paused", "start_failed", "finished", "cancelled"} else None

        found = until(there, 60, 0.05)
        assert found["status"] == status, found
        return found

    def turn(self, number: int) -> Any:
        """Wait until a turn has been computed."""

        def there() -> Any:
            found = self.state()
            return found if found["current_turn"] == number and found["runtime_status"] == "running" else None

        return until(there, 60, 0.05)

    def force(self) -> None:
        self.platform.admin("POST", f"/runtimes/{self.game_id}/force-next-turn", 202)

    def fill(self) -> None:
        """Open enrolment, and have the guest take the other seat with a code."""
        assert self.do("open-enrollment")["status"] == "enrollment_open"
        invite = self.platform.user(self.owner, "POST", f"{self.path}/invites", 201, {})
        note_secret(invite["code"])
        seat = {"code": invite["code"], "race_name": self.races[1]}
        taken = self.platform.user(self.guest, "POST", "/lobby/invites/redeem", 200, seat)
        assert (taken["race_name"], taken["user_id"], taken["status"]) == (self.races[1], self.guest.user_id, "active")

    def start(self) -> Any:
        self.fill()
        assert self.do("ready-to-start")["status"] == "ready_to_start"
        assert self.do("start", 202)["status"] == "starting"
        return self.wait_for("running")

    def history(self) -> list[tuple[str, str]]:
        found = self.platform.user(self.owner, "GET", f"{self.path}/history", 200)["items"]
        return [(entry["action"], entry["actor_type"]) for entry in found]

    def race_tiers(self) -> list[str | None]:
        """Owner's, guest's: the tier in which each holds their name; None for not at all."""
        found = dict(self.platform.query("SELECT race_name, tier FROM race_names WHERE tier <> 'released'"))
        return [found.get(race) for race in self.races]


def test_from_creation_to_the_end(platform: Platform) -> None:
    match = Match(platform)
    platform.user(match.guest, "GET", match.path, 404)
    started = match.start()
    assert (started["current_turn"], started["runtime_status"], started["member_count"]) == (0, "running", 2)
    assert started["started_at"] is not None
    members = platform.user(match.guest, "GET", f"{match.path}/memberships", 200)["items"]
    assert [(m["user_id"], m["race_name"], m["planets"]) for m in members] == [
        (match.guest.user_id, match.races[1], 1),
        (match.owner.user_id, match.races[0], 1),
    ]
    # The owner's race is to earn its name: another planet, and more people.
    turns = f"/games/{match.game_id}"
    seen = platform.user(match.owner, "GET", f"{turns}/reports/0", 200)
    assert seen["race"] == match.races[0]
    home = seen["planets"][0]["number"]
    order = {"order": "settle", "planet": home, "target": home % 8 + 1, "people": 10}
    platform.user(match.owner, "POST", f"{turns}/orders", 200, {"turn": 0, "commands": [order]})

    # By force: now, and the next one by schedule is skipped.
    before = match.state()["next_turn_at"]
    match.force()
    forced = match.turn(1)
    assert forced["next_turn_at"] > before
    platform.travel("1 day")
    time.sleep(TWO_SWEEPS)
    assert match.state()["current_turn"] == 1, "the scheduled turn after a forced one is skipped"

    # Paused: no turn, however late it is.
    assert match.do("pause")["status"] == "paused"
    platform.user(match.owner, "POST", f"{match.path}/pause", 409)
    platform.admin("POST", f"/runtimes/{match.game_id}/force-next-turn", 409)
    platform.travel("3 days")
    time.sleep(TWO_SWEEPS)
    paused = match.state()
    assert (paused["status"], paused["status_reason"], paused["current_turn"]) == ("paused", "by_owner", 1)
    platform.user(match.owner, "POST", f"{turns}/orders", 409, {"turn": 1, "commands": []})
    assert platform.user(match.guest, "GET", f"{turns}/reports/1", 200)["race"] == match.races[1]

    # Again, from now on: nobody gave orders for what it was paused over.
    assert match.do("resume")["status"] == "running"
    time.sleep(TWO_SWEEPS)
    assert match.state()["current_turn"] == 1, "what it was paused over is not caught up with"

    # What was missed while nobody was there is one turn, and then they come by schedule.
    platform.travel("3 days")
    match.turn(2)
    time.sleep(TWO_SWEEPS)
    assert match.state()["current_turn"] == 2, "however many were missed, it is one turn"
    platform.travel("1 day")
    match.turn(3)

    # The engine says that it is over.
    match.force()
    over = match.wait_for("finished")
    assert (over["current_turn"], over["next_turn_at"], over["finished_at"] is not None) == (LAST_TURN, None, True)
    assert platform.user(match.owner, "GET", f"{turns}/reports/{LAST_TURN}", 200)["turn"] == LAST_TURN
    assert match.race_tiers() == ["pending_registration", None]
    platform.admin("POST", f"/runtimes/{match.game_id}/force-next-turn", 409)
    for action in ("start", "pause", "resume", "cancel", "open-enrollment", "ready-to-start", "retry-start"):
        platform.user(match.owner, "POST", f"{match.path}/{action}", 409)
    assert match.history() == [
        ("create", "user"),
        ("open-enrollment", "user"),
        ("ready-to-start", "user"),
        ("start", "user"),
        ("runtime-started", "job"),
        ("pause", "user"),
        ("resume", "user"),
        ("finish", "job"),
    ]
    turns_kept = platform.query("SELECT turn FROM game_turns WHERE game_id = %s ORDER BY turn", match.game_id)
    assert [turn for (turn,) in turns_kept] == list(range(LAST_TURN + 1))
    told = platform.query(
        "SELECT payload ->> 'turn', count(*), count(DISTINCT user_id) FROM notifications"
        " WHERE kind = 'game.turn.ready' AND payload ->> 'game_id' = %s GROUP BY 1 ORDER BY 1",
        match.game_id,
    )
    assert told == [(str(turn), 2, 2) for turn in range(1, LAST_TURN + 1)]
    for person in (match.owner, match.guest):
        for subject in ("Your game has started", "Your game is over"):
            platform.wait_for_mail(person, subject)

    # Its engine can be asked for a month, and what it has kept is kept.
    kept = sorted((platform.engines / match.game_id).glob("turn-*.json"))
    assert len(kept) > LAST_TURN
    platform.travel("31 days")
    with platform.reconciling():
        until(lambda: platform.admin("GET", f"/runtimes/{match.game_id}", 200)["status"] == "removed")
    platform.user(match.owner, "GET", f"{turns}/reports/{LAST_TURN}", 409)
    assert sorted((platform.engines / match.game_id).glob("turn-*.json")) == kept
    assert match.state()["status"] == "finished"


@pytest.mark.parametrize("status", ["draft", "enrollment_open", "ready_to_start"])
def test_cancelling_lets_the_race_names_go(status: str, platform: Platform) -> None:
    match = Match(platform)
    invited = platform.person()
    if status != "draft":
        match.fill()
    if status == "ready_to_start":
        match.do("ready-to-start")
    else:
        by_person = {"invited_user_id": invited.user_id}
        offered = platform.user(match.owner, "POST", f"{match.path}/invites", 201, by_person)
        assert platform.user(invited, "GET", match.path, 200)["game_id"] == match.game_id
    assert match.do("cancel")["status"] == "cancelled"
    assert match.race_tiers() == [None, None]
    if status != "ready_to_start":
        redeem = f"{match.path}/invites/{offered['invite_id']}/redeem"
        platform.user(invited, "POST", redeem, 404, {"race_name": new_race()})
        platform.user(invited, "GET", match.path, 404)
        items = platform.user(match.owner, "GET", f"{match.path}/invites", 200)["items"]
        assert {item["status"] for item in items} <= {"revoked", "redeemed"}
    # Somebody else takes the names in a game of their own.
    again = Match(platform, race_name=match.races[0].upper())
    assert again.state()["member_count"] == 1
    again.do("cancel")
    match.platform.user(match.owner, "POST", f"{match.path}/cancel", 409)


def test_a_start_that_fails_is_told_and_can_be_tried_again(platform: Platform) -> None:
    version = platform.version("registry.example.org/engine:1")
    match = Match(platform, version)
    match.fill()
    match.do("ready-to-start")
    match.do("start", 202)
    failed = match.wait_for("start_failed")
    assert failed["status_reason"] in ("image_pull_failed", "start_config_invalid")
    assert failed["runtime_status"] == "stopped"
    mails = platform.mail.wait(ADMINISTRATORS)
    assert any(match.game_id in (mail.text or "") for mail in mails)
    routes = platform.query(
        "SELECT r.status FROM notification_routes AS r JOIN notifications AS n USING (notification_id)"
        " WHERE n.user_id IS NULL AND n.payload ->> 'game_id' = %s",
        match.game_id,
    )
    assert routes == [("delivered",)]
    # Nothing has changed: it fails again, and is told again.
    match.do("retry-start", 202)
    match.wait_for("start_failed")
    platform.admin("PATCH", f"/engine-versions/{version}", 200, {"image_ref": f"dev-engine:{version}"})
    assert match.do("retry-start", 202)["status"] == "starting"
    assert match.wait_for("running")["current_turn"] == 0
    runtime = platform.admin("GET", f"/runtimes/{match.game_id}", 200)
    assert (runtime["generation"], runtime["image_ref"]) == (3, f"dev-engine:{version}")
    assert [o["outcome"] for o in runtime["operations"] if o["operation"] == "start"] == ["done", "failed", "failed"]
    assert [action for action, _ in match.history()][3:] == [
        "start", "runtime-failed", "retry-start", "runtime-failed", "retry-start", "runtime-started",
    ]  # fmt: skip


def test_a_failed_start_can_be_cancelled(platform: Platform) -> None:
    match = Match(platform, platform.version("registry.example.org/engine:1"))
    match.fill()
    match.do("ready-to-start")
    match.do("start", 202)
    match.wait_for("start_failed")
    match.do("cancel")
    assert match.race_tiers() == [None, None]
    found = until(lambda: platform.admin("GET", f"/runtimes/{match.game_id}", 200)["status"] == "removed")
    assert found is True
    assert list(platform.engines.glob(f"{match.game_id}/endpoint.json")) == []


def test_an_engine_that_nobody_wants_is_taken_away(platform: Platform) -> None:
    driver = ProcessDriver(platform.engines, stack=None, stop_grace=1)
    stray = str(uuid.uuid4())

    async def is_there() -> bool:
        return await driver.inspect(stray) is not None

    asyncio.run(driver.start(Spec(stray, 1, "1.0.0", "dev-engine:1.0.0")))
    assert asyncio.run(is_there())
    with platform.reconciling():
        until(lambda: not asyncio.run(is_there()))


@pytest.mark.parametrize(
    ("status", "turn"),
    [(1, 1), (1, 3), (0, 1)],
    ids=["it does not go on", "it leaps", "it has gone back"],
)
def test_an_engine_that_loses_count_pauses_its_game(status: int, turn: int, platform: Platform) -> None:
    match = Match(platform, turn_schedule="0 0 1 1 *")
    match.fill()
    match.do("ready-to-start")
    match.do("start", 202)
    match.wait_for("running")
    match.force()
    match.turn(1)
    ((endpoint,),) = platform.query("SELECT endpoint FROM runtime_records WHERE game_id = %s", match.game_id)
    state = httpx.get(f"{endpoint}/api/v1/admin/status", trust_env=False).json()

    def answer(connection: socket.socket, head: bytes) -> None:
        told = state | {"turn": turn if head.startswith(b"PUT") else status}
        connection.sendall(answer_of(200, json.dumps(told).encode()))

    with RudeEngine(answer) as engine:
        platform.query("UPDATE runtime_records SET endpoint = %s WHERE game_id = %s RETURNING 1", engine.url, match.game_id)
        match.force()
        found = until(lambda: (now := match.state())["status"] == "paused" and now, 60, 0.05)
    assert (found["status_reason"], found["current_turn"]) == ("generation_failed", 1)
    # The engine itself is well: it is found again, and the game goes on.
    with platform.reconciling():
        until(lambda: match.state()["runtime_status"] == "running")
    match.do("resume")
    match.force()
    match.turn(2)
    kept = platform.query("SELECT turn FROM game_turns WHERE game_id = %s ORDER BY turn", match.game_id)
    assert [turn for (turn,) in kept] == [0, 1, 2]


def test_a_person_is_invited_and_told_by_mail(platform: Platform) -> None:
    match = Match(platform)
    match.do("open-enrollment")
    by_person = {"invited_user_id": match.guest.user_id}
    invite = platform.user(match.owner, "POST", f"{match.path}/invites", 201, by_person)
    assert "code" not in invite
    (mail,) = platform.mail.wait(match.guest.email)
    name = match.state()["game_name"]
    assert mail.subject == "You are invited to a game"
    assert name in (mail.text or "")
    redeem = f"{match.path}/invites/{invite['invite_id']}/redeem"
    stranger = platform.person()
    platform.user(stranger, "POST", redeem, 404, {"race_name": new_race()})
    seat = platform.user(match.guest, "POST", redeem, 200, {"race_name": match.races[1]})
    assert seat["race_name"] == match.races[1]
    platform.user(match.guest, "POST", redeem, 404, {"race_name": match.races[1]})
    items = platform.user(match.owner, "GET", f"{match.path}/invites", 200)["items"]
    assert [item["status"] for item in items] == ["redeemed"]
    match.do("cancel")


def test_only_who_runs_a_game_takes_it_on(platform: Platform) -> None:
    match = Match(platform)
    match.fill()
    stranger = platform.person()
    for action in ("open-enrollment", "ready-to-start", "start", "pause", "resume", "cancel", "retry-start"):
        answer = platform.user(match.guest, "POST", f"{match.path}/{action}", 403)
        assert answer["error"]["code"] == "forbidden"
        platform.user(stranger, "POST", f"{match.path}/{action}", 404)
    assert match.state()["status"] == "enrollment_open"
    match.do("cancel")


def test_two_who_redeem_one_code_at_once_get_one_seat(platform: Platform) -> None:
    match = Match(platform, max_players=10)
    match.do("open-enrollment")
    invite = platform.user(match.owner, "POST", f"{match.path}/invites", 201, {})
    note_secret(invite["code"])
    people = [platform.person() for _ in range(4)]

    def redeem(number: int) -> httpx.Response:
        with platform.api.new_client() as client:
            return client.post(
                "/api/v1/user/lobby/invites/redeem",
                headers=people[number].header,
                json={"code": invite["code"], "race_name": new_race()},
            )

    assert sorted(answer.status_code for answer in simultaneously(4, redeem)) == [200, 404, 404, 404]
    assert match.state()["member_count"] == 2
    match.do("cancel")


def test_the_race_of_a_member_who_leaves_is_banished_at_the_engine(platform: Platform) -> None:
    match = Match(platform)
    match.start()
    seats = platform.user(match.owner, "GET", f"{match.path}/memberships", 200)["items"]
    (seat,) = (s for s in seats if s["user_id"] == match.guest.user_id)
    left = platform.user(match.guest, "POST", f"{match.path}/memberships/{seat['membership_id']}/remove", 200)
    assert left["status"] == "removed"
    until(
        lambda: platform.query(
            "SELECT FROM memberships WHERE membership_id = %s AND banished_at IS NOT NULL", seat["membership_id"]
        )
    )
    log = platform.query("SELECT operation, outcome FROM runtime_operation_log WHERE game_id = %s ORDER BY 1", match.game_id)
    assert log == [("banish", "done"), ("start", "done")]
    # The engine has heard of it: one race is left, and the game is over with the next turn, or goes on without the other.
    (endpoint,) = platform.query("SELECT endpoint FROM runtime_records WHERE game_id = %s", match.game_id)[0]
    state = httpx.get(f"{endpoint}/api/v1/admin/status", trust_env=False).json()
    assert {p["raceName"]: p["extinct"] for p in state["player"]}[match.races[1]] is True
    assert match.race_tiers() == ["reservation", None]
    platform.admin("POST", f"/games/{match.game_id}/force-stop", 202)
