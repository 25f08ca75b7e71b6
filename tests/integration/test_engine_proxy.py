"""What players send to a game's engine and read from it: who they are there, and what engines of every kind may do to us."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.contract.games import Game, RudeEngine, always, answer_of, call, engines_in, forget_engine, make_game, silent
from tests.contract.requests import World
from tests.postgres import Database
from tests.services import Api, Person, delete_account, sanction, simultaneously, until

CALL_TIMEOUT = 2.0
# What a busy machine may take on top; less than what an engine takes that nobody breaks off.
GRACE = 15.0


@pytest.fixture(scope="session", autouse=True)
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with engines_in(tmp_path_factory.mktemp("engines")):
        yield


@pytest.fixture(scope="session")
def world(shared_api: Api, shared_database: Database) -> World:
    return World(shared_api, shared_database)


@pytest.fixture(scope="session")
def hasty(shared_database: Database, session_starter: Any) -> World:
    """An API of one process and four threads that waits for an engine for two seconds."""
    api = session_starter(
        "api",
        shared_database,
        BACKEND_HTTP_WORKERS="1",
        BACKEND_HTTP_THREADS="4",
        BACKEND_ENGINE_CALL_TIMEOUT="2s",
        BACKEND_ENGINE_PROBE_TIMEOUT="2s",
    )
    return World(api.wait_ready(), shared_database)


def ask(world: World, game: Game, person: Person, method: str, what: str, body: Any = None, **options: Any) -> httpx.Response:
    """Ask about the game's turns in the name of somebody."""
    options["headers"] = {**options.pop("headers", {}), **person.header}
    if body is not None:
        options["json"] = body
    return world.api.client.request(method, f"/api/v1/user/games/{game.game_id}/{what}", **options)


def report(world: World, game: Game, person: Person, turn: int = 0, **options: Any) -> httpx.Response:
    return ask(world, game, person, "GET", f"reports/{turn}", **options)


def store(world: World, game: Game, person: Person, commands: list[Any], turn: int = 0) -> httpx.Response:
    return ask(world, game, person, "POST", "orders", {"turn": turn, "commands": commands})


def stored(world: World, game: Game, person: Person, turn: int = 0) -> httpx.Response:
    return ask(world, game, person, "GET", "orders", params={"turn": turn})


def command(world: World, game: Game, person: Person) -> httpx.Response:
    return ask(world, game, person, "POST", "commands", {"commands": []})


EVERY: dict[str, Callable[[World, Game, Person], httpx.Response]] = {
    "commands": command,
    "orders": lambda world, game, person: store(world, game, person, []),
    "stored": stored,
    "report": report,
}
READS = ("stored", "report")

every = pytest.mark.parametrize("which", EVERY)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def home(world: World, game: Game, person: Person) -> int:
    return int(report(world, game, person).json()["planets"][0]["number"])


# -- as whom


def test_each_reads_and_writes_as_their_own_race(world: World) -> None:
    game = make_game(world, status="running")
    owner, guest = game.owner, game.guest
    assert [report(world, game, p).json()["race"] for p in (owner, guest)] == list(game.races)
    grow = [{"order": "grow", "planet": home(world, game, owner)}]
    assert store(world, game, owner, grow).json() == {"player": game.races[0], "turn": 0, "commands": grow}
    assert stored(world, game, owner).json()["commands"] == grow
    # The other one's planet is not theirs to give orders to, and their orders are untouched.
    assert refused(store(world, game, guest, grow)) == (400, "engine_rejected")
    assert stored(world, game, guest).json() == {"turn": 0, "commands": []}


@pytest.mark.parametrize("what", ["commands", "orders"])
@pytest.mark.parametrize("name", ["actor", "player", "race", "raceName", "Actor"])
def test_no_body_says_who_somebody_is(what: str, name: str, world: World) -> None:
    game = make_game(world, status="running")
    body: dict[str, Any] = {"commands": [], name: game.races[1]} | ({"turn": 0} if what == "orders" else {})
    assert refused(ask(world, game, game.owner, "POST", what, body)) == (400, "invalid_request")


@pytest.mark.parametrize("name", ["player", "actor", "turn", "p_user_id"])
def test_no_query_says_who_somebody_is(name: str, world: World) -> None:
    game = make_game(world, status="running")
    answer = ask(world, game, game.owner, "GET", f"reports/0?{name}={game.races[1]}")
    assert refused(answer) == (400, "invalid_request")
    if name != "turn":
        answer = ask(world, game, game.owner, "GET", f"orders?turn=0&{name}={game.races[1]}")
        assert refused(answer) == (400, "invalid_request")


