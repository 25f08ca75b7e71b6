"""Many at once, each on a connection of their own: a seat, a code, a name, a lease and a turn are somebody's once."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import psycopg
import pytest

from tests.postgres import Database

CROWD = 50


class Call(NamedTuple):
    """A function of a door, and what it is called with; dictionaries go as JSON."""

    function: str
    arguments: Sequence[Any]


def redeem_by_code(user_id: str, code: str, race_name: str) -> Call:
    return Call("api.invite_redeem_by_code", (user_id, {"race_name": race_name}, hashlib.sha256(code.encode()).digest()))


class World:
    """A database with people and games in it, made through the doors."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.db = database.connect()
        self.db.execute("INSERT INTO engine_versions (version, image_ref) VALUES ('1.0.0', 'engine:1')")
        self.db.execute("INSERT INTO admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53))")
        self._people = 0
        self._connections: dict[str, list[psycopg.Connection[Any]]] = {}

    def one(self, query: str, *parameters: Any) -> Any:
        row = self.db.execute(query, parameters).fetchone()
        return None if row is None else row[0]

    def people(self, count: int, tier: str = "free") -> list[str]:
        addresses: list[str] = [f"p{self._people + n}@example.org" for n in range(count)]
        self._people += count
        query = "SELECT (account_create('email', e, e, 'en', 'UTC', NULL)).user_id::text FROM unnest(%s::text[]) AS e"
        ids = [row[0] for row in self.db.execute(query, (addresses,)).fetchall()]
        self.db.execute(
            "INSERT INTO entitlement_records (user_id, tier, source, reason_code, starts_at)"
            " SELECT u, %s, 'admin', 'test', backend.now() FROM unnest(%s::uuid[]) AS u",
            (tier, ids),
        )
        self.db.execute("SELECT entitlement_settle(u) FROM unnest(%s::uuid[]) AS u", (ids,))
        return ids

    def call(self, call: Call, login: str = "galaxy_api") -> Any:
        """Run one call and return its JSON, or its value; raises what it raises."""
        return run(self._of(login, 1)[0], call)

    def game(self, owner: str, **more: Any) -> str:
        body = {
            "game_name": "Crowd",
            "min_players": 2,
            "max_players": 2,
            "enrollment_ends_at": "2100-01-01T00:00:00Z",
            "turn_schedule": "0 0 1 1 *",
        }
        game_id: str = self.call(Call("api.game_create", (owner, {**body, **more})))["game_id"]
        return game_id

    def invite(self, owner: str, game_id: str, code: str) -> str:
        arguments: tuple[Any, ...] = (owner, game_id, {}, code, hashlib.sha256(code.encode()).digest())
        invite_id: str = self.call(Call("api.invite_create", arguments))["invite_id"]
        return invite_id

    def command(self, action: str, owner: str, game_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.call(Call(f"api.game_{action}", (owner, game_id)))
        return answer

    def enrolling(self, owner: str, seats: int, **more: Any) -> str:
        game_id = self.game(owner, max_players=seats, **more)
        self.command("open_enrollment", owner, game_id)
        return game_id

    def ready(self, owner: str, guest: str, name: str, other: str) -> str:
        game_id = self.enrolling(owner, 2, race_name=name)
        self.invite(owner, game_id, f"code {game_id}")
        self.call(redeem_by_code(guest, f"code {game_id}", other))
        self.command("ready_to_start", owner, game_id)
        return game_id

    def running(self, owner: str, guest: str, name: str, other: str) -> str:
        game_id = self.ready(owner, guest, name, other)
        self.command("start", owner, game_id)
        lease = self.call(Call("worker.runtime_start_claim", (game_id, 60)), "galaxy_worker")[0]
        started = (game_id, lease, "c", "http://e:8080", 0, self.players(game_id))
        assert self.call(Call("worker.runtime_started", started), "galaxy_worker") is True
        return game_id

    def players(self, game_id: str, planets: int = 1) -> list[dict[str, Any]]:
        rows = self.db.execute("SELECT race_name FROM memberships WHERE game_id = %s AND status = 'active'", (game_id,))
        return [{"id": name, "raceName": name, "planets": planets, "population": planets} for (name,) in rows.fetchall()]

    def at_once(self, calls: Sequence[Call], login: str = "galaxy_api") -> list[Any]:
        """Let everybody go at one moment; return what each was answered, a refusal as its text."""
        connections = self._of(login, len(calls))
        gate = threading.Barrier(len(calls))

        def go(connection: psycopg.Connection[Any], call: Call) -> Any:
            gate.wait(30)
            try:
                return run(connection, call)
            except psycopg.Error as error:
                return f"{error.sqlstate} {error.diag.message_primary}"

        with ThreadPoolExecutor(len(calls)) as pool:
            return list(pool.map(go, connections, calls))

    def _of(self, login: str, count: int) -> list[psycopg.Connection[Any]]:
        have = self._connections.setdefault(login, [])
        while len(have) < count:
            have.append(self._database.connect(login))
        return have[:count]

    def check(self) -> None:
        assert self.db.execute("SELECT * FROM invariants").fetchall() == []


def run(connection: psycopg.Connection[Any], call: Call) -> Any:
    arguments: list[Any] = [json.dumps(a) if isinstance(a, (dict, list)) else a for a in call.arguments]
    marks = ", ".join("%s::jsonb" if isinstance(a, (dict, list)) else "%s" for a in call.arguments)
    row = connection.execute(f"SELECT * FROM {call.function}({marks})", arguments).fetchone()
    if row is None:
        return None
    if call.function.startswith("worker."):
        return row if len(row) > 1 or call.function.endswith("_claim") else row[0]
    if len(row) > 1 and row[0] >= 400:
        # Returned, so that what it has counted stays.
        return f"GX{row[0]} {json.loads(row[1])['code']}"
    body = row[1] if len(row) > 1 else row[0]
    return None if body is None else json.loads(body)


def told(answers: Sequence[Any]) -> Counter[str]:
    return Counter(answer if isinstance(answer, str) else "done" for answer in answers)


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    made = World(database)
    yield made
    made.check()


def test_of_50_codes_for_the_last_seat_one_gets_it(world: World) -> None:
    (owner,) = world.people(1)
    crowd = world.people(CROWD)
    game_id = world.enrolling(owner, 2, race_name="Owners")
    for n in range(CROWD):
        world.invite(owner, game_id, f"code {n}")
    answers = world.at_once([redeem_by_code(user, f"code {n}", f"Race {n} x") for n, user in enumerate(crowd)])
    assert told(answers) == {"done": 1, "GX422 game_full": CROWD - 1}
    assert world.one("SELECT game_member_count(%s)", game_id) == 2
    assert world.one("SELECT count(*) FROM invites WHERE status = 'redeemed'") == 1
    assert world.one("SELECT count(*) FROM race_names WHERE tier <> 'released'") == 2


def test_of_50_with_one_code_one_gets_in(world: World) -> None:
    (owner,) = world.people(1)
    crowd = world.people(CROWD)
    game_id = world.enrolling(owner, 64)
    world.invite(owner, game_id, "one")
    answers = world.at_once([redeem_by_code(user, "one", f"Race {n} x") for n, user in enumerate(crowd)])
    assert told(answers) == {"done": 1, "GX404 invite_not_found": CROWD - 1}
    assert world.one("SELECT game_member_count(%s)", game_id) == 1


def test_of_50_who_want_one_name_in_as_many_games_one_gets_it(world: World) -> None:
    owners, crowd = world.people(CROWD), world.people(CROWD)
    spellings = ["Zorg", "ZORG", "z-o-r-g", "Z0rg", "ＺＯＲＧ"]
    calls = []
    for n, owner in enumerate(owners):
        world.invite(owner, world.enrolling(owner, 4), f"code {n}")
        calls.append(redeem_by_code(crowd[n], f"code {n}", spellings[n % len(spellings)]))
    assert told(world.at_once(calls)) == {"done": 1, "GX422 name_taken": CROWD - 1}
    assert world.one("SELECT count(*) FROM memberships") == 1
    assert world.one("SELECT count(*) FROM race_names") == 1


def test_a_person_who_joins_many_games_at_once_has_as_many_as_they_may(world: World) -> None:
    owners, (guest,) = world.people(12), world.people(1)
    calls = []
    for n, owner in enumerate(owners):
        world.invite(owner, world.enrolling(owner, 4), f"code {n}")
        calls.append(redeem_by_code(guest, f"code {n}", "Zorg"))
    assert told(world.at_once(calls)) == {"done": 3, "GX422 limit_reached": 9}
    assert world.one("SELECT count(*) FROM race_names WHERE tier <> 'released'") == 1


def test_a_person_who_creates_many_games_at_once_has_as_many_as_they_may(world: World) -> None:
    (owner,) = world.people(1)
    body = {
        "game_name": "Crowd",
        "min_players": 2,
        "max_players": 2,
        "enrollment_ends_at": "2100-01-01T00:00:00Z",
        "turn_schedule": "0 0 1 1 *",
    }
    answers = world.at_once([Call("api.game_create", (owner, body)) for _ in range(12)])
    assert told(answers) == {"done": 1, "GX422 limit_reached": 11}
    assert world.one("SELECT count(*) FROM games") == 1


def test_of_start_and_cancel_one_happens(world: World) -> None:
    owner, guest = world.people(2, "permanent")
    seen: Counter[str] = Counter()
    for _ in range(6):
        game_id = world.ready(owner, guest, "Alphas", "Betas")
        answers = world.at_once([Call(f"api.game_{a}", (owner, game_id)) for a in ("start", "cancel", "start", "cancel")])
        assert told(answers) == {"done": 1, "GX409 invalid_transition": 3}
        status = world.one("SELECT status FROM games WHERE game_id = %s", game_id)
        seen[status] += 1
        wanted = world.one("SELECT count(*) FROM runtime_records WHERE game_id = %s", game_id)
        jobs = world.one(
            "SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE task_name = 'runtime_start' AND args ->> 'game_id' = %s",
            game_id,
        )
        assert (wanted, jobs) == ((1, 1) if status == "starting" else (0, 0))
        assert world.one("SELECT count(*) FROM game_history WHERE game_id = %s", game_id) == 4
        world.check()
        if status == "starting":  # so that the seats of the next one are free
            world.one("SELECT (game_transition(g, 'force-stop', 'admin', 'root')).status FROM game_lock(%s) AS g", game_id)
    assert set(seen) <= {"starting", "cancelled"}


def test_a_seat_that_is_taken_while_enrolment_closes_is_in_the_game_or_not(world: World) -> None:
    owner, guest = world.people(2, "permanent")
    for n, late in enumerate(world.people(6)):
        game_id = world.enrolling(owner, 4, race_name="Alphas")
        for code in ("guest", "late"):
            world.invite(owner, game_id, f"{code} {n}")
        world.call(redeem_by_code(guest, f"guest {n}", "Betas"))
        answers = world.at_once(
            [redeem_by_code(late, f"late {n}", f"Race {n} x"), Call("api.game_ready_to_start", (owner, game_id))]
        )
        assert answers[1]["status"] == "ready_to_start"
        joined = not isinstance(answers[0], str)
        assert joined or answers[0] in ("GX404 invite_not_found", "GX409 invalid_transition")
        assert world.one("SELECT game_member_count(%s)", game_id) == 2 + joined
        assert answers[1]["member_count"] == 2 + joined
        world.check()
        world.command("cancel", owner, game_id)


def test_one_worker_claims_a_start(world: World) -> None:
    owner, guest = world.people(2)
    game_id = world.ready(owner, guest, "Alphas", "Betas")
    world.command("start", owner, game_id)
    answers = world.at_once([Call("worker.runtime_start_claim", (game_id, 60))] * 8, "galaxy_worker")
    assert sorted(answer is not None for answer in answers) == [False] * 7 + [True]
    assert world.one("SELECT lease_number FROM runtime_records") == 1
    assert world.one("SELECT count(*) FROM runtime_operation_log") == 1


def test_one_worker_claims_a_turn_that_many_found_due(world: World) -> None:
    owner, guest = world.people(2)
    game_id = world.running(owner, guest, "Alphas", "Betas")
    world.one("UPDATE runtime_records SET next_turn_at = backend.now() RETURNING 1")
    found = world.at_once([Call("worker.turns_defer", (10,))] * 8, "galaxy_worker")
    assert sum(found) == 1
    assert world.one("SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE task_name = 'turn_run'") == 1
    for seconds in (60, 0):  # a lease of nothing has run out when the next one asks, which is one at a time all the same
        answers = world.at_once([Call("worker.turn_claim", (game_id, seconds))] * 8, "galaxy_worker")
        if seconds:
            assert sum(answer is not None for answer in answers) == 1
            world.one("UPDATE runtime_records SET lease_until = backend.now() RETURNING 1")
        else:
            leases = [answer[0] for answer in answers if answer is not None]
            assert len(set(leases)) == len(leases)
    assert world.one("SELECT lease_number = (SELECT count(*) FROM runtime_operation_log) FROM runtime_records")
    # All who ever had a lease report; the newest counts, once.
    newest = world.one("SELECT lease_number FROM runtime_records")
    reports = [
        Call("worker.turn_report", (game_id, lease, 1, False, world.players(game_id, 2)))
        for lease in [*range(1, newest + 1), newest]
    ]
    assert Counter(world.at_once(reports, "galaxy_worker")) == {"done": 1, "superseded": newest}
    assert world.one("SELECT array_agg(turn ORDER BY turn) FROM game_turns") == [0, 1]
    assert world.one("SELECT count(*) FROM notifications WHERE kind = 'game.turn.ready'") == 2


def test_a_turn_by_force_asked_for_many_times_at_once_is_one(world: World) -> None:
    owner, guest = world.people(2)
    game_id = world.running(owner, guest, "Alphas", "Betas")
    forces = [Call("api.runtime_force_next_turn", ("root", game_id))] * 8
    assert told(world.at_once(forces)) == {"done": 8}
    assert world.one("SELECT count(*) FROM procrastinate.procrastinate_jobs WHERE task_name = 'turn_run'") == 1
    assert world.one("SELECT count(*) FROM audit_log") == 8
    (lease, *_) = world.call(Call("worker.turn_claim", (game_id, 60)), "galaxy_worker")
    report = Call("worker.turn_report", (game_id, lease, 1, False, world.players(game_id)))
    assert world.call(report, "galaxy_worker") == "done"
    assert world.call(Call("worker.turn_claim", (game_id, 60)), "galaxy_worker") is None
    # The next of the schedule, the first of January, is skipped once.
    years = "extract(year FROM next_turn_at AT TIME ZONE 'UTC') - extract(year FROM backend.now() AT TIME ZONE 'UTC')"
    assert world.one(f"SELECT {years} FROM runtime_records") == 2


@pytest.mark.parametrize("planets", [1, 9], ids=["nobody grew", "everybody grew"])
def test_two_games_under_one_name_that_end_at_once_let_it_go_once(world: World, planets: int) -> None:
    owner, guest = world.people(2, "permanent")
    for n in range(4):
        # In the one they own, in the other they are a guest: names are met in either order.
        games = [
            world.running(owner, guest, f"Alphas {n}", f"Betas {n}"),
            world.running(guest, owner, f"betas {n}", f"alphas {n}"),
        ]
        reports = []
        for game_id in games:
            world.call(Call("api.runtime_force_next_turn", ("root", game_id)))
            (lease, *_) = world.call(Call("worker.turn_claim", (game_id, 60)), "galaxy_worker")
            reports.append(Call("worker.turn_report", (game_id, lease, 1, True, world.players(game_id, planets))))
        assert world.at_once(reports, "galaxy_worker") == ["finished", "finished"]
        rows = world.db.execute(
            "SELECT tier, count(*)::integer FROM race_names WHERE race_name ~ %s GROUP BY 1", (f" {n}$",)
        ).fetchall()
        assert rows == [("released" if planets == 1 else "pending_registration", 2)]
        world.check()
    pending = world.one("SELECT count(*) FROM notifications WHERE kind = 'lobby.race_name.pending'")
    assert pending == (0 if planets == 1 else 8)


def test_a_stop_beside_a_start_leaves_no_engine_that_is_wanted(world: World) -> None:
    owner, guest = world.people(2, "permanent")
    for _ in range(4):
        game_id = world.ready(owner, guest, "Alphas", "Betas")
        world.command("start", owner, game_id)
        (lease, *_) = world.call(Call("worker.runtime_start_claim", (game_id, 60)), "galaxy_worker")
        started = Call("worker.runtime_started", (game_id, lease, "c", "http://e:8080", 0, world.players(game_id)))
        stopped: list[Any] = []

        def stop(game_id: str = game_id, stopped: list[Any] = stopped) -> None:
            query = "SELECT (game_transition(g, 'force-stop', 'admin', 'root')).status FROM game_lock(%s) AS g"
            stopped.append(world.one(query, game_id))

        both(stop, lambda started=started: world.call(started, "galaxy_worker"))  # type: ignore[misc]
        assert stopped == ["cancelled"]
        assert world.one("SELECT wanted FROM runtime_records WHERE game_id = %s", game_id) == "removed"
        (removal,) = world.call(Call("worker.runtime_remove_claim", (game_id, 60)), "galaxy_worker")
        assert removal > lease
        assert world.call(Call("worker.runtime_removed", (game_id, removal)), "galaxy_worker") is True
        world.check()


def both(*functions: Callable[[], Any]) -> None:
    with ThreadPoolExecutor(len(functions)) as pool:
        for future in [pool.submit(function) for function in functions]:
            future.result(30)
