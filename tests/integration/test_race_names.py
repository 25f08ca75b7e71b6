"""Race names: what is one name, by many made-up ones; what becomes of them, by many made-up lives; and many people at once."""

from __future__ import annotations

import secrets
import threading
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from dev.cluster import Cluster
from tests.contract import requests
from tests.contract.games import creation, new_version
from tests.integration.test_games_concurrency import CROWD, Call, World, redeem_by_code, told
from tests.postgres import Database
from tests.services import Api, Person, simultaneously, until

# -- what is one name


@pytest.fixture(scope="module")
def db(cluster: Cluster, template_database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection for all of the module: what is written is rolled back."""
    database = Database(cluster, f"test_{secrets.token_hex(8)}")
    cluster.create_database(database.name, template_database)
    yield database.connect()
    database.drop()


def canonical(db: psycopg.Connection[Any], *names: str) -> list[str]:
    """Return the canonical form of each name."""
    row = db.execute(
        "SELECT array_agg(race_name_canonical(n) ORDER BY i) FROM unnest(%s::text[]) WITH ORDINALITY AS t(n, i)", [list(names)]
    ).fetchone()
    assert row is not None
    forms: list[str] = row[0]
    return forms


# Surrogates are no characters, and NUL is none for Postgres.
ANYTHING = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=32)
# Of scripts with case, with none, with marks of their own, composed and not.
LETTERS = st.text(st.characters(categories=["Lu", "Ll", "Lo", "Nd"]), min_size=1, max_size=32)
HIDDEN = ["\u200b", "\u200c", "\u200d", "\u00ad", "\u034f", "\u2060", "\ufe0f", "\ufeff", "\U000e0041"]

everything = settings(max_examples=300, deadline=None)


@everything
@given(name=ANYTHING)
def test_a_form_is_its_own(db: psycopg.Connection[Any], name: str) -> None:
    (once,) = canonical(db, name)
    assert canonical(db, once) == [once]


@everything
@given(name=ANYTHING)
def test_however_it_is_composed_it_is_one_name(db: psycopg.Connection[Any], name: str) -> None:
    assert len(set(canonical(db, name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))) == 1


@everything
@given(name=LETTERS)
@example(name="Straße")
@example(name="ΟΔΥΣΣΕΎΣ")
@example(name="ﬃ")
def test_whatever_its_case_it_is_one_name(db: psycopg.Connection[Any], name: str) -> None:
    assert len(set(canonical(db, name, name.upper(), name.lower(), name.swapcase(), name.title(), name.casefold()))) == 1


@everything
@given(name=LETTERS, separators=st.lists(st.tuples(st.integers(0, 32), st.sampled_from(" -'."))))
def test_wherever_it_is_parted_it_is_one_name(db: psycopg.Connection[Any], name: str, separators: list[tuple[int, str]]) -> None:
    parted = name
    for place, separator in separators:
        parted = parted[:place] + separator + parted[place:]
    assert len(set(canonical(db, name, parted))) == 1


@everything
@given(name=ANYTHING, hidden=st.lists(st.tuples(st.integers(0, 32), st.sampled_from(HIDDEN))))
def test_what_is_not_shown_makes_no_difference(db: psycopg.Connection[Any], name: str, hidden: list[tuple[int, str]]) -> None:
    with_more = name
    for place, character in hidden:
        with_more = with_more[:place] + character + with_more[place:]
    assert len(set(canonical(db, name, with_more))) == 1


def test_every_character_is_one_with_what_it_looks_like(db: psycopg.Connection[Any]) -> None:
    found = db.execute(
        "SELECT chr(c.codepoint), c.skeleton FROM confusables AS c"
        " WHERE race_name_canonical('x' || chr(c.codepoint) || 'x') <> race_name_canonical('x' || c.skeleton || 'x')"
    ).fetchall()
    assert found == []


@everything
@given(data=st.data(), name=st.text("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", min_size=2, max_size=32))
def test_whoever_imitates_it_has_the_same_name(db: psycopg.Connection[Any], data: st.DataObject, name: str) -> None:
    imitations = {
        "o": "0оοσօ",
        "l": "1Iіı",
        "I": "l1",
        "m": ["rn"],
        "a": "аａ",
        "e": "еｅ",
        "p": "рρ",
        "g": "ɡｇ",
        "c": "сｃ",
        "O": "0Ｏ",
    }
    written = "".join(data.draw(st.sampled_from([c, *imitations.get(c, [])])) for c in name)
    assert len(set(canonical(db, name, written))) == 1


def test_a_form_takes_well_under_a_millisecond(db: psycopg.Connection[Any]) -> None:
    """The tables are looked into, never read as a whole: which no plan of a small table shows, but what is read does."""
    with db.transaction(force_rollback=True):
        for table in ("confusables", "case_foldings", "name_characters"):
            row = db.execute("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = %s", [table]).fetchone()
            assert row is not None
            before = row[0]
            db.execute("SELECT race_name_problem('The Quick Brown Fox Jumps Over ' || i) FROM generate_series(1, 20) AS i")
            row = db.execute("SELECT seq_scan FROM pg_stat_xact_user_tables WHERE relname = %s", [table]).fetchone()
            assert row is not None
            assert row[0] == before


# -- what becomes of names

PEOPLE = 4
NAMES = ["Zorg", "Z0rg", "ＺＯＲＧ", "Mars", "rnars", "Ivan", "1van", "Venus"]
SETTLED = "SELECT invariant, details FROM invariants"

person = st.integers(0, PEOPLE - 1)
name = st.sampled_from(NAMES)
step = st.one_of(
    st.tuples(st.just("play"), person, name, person, name),
    st.tuples(st.just("finish"), st.integers(0, 9), st.sets(st.integers(0, 1))),
    st.tuples(st.just("stop"), st.integers(0, 9)),
    st.tuples(st.just("leave"), st.integers(0, 9), person),
    st.tuples(st.just("register"), person, name),
    st.tuples(st.just("days"), st.integers(1, 31)),
    st.tuples(st.just("expire"), st.integers(1, 3)),
    st.tuples(st.just("block"), person),
    st.tuples(st.just("delete"), person),
)


def refusal(db: psycopg.Connection[Any], work: Callable[[], Any], *, keep: bool = True) -> str | None:
    """Return what is refused, which changes nothing; None for what is not."""
    try:
        with db.transaction(force_rollback=not keep):
            work()
    except psycopg.DatabaseError as error:
        return f"{error.sqlstate} {error.diag.message_primary}"
    return None


class Life:
    """People with names, in a transaction that is rolled back."""

    def __init__(self, db: psycopg.Connection[Any]) -> None:
        self.db = db
        self.games: list[str] = []
        db.execute("INSERT INTO engine_versions (version, image_ref) VALUES ('1.0.0', 'engine:1')")
        db.execute("INSERT INTO admin_accounts (username, password_hash) VALUES ('root', '$2b$12$' || repeat('x', 53))")
        self.people = [self.person(n) for n in range(PEOPLE)]

    def one(self, query: str, *parameters: Any) -> Any:
        row = self.db.execute(query, parameters).fetchone()
        return None if row is None else row[0]

    def person(self, number: int) -> str:
        user_id: str = self.one("SELECT (account_create('telegram', %s, NULL, 'en', 'UTC', NULL)).user_id::text", str(number))
        for code in ("max_owned_private_games", "max_active_memberships"):
            self.db.execute(
                "WITH r AS (INSERT INTO limit_records (user_id, code, action, value, reason, actor)"
                " VALUES (%s, %s, 'apply', 99, 'a test', 'test') RETURNING *)"
                " INSERT INTO limit_active (user_id, code, limit_record_id, value)"
                " SELECT user_id, code, limit_record_id, value FROM r",
                [user_id, code],
            )
        return user_id

    def play(self, owner: int, name: str, guest: int, guest_name: str) -> None:
        body = Jsonb(
            {
                "game_name": "Life",
                "min_players": 2,
                "max_players": 2,
                "enrollment_ends_at": "2100-01-01T00:00:00Z",
                "turn_schedule": "0 0 1 1 *",
                "race_name": name,
            }
        )
        made = self.one("SELECT (api.game_create(%s, %s)).body::json ->> 'game_id'", self.people[owner], body)
        self.one("SELECT api.game_open_enrollment(%s, %s)", self.people[owner], made)
        self.one("SELECT account_lock(%s)", self.people[guest])
        self.one("SELECT (seat_take(g, %s, %s)).status FROM game_lock(%s) AS g", self.people[guest], guest_name, made)
        for action in ("ready_to_start", "start"):
            self.one(f"SELECT api.game_{action}(%s, %s)", self.people[owner], made)
        lease = self.one("SELECT lease_number FROM worker.runtime_start_claim(%s, 60)", made)
        self.one("SELECT worker.runtime_started(%s, %s, 'c', 'http://e:8080', 0, %s)", made, lease, self.players(made))
        self.games.append(made)

    def players(self, game_id: str, grown: Sequence[int] = ()) -> Any:
        rows = self.db.execute(
            "SELECT race_name FROM memberships WHERE game_id = %s AND status = 'active' ORDER BY membership_id", [game_id]
        ).fetchall()
        return Jsonb(
            [
                {"id": race, "raceName": race, "planets": 1 + (n in grown), "population": 100 + (n in grown)}
                for n, (race,) in enumerate(rows)
            ]
        )

    def game(self, number: int) -> str | None:
        """One of those that are played now."""
        return self.games[number % len(self.games)] if self.games else None

    def finish(self, number: int, grown: Sequence[int]) -> None:
        if game_id := self.game(number):
            self.db.execute("UPDATE runtime_records SET turn_requested_at = backend.now() WHERE game_id = %s", [game_id])
            lease = self.one("SELECT lease_number FROM worker.turn_claim(%s, 60)", game_id)
            assert (
                self.one("SELECT worker.turn_report(%s, %s, 1, true, %s)", game_id, lease, self.players(game_id, grown))
                == "finished"
            )
            self.games.remove(game_id)

    def stop(self, number: int) -> None:
        if game_id := self.game(number):
            self.one("SELECT (game_transition(g, 'force-stop', 'admin', 'root')).status FROM game_lock(%s) AS g", game_id)
            self.games.remove(game_id)

    def leave(self, number: int, who: int) -> None:
        if game_id := self.game(number):
            self.db.execute(
                "WITH gone AS (UPDATE memberships SET status = 'removed', ended_at = backend.now()"
                " WHERE game_id = %s AND user_id = %s AND status = 'active' RETURNING user_id, race_name_canonical)"
                " SELECT count(*) FROM gone",
                [game_id, self.people[who]],
            )
            self.db.execute(
                "SELECT race_name_release_unused(user_id, race_name_canonical) FROM memberships"
                " WHERE game_id = %s AND user_id = %s AND status <> 'active'",
                [game_id, self.people[who]],
            )

    def register(self, who: int, name: str) -> None:
        answer = self.one(
            "SELECT api.race_name_register(%s, jsonb_build_object('race_name', %s::text))::json ->> 'status'",
            self.people[who],
            name,
        )
        assert answer == "registered"
        assert self.one("SELECT count(*) FROM race_names WHERE user_id = %s AND tier = 'registered'", self.people[who]) == 1

    def days(self, count: int) -> None:
        self.db.execute("UPDATE clock SET clock_offset = clock_offset + make_interval(days => %s)", [count])

    def expire(self, limit: int) -> None:
        assert self.one("SELECT race_names_expire(%s)", limit) <= limit

    def block(self, who: int) -> None:
        self.one(
            'SELECT (api.user_sanction_apply(\'root\', %s, \'{"code": "permanent_block", "reason": "x"}\')).status',
            self.people[who],
        )

    def delete(self, who: int) -> None:
        self.one("SELECT api.user_soft_delete('root', %s, '{}')", self.people[who])

    def check(self) -> None:
        """What must always hold does; and what is said to be free is."""
        assert self.db.execute(SETTLED).fetchall() == []
        assert self.db.execute("SELECT * FROM race_name_problems").fetchall() == []
        for user_id in self.people:
            if self.one("SELECT deleted_at IS NOT NULL OR permanent_block FROM accounts WHERE user_id = %s", user_id):
                continue
            listed = self.one("SELECT api.my_race_name_list(%s, 200, NULL)::jsonb -> 'items'", user_id)
            used = self.one(
                "SELECT count(*) FROM memberships JOIN games USING (game_id)"
                " WHERE user_id = %s AND memberships.status = 'active' AND games.status NOT IN ('finished', 'cancelled')",
                user_id,
            )
            assert sum(len(item["game_ids"]) for item in listed) == used
            for race_name in ("Zorg", "Mars"):
                free = self.one("SELECT (api.race_name_check(%s, %s)::jsonb -> 'available')::boolean", user_id, race_name)
                reserve = "SELECT 'free' WHERE race_name_reserve(%s, %s) IS NOT NULL"
                told = refusal(self.db, lambda q=reserve, u=user_id, n=race_name: self.one(q, u, n), keep=False)  # type: ignore[misc]
                assert told == (None if free else "GX422 name_taken")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(step, max_size=10))
@example(
    steps=[("play", 0, "Zorg", 1, "Mars"), ("finish", 0, {0, 1}), ("days", 31), ("play", 2, "Z0rg", 0, "Venus"), ("expire", 3)]
)
@example(
    steps=[("play", 0, "Zorg", 1, "Mars"), ("play", 0, "Z0rg", 1, "rnars"), ("finish", 0, {0}), ("days", 31), ("finish", 0, {0})]
)
@example(
    steps=[
        ("play", 0, "Zorg", 1, "Mars"),
        ("play", 0, "Z0rg", 1, "Mars"),
        ("finish", 0, {0}),
        ("register", 0, "ＺＯＲＧ"),
        ("block", 0),
    ]
)
@example(
    steps=[
        ("play", 0, "Zorg", 1, "Mars"),
        ("finish", 0, {0}),
        ("register", 0, "Zorg"),
        ("delete", 0),
        ("play", 1, "Zorg", 2, "Ivan"),
    ]
)
def test_whatever_people_do_nothing_is_wrong_with_their_names(db: psycopg.Connection[Any], steps: list[tuple[Any, ...]]) -> None:
    with db.transaction(force_rollback=True):
        life = Life(db)
        for what, *arguments in steps:
            told = refusal(db, lambda what=what, arguments=arguments: getattr(life, what)(*arguments))  # type: ignore[misc]
            assert told is None or told.startswith("GX"), told
            life.check()


# -- many at once


@pytest.fixture
def world(database: Database) -> Iterator[World]:
    made = World(database)
    yield made
    made.check()


def earn(world: World, user_id: str, name: str, expires: str = "1 day") -> None:
    """Give somebody a name that they may register."""
    with world.db.transaction():
        world.db.execute("INSERT INTO race_names (race_name, user_id) VALUES (%s, %s)", (name, user_id))
        world.db.execute(
            "UPDATE race_names SET tier = 'pending_registration', expires_at = backend.now() + %s::interval WHERE race_name = %s",
            (expires, name),
        )


def register(user_id: str, name: str) -> Call:
    return Call("api.race_name_register", (user_id, {"race_name": name}))


def expire(connection: psycopg.Connection[Any], limit: int = 100) -> int:
    row = connection.execute("SELECT race_names_expire(%s)", [limit]).fetchone()
    assert row is not None
    count: int = row[0]
    return count


@pytest.mark.parametrize(
    "spellings", [["Zorg", "z0rg", "ＺＯＲＧ", "zorɡ", "Z-o-r-g"], ["Ivan Mars", "lvan rnars", "1van-Mars", "IVANMARS"]], ids=str
)
def test_of_50_who_look_alike_one_gets_the_name(world: World, spellings: list[str]) -> None:
    owners, crowd = world.people(CROWD), world.people(CROWD)
    calls = []
    for n, owner in enumerate(owners):
        world.invite(owner, world.enrolling(owner, 4), f"code {n}")
        calls.append(redeem_by_code(crowd[n], f"code {n}", spellings[n % len(spellings)]))
    assert told(world.at_once(calls)) == {"done": 1, "GX422 name_taken": CROWD - 1}
    assert world.one("SELECT count(*) FROM race_names") == 1
    assert world.one("SELECT count(*) FROM invites WHERE status = 'redeemed'") == 1


def test_of_many_names_registered_at_once_as_many_are_as_may_be(world: World) -> None:
    (one,), (five,) = world.people(1), world.people(1, "permanent")
    for n in range(12):
        earn(world, one, f"One {n} x")
        earn(world, five, f"Five {n} x")
    quota = "GX422 race_name_registration_quota_exceeded"
    assert told(world.at_once([register(one, f"One {n} x") for n in range(12)])) == {"done": 1, quota: 11}
    assert told(world.at_once([register(five, f"Five {n} x") for n in range(12)])) == {"done": 5, quota: 7}
    assert world.one("SELECT count(*) FROM race_names WHERE tier = 'registered'") == 6
    assert world.one("SELECT count(*) FROM notifications WHERE kind = 'lobby.race_name.registered'") == 6


def test_a_name_that_is_registered_many_times_at_once_is_registered_once(world: World) -> None:
    (owner,) = world.people(1, "permanent")
    earn(world, owner, "Zorg")
    answers = world.at_once([register(owner, spelling) for spelling in ("Zorg", "Z0rg", "ZORG") * 4])
    assert told(answers) == {"done": 1, "GX409 invalid_transition": 11}
    assert world.one("SELECT count(*) FROM notifications WHERE kind = 'lobby.race_name.registered'") == 1


def test_names_that_many_let_expire_at_once_expire_once(world: World, database: Database) -> None:
    people = world.people(20)
    for n, user_id in enumerate(people):
        earn(world, user_id, f"Race {n} x", "0" if n < 15 else "1 day")
    connections = [database.connect() for _ in range(8)]
    assert sum(simultaneously(8, lambda n: expire(connections[n]))) == 15
    assert world.one("SELECT count(*) FROM race_names WHERE tier = 'released'") == 15
    assert world.one("SELECT count(*) FROM notifications WHERE kind = 'lobby.race_name.expired'") == 15


def test_a_name_is_registered_or_expires(world: World, database: Database) -> None:
    """Whoever registers while somebody lets the name expire waits, and is told what has become of it."""
    (owner,) = world.people(1)
    earn(world, owner, "Zorg", "0")
    other, caller = database.connect(autocommit=False), database.connect("galaxy_api")
    with ThreadPoolExecutor(1) as pool:
        assert expire(other) == 1
        registered = pool.submit(caller.execute, 'SELECT api.race_name_register(%s, \'{"race_name": "Zorg"}\')', [owner])
        until(lambda: world.one("SELECT cardinality(pg_blocking_pids(%s)) > 0", caller.info.backend_pid))
        other.commit()
        with pytest.raises(psycopg.Error, match="race_name_pending_window_expired"):
            registered.result(30)
    assert world.one("SELECT tier FROM race_names") == "released"


def test_a_name_that_is_being_registered_does_not_expire(world: World, database: Database) -> None:
    """Also when its time is over before the one who registers it has come to an end."""
    (owner,) = world.people(1)
    earn(world, owner, "Zorg")
    other, sweeper = database.connect(autocommit=False), database.connect()
    other.execute('SELECT api.race_name_register(%s, \'{"race_name": "Zorg"}\')', [owner])
    world.db.execute("UPDATE clock SET clock_offset = '2 days'")
    assert expire(sweeper) == 0, "it is left alone, without waiting"
    other.commit()
    assert expire(sweeper) == 0
    assert world.one("SELECT tier FROM race_names") == "registered"


def test_names_are_expired_and_registered_beside_each_other(world: World) -> None:
    people = world.people(16)
    for n, user_id in enumerate(people):
        earn(world, user_id, f"Race {n} x", "0" if n % 2 else "1 day")
    sweeping = threading.Event()
    swept: list[int] = []

    def sweep() -> None:
        sweeping.set()
        for _ in range(20):
            swept.append(expire(world.db, 3))

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(sweep)
        sweeping.wait(30)
        answers = world.at_once([register(user_id, f"Race {n} x") for n, user_id in enumerate(people)])
        done.result(30)
    assert told(answers) == {"done": 8, "GX422 race_name_pending_window_expired": 8}
    swept.append(expire(world.db))
    assert sum(swept) == 8
    assert world.one("SELECT count(*) FROM race_names WHERE tier = 'registered'") == 8


# -- through the API


def test_the_life_of_a_name(database: Database, api: Api) -> None:
    """What the three operations say of a name, from its first use to its registration."""
    ours = requests.World(api, database)
    ann, bob = ours.person(), ours.person()

    def ask(person: Person, method: str, path: str, status: int, **more: Any) -> Any:
        answer = api.client.request(method, f"/api/v1/user/lobby/{path}", headers=person.header, **more)
        assert answer.status_code == status, answer.text
        return answer.json()

    def check(person: Person, name: str) -> Any:
        return ask(person, "GET", "race-names/check", 200, params={"name": name})

    free = {"race_name": "Red Star", "available": True, "reason": None}
    assert check(bob, " Red  Star") == free
    with ours.connect() as connection:
        version = new_version(connection)
    game = ask(ann, "POST", "games", 201, json=creation(version, race_name="Red Star"))
    assert check(ann, "Red Star") == free
    assert check(bob, "rеd-stаr")["reason"] == "invalid_name"
    assert check(bob, "RED STAR") == {"race_name": "RED STAR", "available": False, "reason": "name_taken"}
    assert check(bob, "Adm1n")["reason"] == "name_reserved"
    held = {
        "race_name": "Red Star",
        "status": "reservation",
        "game_ids": [game["game_id"]],
        "expires_at": None,
        "registered_at": None,
    }
    assert ask(ann, "GET", "my/race-names", 200) == {"items": [held], "next_cursor": None}
    assert ask(bob, "GET", "my/race-names", 200)["items"] == []

    body = {"race_name": "redstar"}
    assert ask(ann, "POST", "race-names/register", 409, json=body)["error"]["code"] == "invalid_transition"
    with ours.connect() as connection:
        connection.execute("UPDATE race_names SET tier = 'pending_registration', expires_at = backend.now() + '1 day'")
    assert ask(bob, "POST", "race-names/register", 404, json=body)["error"]["code"] == "race_name_not_found"
    registered = ask(ann, "POST", "race-names/register", 200, json=body)
    assert registered["registered_at"] is not None
    assert registered == {**held, "status": "registered", "registered_at": registered["registered_at"]}
    assert ask(ann, "GET", "my/race-names", 200)["items"] == [registered]
    ask(ann, "POST", f"games/{game['game_id']}/cancel", 200)
    assert ask(ann, "GET", "my/race-names", 200)["items"] == [{**registered, "game_ids": []}], "it stays theirs"
    assert check(bob, "Red Star")["reason"] == "name_taken"