def test_no_header_says_who_somebody_is(world: World) -> None:
    game = make_game(world, status="running")
    names = ("X-Actor", "X-Player", "X-Race-Name", "X_User_ID", "X-Forwarded-User")
    headers = dict.fromkeys(names, game.races[1].replace(" ", "-"))
    answer = report(world, game, game.owner, headers=headers)
    assert answer.json()["race"] == game.races[0]


def test_the_engine_gets_the_race_and_nothing_else_of_the_caller(world: World) -> None:
    engine = RudeEngine(lambda connection, _: connection.sendall(answer_of(200, b"{}")))
    with engine:
        game = make_game(world, status="running", endpoint=engine.url)
        for which in EVERY.values():
            which(world, game, game.guest)
        heads = [request.partition(b"\r\n\r\n")[0].decode() for request in engine.requests]
        lines = [head.split("\r\n")[0] for head in heads]
        assert [line.split("?")[0] for line in lines[:2]] == ["PUT /api/v1/command HTTP/1.1", "PUT /api/v1/order HTTP/1.1"]
        for line in lines[2:]:
            query = dict(httpx.URL(line.split(" ")[1]).params)
            assert query == {"player": game.races[1], "turn": "0"}
        bodies = [json.loads(request.partition(b"\r\n\r\n")[2]) for request in engine.requests[:2]]
        assert bodies == [{"commands": [], "actor": game.races[1]}, {"commands": [], "turn": 0, "actor": game.races[1]}]
        for head in heads:
            assert game.guest.user_id not in head
            assert "x-user-id" not in head.lower()
            assert "authorization" not in head.lower()


def test_a_race_may_have_any_name_that_a_race_may_have(world: World) -> None:
    """Spaces, apostrophes, letters of other scripts: what goes into a query comes out of it."""
    with RudeEngine(lambda connection, _: connection.sendall(answer_of(200, b"{}"))) as engine:
        game = make_game(world, status="running", endpoint=engine.url)
        name = "Zoë O'Ñandú-Ö. 7"
        for table in ("race_names", "memberships"):
            game.execute(f"UPDATE {table} SET race_name = '{name.replace(chr(39), chr(39) * 2)}' WHERE user_id = %(guest)s")
        assert report(world, game, game.guest).status_code == 200
        assert command(world, game, game.guest).status_code == 202
        line = engine.requests[0].split(b"\r\n")[0].decode()
        assert httpx.URL(line.split(" ")[1]).params["player"] == name
        assert json.loads(engine.requests[1].partition(b"\r\n\r\n")[2])["actor"] == name


# -- who may


@every
def test_a_stranger_finds_no_game(which: str, world: World) -> None:
    game = make_game(world, status="running")
    assert refused(EVERY[which](world, game, world.person())) == (404, "game_not_found")


@every
@pytest.mark.parametrize("status", ["removed", "blocked"])
def test_whoever_is_no_member_any_more_finds_no_game(which: str, status: str, world: World) -> None:
    game = make_game(world, status="running")
    game.execute(f"UPDATE memberships SET status = '{status}', ended_at = now() WHERE user_id = %(guest)s")
    # What their race holds is let go with the seat.
    game.execute("UPDATE race_names SET tier = 'released', released_at = now() WHERE user_id = %(guest)s")
    assert refused(EVERY[which](world, game, game.guest)) == (404, "game_not_found")
    assert EVERY[which](world, game, game.owner).status_code < 300


@every
def test_an_owner_without_a_seat_finds_no_game(which: str, world: World) -> None:
    game = make_game(world, status="running")
    game.execute("UPDATE memberships SET status = 'removed', ended_at = now() WHERE user_id = %(owner)s")
    game.execute("UPDATE race_names SET tier = 'released', released_at = now() WHERE user_id = %(owner)s")
    assert refused(EVERY[which](world, game, game.owner)) == (404, "game_not_found")


@every
@pytest.mark.parametrize("what", ["deleted", "login_block", "permanent_block"])
def test_whoever_may_do_nothing_may_not_play(which: str, what: str, world: World) -> None:
    game = make_game(world, status="running")
    with world.connect() as connection:
        if what == "deleted":
            game.execute("UPDATE memberships SET status = 'removed', ended_at = now() WHERE user_id = %(guest)s")
            game.execute("UPDATE race_names SET tier = 'released', released_at = now() WHERE user_id = %(guest)s")
            delete_account(connection, game.guest.user_id)
        else:
            sanction(connection, game.guest.user_id, what)
    assert EVERY[which](world, game, game.guest).status_code == 403


