"""Diplomatic mail while people come and go: what is written reaches who is there, once, and nobody waits in a circle."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.test_games_concurrency import Call, told
from tests.integration.test_lobby_concurrency import Lobby
from tests.integration.test_lobby_locks import meanwhile
from tests.postgres import Database
from tests.services import StartProgram, until

RACES = ("Alphas", "Betas", "Gammas", "Deltas")


class Mail(Lobby):
    """Games whose members write to each other."""

    def seated(self, *people: str, count: int = 1) -> list[str]:
        """Games that the first runs, and all of them play; everybody may be in as many as it takes."""
        for person in people:
            for code in ("max_owned_private_games", "max_active_memberships"):
                self.call(Call("api.user_limit_apply", ("root", person, {"code": code, "value": 1000, "reason": "A test."})))
        games = [self.game(people[0], max_players=9) for _ in range(count)]
        for person, race in zip(people, RACES, strict=False):
            self.db.execute(
                "SELECT seat_take(g, %s, %s) FROM games AS g WHERE game_id = ANY (%s) ORDER BY game_id", (person, race, games)
            )
        return games

    def remove(self, game_id: str, person: str) -> Call:
        query = "SELECT membership_id::text FROM memberships WHERE game_id = %s AND user_id = %s"
        owner = self.one("SELECT owner_user_id::text FROM games WHERE game_id = %s", game_id)
        return Call("api.membership_remove", (owner, game_id, self.one(query, game_id, person)))

    def unread(self, person: str) -> int:
        items = self.call(Call("api.diplomail_unread_list", (person,)))["items"]
        return sum(item["unread_count"] for item in items)

    def received(self, person: str, body: str) -> int:
        query = """SELECT count(*) FROM diplomail_recipients AS r JOIN diplomail_messages AS m USING (message_id)
                    WHERE r.user_id = %s AND r.delivered_at IS NOT NULL AND m.body = %s"""
        count: int = self.one(query, person, body)
        return count


@pytest.fixture
def mail(database: Database) -> Iterator[Mail]:
    made = Mail(database)
    yield made
    made.check()


def send(person: str, game_id: str, *races: str, body: str = "Peace") -> Call:
    return Call("api.diplomail_send", (person, game_id, {"recipients": list(races), "body": body}))


def sanction(person: str, code: str) -> Call:
    return Call("api.user_sanction_apply", ("root", person, {"code": code, "reason": "A test."}))


def leave(mail: Mail, how: str, game_id: str, person: str) -> Call:
    """Take somebody out of a game, or out of all of it."""
    match how:
        case "removed":
            return mail.remove(game_id, person)
        case "banned":
            return Call("api.admin_game_ban_member", ("root", game_id, {"user_id": person, "reason": "A test."}))
        case "blocked":
            return sanction(person, "permanent_block")
    return Call("api.my_account_delete", (person,))


LEAVING = pytest.mark.parametrize("how", ["removed", "banned", "blocked", "deleted"])


def held(call: Call) -> tuple[str, list[Any]]:
    """A call as a query for `meanwhile`, which leaves it uncommitted."""
    values = [json.dumps(a) if isinstance(a, dict) else a for a in call.arguments]
    return f"SELECT {call.function}({', '.join(['%s'] * len(values))})", values


@LEAVING
def test_who_leaves_while_they_are_written_to_gets_it_or_is_not_found(mail: Mail, how: str) -> None:
    owner, reader = mail.people(2)
    (first, second) = mail.seated(owner, reader, count=2)
    write = send(owner, first, "Betas")
    assert told(meanwhile(mail, *held(write), [leave(mail, how, first, reader)])) == {"done": 1}
    assert mail.received(reader, "Peace") == (0 if how == "deleted" else 1)
    game_id = second if how in ("removed", "banned") else mail.seated(owner, *mail.people(1))[0]
    other = mail.one("SELECT user_id::text FROM memberships WHERE game_id = %s AND user_id <> %s", game_id, owner)
    answers = meanwhile(mail, *held(leave(mail, how, game_id, other)), [send(owner, game_id, "Betas", body="Late")])
    assert answers == ["GX422 recipient_not_found"]
    assert mail.received(other, "Late") == 0


@LEAVING
def test_who_leaves_while_they_write_has_written_or_is_refused(mail: Mail, how: str) -> None:
    owner, writer, other = mail.people(3)
    (game_id,) = mail.seated(owner, writer, other)
    assert told(meanwhile(mail, *held(send(writer, game_id, "Gammas")), [leave(mail, how, game_id, writer)])) == {"done": 1}
    assert mail.received(other, "Peace") == 1
    writer = mail.people(1)[0]
    (game_id,) = mail.seated(owner, writer, other)
    refused = {"blocked": "GX403 account_blocked", "deleted": "GX403 account_deleted"}.get(how, "GX404 game_not_found")
    late = send(writer, game_id, "Gammas", body="Late")
    assert meanwhile(mail, *held(leave(mail, how, game_id, writer)), [late]) == [refused]
    assert mail.received(other, "Late") == 0


def test_a_block_comes_before_or_after_what_is_written(mail: Mail) -> None:
    owner, writer = mail.people(2)
    (game_id,) = mail.seated(owner, writer)
    write = send(writer, game_id, "Alphas")
    assert told(meanwhile(mail, *held(write), [sanction(writer, "diplomail_block")])) == {"done": 1}
    assert mail.call(Call("api.user_sanction_lift", ("root", writer, "diplomail_block", {"reason": "A test."}))) is not None
    assert meanwhile(mail, *held(sanction(writer, "diplomail_block")), [write]) == ["GX403 sanctioned"]
    assert mail.received(owner, "Peace") == 1


@LEAVING
def test_who_leaves_while_a_broadcast_is_written_has_it_or_not(mail: Mail, how: str) -> None:
    owner, reader = mail.people(2)
    (first, second) = mail.seated(owner, reader, count=2)
    mail.call(Call("api.admin_diplomail_broadcast", ("root", {"game_ids": [first], "body": "For all"})))
    assert told(meanwhile(mail, "SELECT worker.diplomail_broadcast()", (), [leave(mail, how, first, reader)])) == {"done": 1}
    assert mail.received(reader, "For all") == (0 if how == "deleted" else 1)
    if how in ("blocked", "deleted"):
        return
    mail.call(Call("api.admin_diplomail_broadcast", ("root", {"game_ids": [second], "body": "For all"})))
    step = Call("worker.diplomail_broadcast", ())
    answers = meanwhile(mail, *held(leave(mail, how, second, reader)), [step], "galaxy_worker")
    assert [str(answer) for answer in answers] == [second]
    assert mail.received(reader, "For all") == 1


def test_nobody_waits_in_a_circle_and_what_is_unread_is_counted_right(mail: Mail) -> None:
    owner, bob, cid = mail.people(3)
    (game_id, other) = mail.seated(owner, bob, cid, count=2)
    members = {owner: "Alphas", bob: "Betas", cid: "Gammas"}
    chance = random.Random(1)
    for _ in range(4):
        inbox = mail.call(Call("api.diplomail_inbox_list", (bob, game_id, 200, None)))["items"]
        verbs = ("read", "delete", "read")
        known = [Call(f"api.diplomail_{verb}", (bob, game_id, m["message_id"])) for m in inbox[:4] for verb in verbs]
        others = {writer: [race for person, race in members.items() if person != writer] for writer in members}
        calls = [
            *(send(writer, game, *races) for writer, races in others.items() for game in (game_id, other) for _ in range(2)),
            *known,
            Call("api.admin_diplomail_purge", ("root", {"finished_more_than_days": 0})),
        ]
        chance.shuffle(calls)
        answers = told(mail.at_once(calls))
        assert set(answers) <= {"done", "GX404 message_not_found"}, answers
    for person in members:
        query = """SELECT count(*) FROM diplomail_recipients
                    WHERE user_id = %s AND delivered_at IS NOT NULL AND read_at IS NULL AND deleted_at IS NULL"""
        assert mail.unread(person) == mail.one(query, person) > 0


def test_retention_and_the_end_of_an_account_take_the_same_messages(mail: Mail) -> None:
    for _ in range(4):
        people = mail.people(4)
        games = mail.seated(*people, count=3)
        for game_id in games:
            for _ in range(10):
                mail.call(send(people[0], game_id, "Betas", "Gammas", "Deltas"))
            mail.call(Call("api.game_cancel", (people[0], game_id)))
        mail.db.execute("UPDATE clock SET clock_offset = clock_offset + interval '2 days'")
        purge = Call("api.admin_diplomail_purge", ("root", {"finished_more_than_days": 1}))
        gone = [Call("api.my_account_delete", (person,)) for person in people[1:]]
        assert told(mail.at_once([purge, *gone, purge])) == {"done": 5}
        assert mail.one("SELECT count(*) FROM diplomail_messages") == 0


def test_a_broadcast_outlives_the_workers_that_write_it(mail: Mail, database: Database, start_program: StartProgram) -> None:
    people = mail.people(3)
    games = mail.seated(*people, count=300)
    body = {"game_ids": games, "subject": "Tonight", "body": "There are no turns."}
    assert mail.call(Call("api.admin_diplomail_broadcast", ("root", body))) == {"messages": len(games)}
    assert mail.one("SELECT count(*) FROM diplomail_messages") == 0
    written = "SELECT count(*) FROM diplomail_messages WHERE subject = 'Tonight'"
    for enough in (5, 40):
        worker = start_program("worker", database)
        until(lambda enough=enough: mail.one(written) >= enough)  # type: ignore[misc]
        worker.kill()
        assert mail.one(written) < len(games)
    for _ in range(2):
        start_program("worker", database)
    until(lambda: mail.one("SELECT count(*) FROM diplomail_broadcasts") == 0, timeout=120)
    once = "SELECT count(*), count(DISTINCT game_id) FROM diplomail_messages WHERE subject = 'Tonight'"
    assert mail.db.execute(once).fetchone() == (len(games), len(games))
    each = """SELECT r.user_id::text, count(*) FROM diplomail_recipients AS r JOIN diplomail_messages AS m USING (message_id)
               WHERE m.subject = 'Tonight' AND r.delivered_at IS NOT NULL GROUP BY r.user_id"""
    assert dict(mail.db.execute(each).fetchall()) == dict.fromkeys(people, len(games))
    told_of = "SELECT user_id::text, count(*) FROM notifications WHERE kind = 'diplomail.received' GROUP BY user_id"
    assert dict(mail.db.execute(told_of).fetchall()) == dict.fromkeys(people, len(games))
