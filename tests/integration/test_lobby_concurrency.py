"""Many at once in the lobby: a seat, an application and an invite are decided once, by whoever comes first."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.test_games_concurrency import CROWD, Call, World, redeem_by_code, told
from tests.postgres import Database


class Lobby(World):
    """Also public games, and who applies to them."""

    def public(self, owner: str | None = None, **more: Any) -> str:
        body = {
            "game_name": "Public",
            "min_players": 2,
            "max_players": 4,
            "enrollment_ends_at": "2100-01-01T00:00:00Z",
            "turn_schedule": "0 0 1 1 *",
            **({} if owner is None else {"owner_user_id": owner}),
            **more,
        }
        game_id: str = self.call(Call("api.admin_game_create", ("root", body)))["game_id"]
        self.call(Call("api.admin_game_open_enrollment", ("root", game_id)))
        return game_id

    def application(self, person: str, game_id: str, race_name: str) -> str:
        made: str = self.call(apply(person, game_id, race_name))["application_id"]
        return made


def apply(person: str, game_id: str, race_name: str) -> Call:
    return Call("api.application_create", (person, game_id, {"race_name": race_name}))


@pytest.fixture
def lobby(database: Database) -> Iterator[Lobby]:
    made = Lobby(database)
    yield made
    made.check()


def test_of_50_approvals_for_the_last_seat_one_is_given(lobby: Lobby) -> None:
    (owner,) = lobby.people(1)
    crowd = lobby.people(CROWD)
    game_id = lobby.public(owner, max_players=2)
    first = lobby.application(lobby.people(1)[0], game_id, "First")
    lobby.call(Call("api.admin_application_approve", ("root", game_id, first)))
    applications = [lobby.application(person, game_id, f"Race {n} x") for n, person in enumerate(crowd)]
    answers = lobby.at_once(
        [
            # By its owner and by administrators alike.
            Call("api.application_approve", (owner, game_id, a))
            if n % 2
            else Call("api.admin_application_approve", ("root", game_id, a))
            for n, a in enumerate(applications)
        ]
    )
    assert told(answers) == {"done": 1, "GX422 game_full": CROWD - 1}
    assert lobby.one("SELECT game_member_count(%s)", game_id) == 2
    assert lobby.one("SELECT count(*) FROM applications WHERE status = 'submitted'") == CROWD - 1


def test_an_application_that_many_approve_is_one_seat(lobby: Lobby) -> None:
    (owner,), (person,) = lobby.people(1), lobby.people(1)
    game_id = lobby.public(owner)
    application = lobby.application(person, game_id, "Zorg")
    answers = lobby.at_once([Call("api.application_approve", (owner, game_id, application))] * 16)
    assert told(answers) == {"done": 1, "GX409 invalid_transition": 15}
    assert lobby.one("SELECT count(*) FROM notifications WHERE kind = 'lobby.application.approved'") == 1


def test_of_approve_reject_and_withdraw_one_happens(lobby: Lobby) -> None:
    (owner,) = lobby.people(1)
    seen: Counter[str] = Counter()
    for n, person in enumerate(lobby.people(10)):
        game_id = lobby.public(owner)
        application = lobby.application(person, game_id, f"Race {n} x")
        calls = [
            Call("api.application_approve", (owner, game_id, application)),
            Call("api.application_reject", (owner, game_id, application)),
            Call("api.application_withdraw", (person, game_id, application)),
        ]
        random.Random(n).shuffle(calls)
        answers = lobby.at_once(calls)
        assert told(answers) == {"done": 1, "GX409 invalid_transition": 2}
        status = lobby.one("SELECT status FROM applications WHERE application_id = %s", application)
        assert {answer["status"] for answer in answers if not isinstance(answer, str)} == {status}
        assert lobby.one("SELECT game_member_count(%s)", game_id) == (status == "approved")
        seen[status] += 1
    assert set(seen) <= {"approved", "rejected", "withdrawn"}


def test_a_person_has_one_live_application_to_a_game_and_as_many_as_they_may(lobby: Lobby) -> None:
    (person,) = lobby.people(1)
    game_id = lobby.public()
    answers = lobby.at_once([apply(person, game_id, "Zorg")] * CROWD)
    assert told(answers) == {"done": 1, "GX409 already_applied": CROWD - 1}
    answers = lobby.at_once([apply(person, lobby.public(), "Zorg") for _ in range(12)])
    assert told(answers) == {"done": 2, "GX422 limit_reached": 10}


def test_an_application_that_comes_while_enrolment_closes_is_rejected_or_not_taken(lobby: Lobby) -> None:
    for n, (first, second, late) in enumerate([tuple(lobby.people(3)) for _ in range(6)]):
        game_id = lobby.public()
        for m, person in enumerate((first, second)):
            application = lobby.application(person, game_id, f"Race {n} {m} x")
            lobby.call(Call("api.admin_application_approve", ("root", game_id, application)))
        answers = lobby.at_once(
            [apply(late, game_id, f"Late {n} x"), Call("api.admin_game_ready_to_start", ("root", game_id))],
        )
        assert answers[1]["status"] == "ready_to_start"
        assert not isinstance(answers[0], str) or answers[0] == "GX409 invalid_transition"
        assert lobby.one("SELECT count(*) FROM applications WHERE status = 'submitted'") == 0


def test_an_invite_that_its_invitee_redeems_often_is_one_seat_and_the_rest_is_counted(lobby: Lobby) -> None:
    (owner,), (person,) = lobby.people(1), lobby.people(1)
    game_id = lobby.enrolling(owner, 4)
    made = lobby.call(Call("api.invite_create", (owner, game_id, {"invited_user_id": person}, None, None)))
    redeem = Call("api.invite_redeem", (person, game_id, made["invite_id"], {"race_name": "Zorg"}, None))
    answers = lobby.at_once([redeem] * CROWD)
    assert told(answers) == {"done": 1, "GX404 invite_not_found": 20, "GX429 too_many_attempts": CROWD - 21}


def test_of_redeem_decline_and_revoke_one_happens(lobby: Lobby) -> None:
    (owner,) = lobby.people(1)
    for n, person in enumerate(lobby.people(8)):
        game_id = lobby.enrolling(owner, 4)
        made = lobby.call(Call("api.invite_create", (owner, game_id, {"invited_user_id": person}, None, None)))
        answers = lobby.at_once(
            [
                Call("api.invite_redeem", (person, game_id, made["invite_id"], {"race_name": f"Race {n} x"}, None)),
                Call("api.invite_decline", (person, game_id, made["invite_id"])),
                Call("api.invite_revoke", (owner, game_id, made["invite_id"])),
            ]
        )
        assert told(answers)["done"] == 1
        assert set(told(answers)) <= {"done", "GX404 invite_not_found", "GX409 invalid_transition"}
        status = lobby.one("SELECT status FROM invites WHERE invite_id = %s", made["invite_id"])
        assert lobby.one("SELECT game_member_count(%s)", game_id) == (status == "redeemed")
        lobby.command("cancel", owner, game_id)


def test_a_member_who_leaves_while_they_are_blocked_is_gone_once(lobby: Lobby) -> None:
    (owner,) = lobby.people(1)
    for n, person in enumerate(lobby.people(8)):
        game_id = lobby.enrolling(owner, 4)
        lobby.invite(owner, game_id, f"code {n}")
        seat = lobby.call(redeem_by_code(person, f"code {n}", f"Race {n} x"))["membership_id"]
        answers = lobby.at_once(
            [
                Call("api.membership_remove", (person, game_id, seat)),
                Call("api.membership_remove", (owner, game_id, seat)),
                Call("api.membership_block", (owner, game_id, seat)),
            ]
        )
        # Who has gone by themself does not see a private game any more.
        assert told(answers)["done"] == 1
        assert set(told(answers)) <= {"done", "GX409 invalid_transition", "GX404 game_not_found"}
        assert lobby.one("SELECT count(*) FROM race_names WHERE released_at IS NULL") == 0
        lobby.command("cancel", owner, game_id)


def test_many_sweepers_close_each_game_and_each_invite_once(lobby: Lobby) -> None:
    (owner,) = lobby.people(1)
    people = lobby.people(20)
    for n, person in enumerate(people):
        game_id = lobby.public(owner)
        lobby.call(
            Call("api.admin_invite_create", ("root", game_id, {"invited_user_id": owner if n % 2 else person}, None, None))
        )
        if n % 4 == 0:
            application = lobby.application(person, game_id, f"Race {n} x")
            lobby.call(Call("api.admin_application_approve", ("root", game_id, application)))
    lobby.db.execute("UPDATE games SET enrollment_ends_at = backend.now() - interval '1 day'")
    closed = sum(sum(lobby.at_once([Call("worker.enrollments_close", (3,))] * 8, "galaxy_worker")) for _ in range(3))
    assert closed == 20
    assert lobby.one("SELECT count(*) FROM games WHERE status = 'cancelled' AND status_reason = 'not_enough_members'") == 20
    assert lobby.one("SELECT count(*) FROM game_history WHERE actor_type = 'sweeper'") == 20
    assert lobby.one("SELECT count(*) FROM notifications WHERE kind = 'lobby.membership.removed'") == 5
    game_id = lobby.game(owner)
    for n in range(20):
        lobby.invite(owner, game_id, f"code {n}")
    lobby.db.execute("UPDATE invites SET expires_at = backend.now() WHERE status = 'created'")
    expired = sum(sum(lobby.at_once([Call("worker.invites_expire", (3,))] * 8, "galaxy_worker")) for _ in range(3))
    assert expired == 20


# -- whatever people do at once

_PEOPLE, _GAMES, _NAMES = 4, 2, 3
_WHAT = (
    *("apply", "approve", "reject", "withdraw", "invite", "redeem", "decline", "revoke", "leave", "remove", "block", "ban"),
    *("ready", "cancel", "start", "force_stop", "update", "extend", "sweep", "register", "delete", "block for good"),
    # Once more what needs another act before it.
    *("apply", "approve", "approve", "invite", "redeem", "redeem", "ready", "start", "start"),
)
_ACTS = st.lists(
    st.tuples(
        st.sampled_from(_WHAT),
        st.integers(0, _PEOPLE - 1),
        st.integers(0, _GAMES - 1),
    ),
    min_size=12,
    max_size=36,
)


class Play:
    """A few people and public games, fewer race names than people, and what each may try next."""

    def __init__(self, lobby: Lobby) -> None:
        self.lobby = lobby
        self.owner, *self.people = lobby.people(_PEOPLE + 1, "permanent")
        self.games = [lobby.public(self.owner) for _ in range(_GAMES)]
        # Of each play their own, since what was held in those before is held still.
        self.names = [f"Race {n} {lobby.one('SELECT count(*) FROM accounts')} x" for n in range(_NAMES)]
        # Earned elsewhere: one can be registered, for the other it is too late.
        for n, expires_in in enumerate(("1 day", "-1 day")):
            lobby.db.execute("INSERT INTO race_names (race_name, user_id) VALUES (%s, %s)", (self.names[n], self.people[n]))
            lobby.db.execute(
                "UPDATE race_names SET tier = 'pending_registration', expires_at = backend.now() + %s::interval"
                " WHERE race_name = %s",
                (expires_in, self.names[n]),
            )
        # Two have seats, so that the first game can be made ready.
        for person in self.people[1:3]:
            application = lobby.application(person, self.games[0], self.race(person, self.games[0])["race_name"])
            lobby.call(Call("api.application_approve", (self.owner, self.games[0], application)))

    def _open(self, table: str, person_column: str, game_id: str, person: str) -> tuple[str, str]:
        """The id of what hangs on a game, and whose it is: what is open first, then what is theirs, then the newest."""
        found = self.lobby.db.execute(
            f"SELECT {table}_id::text, {person_column}::text FROM {table}s WHERE game_id = %s"
            f" ORDER BY status IN ('submitted', 'created', 'active') DESC, {person_column} = %s DESC, {table}_id DESC LIMIT 1",
            (game_id, person),
        ).fetchone()
        return found or ("00000000-0000-7000-8000-000000000000", person)

    def race(self, person: str, game_id: str) -> dict[str, str]:
        """What a person would be called in a game: in the other one it is another's name."""
        return {"race_name": self.names[(self.people.index(person) + self.games.index(game_id)) % _NAMES]}

    def call(self, act: str, person: str, game_id: str) -> Call:
        match act:
            case "apply":
                return apply(person, game_id, self.race(person, game_id)["race_name"])
            case "approve" | "reject":
                found, _ = self._open("application", "applicant_user_id", game_id, person)
                return Call(f"api.application_{act}", (self.owner, game_id, found))
            case "withdraw":
                found, person = self._open("application", "applicant_user_id", game_id, person)
                return Call("api.application_withdraw", (person, game_id, found))
            case "invite":
                return Call("api.admin_invite_create", ("root", game_id, {"invited_user_id": person}, None, None))
            case "redeem":
                found, person = self._open("invite", "invited_user_id", game_id, person)
                return Call("api.invite_redeem", (person, game_id, found, self.race(person, game_id), None))
            case "decline":
                found, person = self._open("invite", "invited_user_id", game_id, person)
                return Call("api.invite_decline", (person, game_id, found))
            case "revoke":
                found, _ = self._open("invite", "invited_user_id", game_id, person)
                return Call("api.invite_revoke", (self.owner, game_id, found))
            case "leave":
                found, person = self._open("membership", "user_id", game_id, person)
                return Call("api.membership_remove", (person, game_id, found))
            case "remove" | "block":
                found, _ = self._open("membership", "user_id", game_id, person)
                return Call(f"api.membership_{act}", (self.owner, game_id, found))
            case "ban":
                return Call("api.admin_game_ban_member", ("root", game_id, {"user_id": person, "reason": "A test."}))
            case "ready":
                return Call("api.game_ready_to_start", (self.owner, game_id))
            case "update":
                return Call("api.game_update", (self.owner, game_id, {"description": "Other words."}))
            case "extend":
                return Call("api.game_update", (self.owner, game_id, {"enrollment_ends_at": "2100-01-01T00:00:00Z"}))
            case "register":
                return Call("api.race_name_register", (person, self.race(person, game_id)))
            case "delete":
                return Call("api.my_account_delete", (person,))
            case "block for good":
                return Call("api.user_sanction_apply", ("root", person, {"code": "permanent_block", "reason": "A test."}))
            case "cancel" | "start":
                return Call(f"api.game_{act}", (self.owner, game_id))
            case "force_stop":
                return Call("api.admin_game_force_stop", ("root", game_id))
        return Call("api.game_list", (person, 50, None, None, None))

    def run(self, acts: list[tuple[str, int, int]]) -> None:
        """Six at a time, and sweepers beside them; whoever is refused is refused by a rule."""
        sweeps = [Call(f"worker.{sweep}", (10,)) for sweep in ("enrollments_close", "invites_expire", "race_names_expire")]
        for start in range(0, len(acts), 6):
            batch = acts[start : start + 6]
            for _, person, game in (act for act in batch if act[0] == "sweep"):
                # Enrolment has ended, lately or so long ago that the game is given up.
                self.lobby.db.execute(
                    "UPDATE games SET enrollment_ends_at = backend.now() - %s::interval WHERE game_id = %s",
                    ("1 hour" if person % 2 else "2 days", self.games[game]),
                )
            calls = [self.call(act, self.people[person], self.games[game]) for act, person, game in batch]
            with ThreadPoolExecutor(1) as pool:
                swept = pool.submit(self.lobby.at_once, sweeps, "galaxy_worker")
                answers = self.lobby.at_once(calls)
                assert all(isinstance(count, int) for count in swept.result(30)), swept.result()
            for answer in answers:
                assert not isinstance(answer, str) or answer.startswith("GX4"), answer
            self.lobby.check()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(acts=_ACTS)
def test_whatever_people_do_at_once_no_invariant_is_violated(lobby: Lobby, acts: list[tuple[str, int, int]]) -> None:
    Play(lobby).run(acts)