@every
@pytest.mark.parametrize("status", ["draft", "enrollment_open", "ready_to_start", "starting", "start_failed"])
def test_before_the_start_there_is_nothing_to_ask(which: str, status: str, world: World) -> None:
    game = make_game(world, status=status)
    answer = EVERY[which](world, game, game.owner)
    assert refused(answer) == (409, "game_not_running")
    assert answer.json()["error"]["details"] == {"status": status}


@every
@pytest.mark.parametrize("status", ["paused", "finished"])
def test_a_game_that_does_not_run_is_read_and_not_played(which: str, status: str, world: World) -> None:
    game = make_game(world, status=status)
    answer = EVERY[which](world, game, game.owner)
    if which in READS:
        assert answer.status_code == 200
    else:
        assert refused(answer) == (409, "game_not_running")


@every
def test_an_engine_that_was_removed_is_not_asked(which: str, world: World) -> None:
    game = make_game(world, status="running")
    with world.connect() as connection:
        game.execute("UPDATE runtime_records SET wanted = 'removed' WHERE game_id = %(game)s")
        lease = call(connection, "worker.runtime_remove_claim", game.game_id, 60)
        assert call(connection, "worker.runtime_removed", game.game_id, lease) is True
    game.execute("UPDATE runtime_records SET wanted = 'running' WHERE game_id = %(game)s")
    assert refused(EVERY[which](world, game, game.owner)) == (409, "game_not_running")


# -- what the engine says


def test_orders_are_stored_read_replaced_and_cleared(world: World) -> None:
    game = make_game(world, status="running")
    planet = home(world, game, game.owner)
    assert stored(world, game, game.owner).json() == {"turn": 0, "commands": []}
    for order in ("grow", "fortify"):
        commands = [{"order": order, "planet": planet}]
        assert store(world, game, game.owner, commands).status_code == 200
        assert stored(world, game, game.owner).json()["commands"] == commands
    assert store(world, game, game.owner, []).json()["commands"] == []
    assert stored(world, game, game.owner).json() == {"turn": 0, "commands": []}
    assert stored(world, game, game.owner, 7).json() == {"turn": 7, "commands": []}


def test_orders_and_reports_of_a_past_turn(world: World) -> None:
    game = make_game(world, status="running")
    planet = home(world, game, game.owner)
    commands = [{"order": "grow", "planet": planet}]
    assert store(world, game, game.owner, commands).status_code == 200
    with world.connect() as connection:
        row = connection.execute("SELECT endpoint FROM runtime_records WHERE game_id = %s", [game.game_id]).fetchone()
    assert row is not None
    # The engine is shared; whichever turn it is in, there is one after it.
    turn = httpx.put(f"{row[0]}/api/v1/admin/turn", trust_env=False).json()["turn"]
    try:
        assert stored(world, game, game.owner, turn - 1).json()["commands"] == commands
        assert report(world, game, game.owner, turn).json()["turn"] == turn
        late = store(world, game, game.owner, commands, turn - 1)
        assert refused(late) == (400, "engine_rejected")
        assert late.json()["error"]["details"]["engine"]["error"]["code"] == "wrong_turn"
    finally:
        # Others expect races of an engine in turn 0.
        forget_engine()
    answer = report(world, game, game.owner, turn + 1)
    assert refused(answer) == (404, "engine_rejected")
    assert answer.json()["error"]["details"]["engine"]["error"]["code"] == "no_report"


@every
@pytest.mark.parametrize("status", [400, 403, 404, 409, 418, 422, 451, 499])
def test_what_an_engine_refuses_is_passed_on(which: str, status: int, world: World) -> None:
    said = {"error": {"code": "no", "problems": [{"where": "commands[0]", "what": "é\u0000"}]}}
    with always(status, json.dumps(said).encode(), "Content-Type: application/json", "Set-Cookie: a=b") as engine:
        answer = EVERY[which](world, game := make_game(world, status="running", endpoint=engine.url), game.owner)
    assert refused(answer) == (status, "engine_rejected")
    assert answer.json()["error"]["details"] == {"engine": said}
    assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("status", [401, 429])
