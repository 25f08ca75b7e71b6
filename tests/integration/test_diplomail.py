"""Diplomatic mail and its translator: a real service over HTTP that is slow, fails, answers garbage, or is not there."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psycopg
import pytest

from app import config as configuration
from tests.postgres import Database
from tests.services import StartProgram, new_email, travel, until
from tests.smtp_relay import worker_environment
from workers.door import Door
from workers.tasks.diplomail import DiplomailDelivery

Answer = Callable[[dict[str, Any]], bytes | None]


def translation(asked: dict[str, Any]) -> bytes:
    return json.dumps({"translatedText": f"[{asked['target']}] {asked['q']}"}).encode()


class StandIn:
    """A LibreTranslate on a real socket; `answer` makes an answer of what it is asked, None stalls."""

    def __init__(self) -> None:
        self.answer: Answer = translation
        self.status = 200
        self.asked: list[dict[str, Any]] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append({"path": self.path, **asked})
                body = outer.answer(asked)
                if body is None:
                    outer.released.wait()
                    return
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def translator() -> Iterator[StandIn]:
    made = StandIn()
    yield made
    made.close()


@pytest.fixture
def connection(database: Database) -> psycopg.Connection[Any]:
    """As a program that is told of a translator."""
    return database.connect(options="-csearch_path=backend -cbackend.diplomail_translator=1")


def work(database: Database, url: str, **variables: str) -> None:
    """Do in this process what the job program does when it is woken."""
    environment = worker_environment(database, 9, **variables)
    config = configuration.load({"BACKEND_DIPLOMAIL_TRANSLATOR_URL": url, **environment})

    async def session() -> None:
        door = Door(config)
        await door.open()
        diplomail = DiplomailDelivery(config, door)
        try:
            await diplomail.run()
        finally:
            await diplomail.close()
            await door.close()

    asyncio.run(session())


class Game:
    """A game of somebody who reads English and of others, each with their language."""

    def __init__(self, connection: psycopg.Connection[Any], *languages: str) -> None:
        self.connection = connection
        self.people = [self._person(language) for language in ("en", *languages)]
        connection.execute("INSERT INTO engine_versions (version, image_ref) VALUES ('1.0.0', 'engine:1')")
        body = {
            "game_name": "Friday",
            "min_players": 2,
            "max_players": 9,
            "turn_schedule": "0 * * * *",
            "enrollment_ends_at": "2100-01-01T00:00:00Z",
            "race_name": "Alphas",
        }
        made = self._one("SELECT body FROM api.game_create(%s, %s)", self.people[0], json.dumps(body))
        self.game_id = json.loads(made)["game_id"]
        for number, person in enumerate(self.people[1:]):
            name = ("Betas", "Gammas", "Deltas")[number]
            self._one("SELECT seat_take(g, %s, %s) FROM games AS g WHERE game_id = %s", person, name, self.game_id)

    def _one(self, query: str, *values: object) -> Any:
        row = self.connection.execute(query, values).fetchone()
        assert row is not None
        return row[0]

    def _person(self, language: str) -> str:
        email = new_email()
        query = "SELECT (account_create('email', %s, %s, %s, 'UTC', NULL)).user_id"
        return str(self._one(query, email, email, language))

    def send(self, body: str, subject: str | None = None) -> None:
        """The owner writes to all."""
        sent = {"recipients": "all", "body": body} | ({} if subject is None else {"subject": subject})
        self._one("SELECT status FROM api.diplomail_send(%s, %s, %s)", self.people[0], self.game_id, json.dumps(sent))

    def inbox(self, number: int) -> list[dict[str, Any]]:
        page = self._one("SELECT api.diplomail_inbox_list(%s, %s, 100, NULL)", self.people[number], self.game_id)
        items: list[dict[str, Any]] = json.loads(page)["items"]
        return items


def test_a_message_is_translated_once_for_each_language(
    database: Database, connection: psycopg.Connection[Any], translator: StandIn
) -> None:
    game = Game(connection, "de", "de-AT", "en-GB")
    game.send("Peace", "A pact")
    assert [len(game.inbox(number)) for number in (1, 2, 3)] == [0, 0, 1]
    work(database, translator.url)
    expected = {"language": "de", "subject": "[de] A pact", "body": "[de] Peace"}
    for number in (1, 2):
        [message] = game.inbox(number)
        assert (message["body"], message["translation"]) == ("Peace", expected)
    assert game.inbox(3)[0]["translation"] is None
    work(database, translator.url)
    asked = {"path": "/translate", "source": "auto", "target": "de", "format": "text"}
    assert translator.asked == [{**asked, "q": "Peace"}, {**asked, "q": "A pact"}]


@pytest.mark.parametrize(
    "character", ["a", "\N{CYRILLIC SMALL LETTER ZHE}", "\N{HEBREW LETTER SHIN}", "\N{ARABIC LETTER AIN}", "漢", "\N{ROCKET}"]
)
def test_any_script_goes_there_and_back_to_the_last_byte(
    database: Database, connection: psycopg.Connection[Any], translator: StandIn, character: str
) -> None:
    game = Game(connection, "de")
    body = (character * 4096).encode()[:4096].decode(errors="ignore")
    game.send(body)
    work(database, translator.url)
    assert [(m["body"], m["translation"]["body"]) for m in game.inbox(1)] == [(body, f"[de] {body}")]
    with pytest.raises(psycopg.Error) as refused:
        game.send(body + character + "aaa")
    assert refused.value.sqlstate == "GX400"


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (500, b""),
        (429, b'{"error": "Slow down"}'),
        (302, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"translatedText": 1}'),
        (200, b'{"translatedText": ["a"]}'),
        (200, b'{"translatedText": " "}'),
        (200, b'{"translatedText": "a\\u0000b"}'),
        (200, b'{"translatedText": "\\ud800"}'),
        (200, b'{"translatedText": "' + b"a" * 65537 + b'"}'),
        (200, b"a" * (1 << 21)),
        (200, b"[" * 100_000),
    ],
)
def test_what_is_no_translation_is_asked_for_again_and_then_given_up(
    database: Database, connection: psycopg.Connection[Any], translator: StandIn, status: int, answer: bytes
) -> None:
    game = Game(connection, "de")
    game.send("Peace")
    translator.status, translator.answer = status, lambda _: answer
    attempts = {"BACKEND_DIPLOMAIL_TRANSLATOR_MAX_ATTEMPTS": "2"}
    work(database, translator.url, **attempts)
    assert (len(translator.asked), game.inbox(1)) == (1, [])
    travel(connection, "5 seconds")
    work(database, translator.url, **attempts)
    assert len(translator.asked) == 2
    assert [(m["body"], m["translation"]) for m in game.inbox(1)] == [("Peace", None)]


def test_what_the_service_refuses_is_not_asked_for_again(
    database: Database, connection: psycopg.Connection[Any], translator: StandIn
) -> None:
    game = Game(connection, "tlh")
    game.send("Peace")
    translator.status, translator.answer = 400, lambda _: b'{"error": "tlh is not supported"}'
    work(database, translator.url)
    assert [(m["body"], m["translation"]) for m in game.inbox(1)] == [("Peace", None)]
    assert len(translator.asked) == 1


def test_a_slow_service_and_one_that_is_not_there_delay_a_message_and_lose_none(
    database: Database, connection: psycopg.Connection[Any], translator: StandIn
) -> None:
    game = Game(connection, "de")
    game.send("Peace")
    translator.answer = lambda _: None
    work(database, translator.url, BACKEND_DIPLOMAIL_TRANSLATOR_TIMEOUT="100ms")
    assert game.inbox(1) == []
    travel(connection, "5 seconds")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
    work(database, nobody)
    assert game.inbox(1) == []
    travel(connection, "20 seconds")
    translator.answer = translation
    work(database, translator.url)
    assert [m["translation"]["body"] for m in game.inbox(1)] == ["[de] Peace"]


def test_without_a_translator_what_waits_is_delivered(database: Database, connection: psycopg.Connection[Any]) -> None:
    game = Game(connection, "de")
    game.send("Peace")
    work(database, "")
    assert [(m["body"], m["translation"]) for m in game.inbox(1)] == [("Peace", None)]


def test_the_same_text_is_asked_for_once(database: Database, connection: psycopg.Connection[Any], translator: StandIn) -> None:
    game = Game(connection, "de")
    for expected in (1, 2):
        game.send("Peace", "A pact")
        work(database, translator.url)
        translated = {"language": "de", "subject": "[de] A pact", "body": "[de] Peace"}
        assert [m["translation"] for m in game.inbox(1)] == [translated] * expected
    assert len(translator.asked) == 2
    # Another subject is another text.
    game.send("Peace")
    work(database, translator.url)
    assert game.inbox(1)[0]["translation"] == {"language": "de", "subject": None, "body": "[de] Peace"}


def test_one_that_takes_long_holds_up_no_other(
    database: Database, connection: psycopg.Connection[Any], translator: StandIn, start_program: StartProgram
) -> None:
    game = Game(connection, "de")
    translator.answer = lambda asked: None if asked["q"] == "Slow" else translation(asked)
    worker = start_program("worker", database, BACKEND_DIPLOMAIL_TRANSLATOR_URL=translator.url)
    until(lambda: worker.logged("working"))
    game.send("Slow")
    until(lambda: translator.asked)
    for body in ("One", "Two", "Three"):
        game.send(body)
        until(lambda body=body: [m for m in game.inbox(1) if m["body"] == body])  # type: ignore[misc]
    assert [m["body"] for m in game.inbox(1)] == ["Three", "Two", "One"]


def test_a_worker_that_is_killed_in_mid_translation_leaves_it_to_the_next(
    database: Database, connection: psycopg.Connection[Any], translator: StandIn, start_program: StartProgram
) -> None:
    game = Game(connection, "de")
    translator.answer = lambda _: None
    worker = start_program("worker", database, BACKEND_DIPLOMAIL_TRANSLATOR_URL=translator.url)
    until(lambda: worker.logged("working"))
    game.send("Peace")
    until(lambda: translator.asked)
    worker.kill()
    translator.answer = translation
    work(database, translator.url)
    assert game.inbox(1) == []
    # Its lease is over.
    travel(connection, "25 seconds")
    start_program("worker", database, BACKEND_DIPLOMAIL_TRANSLATOR_URL=translator.url)
    [message] = until(lambda: game.inbox(1))
    assert message["translation"]["body"] == "[de] Peace"
    told = connection.execute("SELECT count(*) FROM notifications WHERE kind = 'diplomail.received'").fetchone()
    assert told == (1,)