def test_a_refusal_that_means_something_to_clients_has_the_headers_that_belong_to_it(status: int, world: World) -> None:
    with always(status, b"{}") as engine:
        game = make_game(world, status="running", endpoint=engine.url)
        answer = report(world, game, game.owner)
    assert answer.json()["error"]["code"] in ("engine_rejected", "engine_error")


def test_a_refusal_in_no_json_is_passed_on_without_it(world: World) -> None:
    with always(400, b"<html>\xff") as engine:
        game = make_game(world, status="running", endpoint=engine.url)
        answer = report(world, game, game.owner)
    assert refused(answer) == (400, "engine_rejected")
    assert answer.json()["error"]["details"] == {"engine": None}


BROKEN = {
    "500": answer_of(500, b"{}"),
    "501 before init": answer_of(501, b"{}"),
    "503": answer_of(503, b"{}"),
    "a redirect": answer_of(302, b"{}", "Location: http://127.0.0.1:1/"),
    "304": b"HTTP/1.1 304 Not Modified\r\n\r\n",
    "no JSON": answer_of(200, b"<html>"),
    "nothing": answer_of(200, b""),
    "no UTF-8": answer_of(200, b'"\xff"'),
    "cut off": answer_of(200, b"{}").replace(b"Content-Length: 2", b"Content-Length: 200"),
    "packed": answer_of(200, b"\x1f\x8b\x08\x00", "Content-Encoding: gzip"),
    "no HTTP": b"hello\r\n\r\n",
    "nothing at all": b"",
    "over 4 MiB": answer_of(200, b'"' + b"a" * (4 << 20) + b'"'),
    "nested too deep": answer_of(200, b"[" * 100_000 + b"]" * 100_000),
    "a redirect to nowhere": answer_of(302, b"{}", "Location: http://xn--/"),
    "a header of 200 KiB": answer_of(200, b"{}", "X-A: " + "a" * (200 << 10)),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_engine_that_talks_nonsense_is_502(kind: str, world: World) -> None:
    with RudeEngine(lambda connection, _: connection.sendall(BROKEN[kind])) as engine:
        game = make_game(world, status="running", endpoint=engine.url)
        for which in EVERY.values():
            assert refused(which(world, game, game.owner)) == (502, "engine_error")


def test_what_one_engine_sets_goes_to_no_other(world: World) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=\xe9\r\n" + b"".join(
        b"Set-Cookie: c%d=%s\r\n" % (n, b"x" * 3000) for n in range(20)
    )
    with (
        RudeEngine(lambda connection, _: connection.sendall(head + b"\r\n{}")) as rude,
        RudeEngine(lambda connection, _: connection.sendall(answer_of(200, b"{}"))) as other,
    ):
        first = make_game(world, status="running", endpoint=rude.url)
        second = make_game(world, status="running", endpoint=other.url)
        for _ in range(3):
            assert report(world, first, first.owner).status_code == 200
            assert report(world, second, second.owner).status_code == 200
        assert b"ookie" not in b"".join(other.requests)


def test_an_engine_that_is_gone_is_502(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    game = make_game(world, status="running", endpoint=endpoint)
    for which in EVERY.values():
        assert refused(which(world, game, game.owner)) == (502, "engine_error")


def test_a_large_answer_comes_whole(world: World) -> None:
    body = json.dumps({"text": "é" * 1_500_000}, ensure_ascii=False).encode()
    with always(200, body) as engine:
        game = make_game(world, status="running", endpoint=engine.url)
        answer = report(world, game, game.owner)
    assert answer.content == body


def test_an_answer_in_chunks_comes_whole(world: World) -> None:
    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for part in (b'{"a":', b" [1,", b" 2]}"):
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            time.sleep(0.05)
        connection.sendall(b"0\r\n\r\n")

    with RudeEngine(answer) as engine:
        game = make_game(world, status="running", endpoint=engine.url)
        assert report(world, game, game.owner).json() == {"a": [1, 2]}


# -- how long


@every
def test_an_engine_that_hangs_is_given_up_in_time(which: str, hasty: World) -> None:
    with silent() as engine:
        game = make_game(hasty, status="running", endpoint=engine.url)
        started = time.monotonic()
        assert refused(EVERY[which](hasty, game, game.owner)) == (504, "engine_timeout")
        assert CALL_TIMEOUT <= time.monotonic() - started < CALL_TIMEOUT + GRACE


def _trickle(connection: socket.socket, data: bytes, released: Callable[[float], bool], head: bytes = b"") -> None:
    connection.sendall(head)
    for byte in data:
        connection.sendall(bytes([byte]))
        if released(0.2):
            return


@pytest.mark.parametrize("part", ["body", "headers"])
def test_an_answer_that_trickles_is_cut_off_in_time(part: str, hasty: World) -> None:
    """Every read comes in time, and yet it would take a minute: the whole exchange has one limit."""
    engines: list[RudeEngine] = []

    def answer(connection: socket.socket, _: bytes) -> None:
        wait = engines[0].released.wait
        if part == "body":
            _trickle(connection, b" " * 300, wait, b"HTTP/1.1 200 OK\r\nContent-Length: 300\r\n\r\n")
        else:
            _trickle(connection, b"X-A: " + b"a" * 300, wait, b"HTTP/1.1 200 OK\r\n")

    with RudeEngine(answer) as engine:
        engines.append(engine)
        game = make_game(hasty, status="running", endpoint=engine.url)
        started = time.monotonic()
        answered = refused(report(hasty, game, game.owner))
        took = time.monotonic() - started
    assert answered == (504, "engine_timeout")
    assert took < CALL_TIMEOUT + GRACE


def test_an_answer_that_pauses_is_cut_off_at_the_deadline_and_no_later(hasty: World) -> None:
    """A part comes just before the limit; the wait for the next one is not a whole one again."""
    engines: list[RudeEngine] = []
    was_over = threading.Event()

    def answer(connection: socket.socket, _: bytes) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        engines[0].released.wait(CALL_TIMEOUT * 0.9)
        # A whole wait again would see the rest of the answer.
        connection.settimeout(CALL_TIMEOUT * 0.9)
        with contextlib.suppress(TimeoutError):
            try:
                connection.sendall(b"{")
                left = connection.recv(1) == b""
            except ConnectionError:  # it had left before that came
                left = True
            if left:
                was_over.set()
        connection.sendall(b"}")

    with RudeEngine(answer) as engine:
        engines.append(engine)
        game = make_game(hasty, status="running", endpoint=engine.url)
        assert refused(report(hasty, game, game.owner)) == (504, "engine_timeout")
        assert was_over.wait(CALL_TIMEOUT)


def test_engines_that_hang_leave_everything_else_answering(hasty: World) -> None:
    """Twelve ask engines, and four threads are all there are: one of them neither asks an engine nor waits to do so."""
    person = hasty.person()
    path = f"/api/v1/internal/sessions/{person.device_session_id}"
    given_up = threading.Event()
    with silent() as engine:
        made = [make_game(hasty, status="running", endpoint=engine.url) for _ in range(12)]

        def play(number: int) -> tuple[int, str]:
            with hasty.api.new_client() as client:
                answer = client.get(f"/api/v1/user/games/{made[number].game_id}/reports/0", headers=made[number].owner.header)
            if answer.status_code == 504:
                given_up.set()
            return refused(answer)

        with ThreadPoolExecutor(1) as pool, hasty.api.new_client() as client:
            playing = pool.submit(simultaneously, 12, play)
            until(lambda: len(engine.requests) == 2)
            answered = 0
            while not given_up.is_set():
                assert client.get(path, headers=hasty.api.internal).status_code == 200
                answered += 1
            answers = playing.result()
    # Who found no place was told to come again.
    assert set(answers) <= {(504, "engine_timeout"), (503, "unavailable")}
    assert answers.count((504, "engine_timeout")) >= 2
    # All the while that the first ones waited for their engine.
    assert answered >= 10


def test_a_place_is_given_back_whatever_the_engine_does(hasty: World) -> None:
    """There are two; after many failures of every kind there are two still."""
    for kind in ("no HTTP", "over 4 MiB", "500", "cut off", "nothing at all"):
        with RudeEngine(lambda connection, _, kind=kind: connection.sendall(BROKEN[kind])) as engine:  # type: ignore[misc]
            game = make_game(hasty, status="running", endpoint=engine.url)
            for _ in range(3):
                assert refused(report(hasty, game, game.owner)) == (502, "engine_error")
    game = make_game(hasty, status="running")
    assert {a.status_code for a in (report(hasty, game, game.owner) for _ in range(4))} == {200}


def test_a_command_is_never_sent_twice(world: World) -> None:
    """The engine hangs up after it has read: what it has done is not known, and it is not asked again."""
    with RudeEngine(lambda connection, _: connection.shutdown(socket.SHUT_RDWR)) as engine:
        game = make_game(world, status="running", endpoint=engine.url)
        assert refused(command(world, game, game.owner)) == (502, "engine_error")
        assert len(engine.requests) == 1
