"""The job program's calls of engines: against the development engine, and against engines that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import socket
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from dev.engine.process import EngineProcess
from tests.contract.games import RudeEngine
from workers.runtime.engine_client import (
    LARGEST_ANSWER,
    EngineClient,
    EngineError,
    EngineFailed,
    EngineNotInitialised,
    EngineRejected,
    EngineTimeout,
    EngineUnreachable,
    State,
)

GAME = str(uuid.UUID(int=7))

T = TypeVar("T")


def run(use: Callable[[EngineClient], Awaitable[T]], call_timeout: float = 30, probe_timeout: float = 10) -> T:
    async def scenario() -> T:
        client = EngineClient(call_timeout, probe_timeout)
        try:
            return await use(client)
        finally:
            await client.close()

    return asyncio.run(scenario())


# -- a real engine


def test_a_game_from_beginning_to_end(tmp_path: Path) -> None:
    async def play(client: EngineClient) -> None:
        await client.healthz(engine.url)
        with pytest.raises(EngineNotInitialised):
            await client.status(engine.url, GAME)
        made = await client.init(engine.url, GAME, ["Ada", "Зюг"])
        assert (made.id, made.turn, made.finished) == (GAME, 0, False)
        assert [player.race_name for player in made.player] == ["Ada", "Зюг"]
        # Somebody has been here before us, perhaps ourselves: the same game is a success, another one is not.
        assert await client.init(f"{engine.url}/", GAME.upper(), ["Ada", "Зюг"]) == made
        with pytest.raises(EngineFailed, match="another game"):
            await client.init(engine.url, str(uuid.UUID(int=8)), ["Ada"])
        with pytest.raises(EngineFailed, match="another game"):
            await client.status(engine.url, str(uuid.UUID(int=8)))
        state = await client.turn(engine.url, GAME)
        assert state.turn == 1
        assert await client.status(engine.url, GAME) == state
        assert State.parse(json.loads(json.dumps(state.to_json())), GAME) == state
        await client.banish(engine.url, "Зюг")
        with pytest.raises(EngineRejected) as rejected:
            await client.banish(engine.url, "Nobody")
        assert rejected.value.status == 404
        assert rejected.value.body["error"]["code"] == "unknown_race"
        state = await client.turn(engine.url, GAME)
        assert (state.finished, [player.extinct for player in state.player]) == (True, [False, True])
        with pytest.raises(EngineRejected) as rejected:
            await client.turn(engine.url, GAME)
        assert rejected.value.status == 409

    with EngineProcess(tmp_path) as engine:
        run(play)


def test_bad_races_are_rejected(tmp_path: Path) -> None:
    with EngineProcess(tmp_path) as engine, pytest.raises(EngineRejected) as rejected:
        run(lambda client: client.init(engine.url, GAME, ["Ada", "Ada"]))
    assert rejected.value.status == 400


def test_many_at_once(tmp_path: Path) -> None:
    async def ask(client: EngineClient) -> None:
        await client.init(engine.url, GAME, ["Ada"])
        states = await asyncio.gather(*(client.status(engine.url, GAME) for _ in range(100)))
        assert len(set(states)) == 1

    with EngineProcess(tmp_path) as engine:
        run(ask)


def test_an_engine_that_is_gone_is_unreachable_and_found_again(tmp_path: Path) -> None:
    async def ask(client: EngineClient) -> None:
        await client.init(engine.url, GAME, ["Ada"])
        engine.kill()
        with pytest.raises(EngineUnreachable):
            await client.turn(engine.url, GAME)
        engine.start()
        assert (await client.turn(engine.url, GAME)).turn == 1

    engine = EngineProcess(tmp_path)
    engine.start()
    try:
        run(ask)
    finally:
        engine.stop()


# -- engines that are none


@contextlib.contextmanager
def answering(*parts: bytes, keep_open: bool = False) -> Iterator[str]:
    """Give every connection these bytes, whatever it asks; then close it, or leave it open until the end."""
    stop = threading.Event()
    connections: list[socket.socket] = []

    def serve() -> None:
        while not stop.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = listener.accept()
                connections.append(connection)
                with contextlib.suppress(OSError):
                    connection.recv(65536)
                    for part in parts:
                        connection.sendall(part)
                if not keep_open:
                    connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.02)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()
            thread.join()
            for connection in connections:
                connection.close()


def http(status: int, body: object = None, *headers: str) -> bytes:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Length: {len(text)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + text


PLAYER: dict[str, Any] = {"id": "1", "raceName": "Ada", "planets": 1, "population": 2.5, "votes": 3, "extinct": False}
STATE: dict[str, Any] = {"id": GAME, "turn": 1, "stage": 0, "finished": False, "player": [PLAYER]}


def ask_status(url: str) -> State:
    return run(lambda client: client.status(url, GAME), probe_timeout=5)


def test_what_an_engine_adds_to_a_state_is_left_out() -> None:
    with answering(http(200, {**STATE, "stage": "war", "more": 1, "player": [{**PLAYER, "more": 1}]})) as url:
        state = ask_status(url)
    assert state.to_json() == {**STATE, "stage": "war"}
    assert state.player[0].population == 2.5


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[" * 100_000,
        b"NaN",
        b'{"turn": ' + b"9" * 5000 + b"}",
        [],
        None,
        "state",
        {},
        {**STATE, "id": "game"},
        {**STATE, "id": None},
        {**STATE, "id": str(uuid.UUID(int=8))},
        {**STATE, "turn": -1},
        {**STATE, "turn": 1.0},
        {**STATE, "turn": True},
        {**STATE, "turn": "1"},
        {**STATE, "turn": 1 << 31},
        {**STATE, "stage": None},
        {**STATE, "stage": ""},
        {**STATE, "stage": "\x00"},
        {**STATE, "stage": []},
        {**STATE, "finished": 0},
        {**STATE, "finished": "false"},
        {**STATE, "player": None},
        {**STATE, "player": {}},
        {**STATE, "player": [1]},
        {**STATE, "player": [PLAYER, PLAYER]},
        {**STATE, "player": [PLAYER, {**PLAYER, "id": "2"}]},
        {**STATE, "player": [{**PLAYER, "id": str(n), "raceName": str(n)} for n in range(257)]},
        *({**STATE, "player": [{name: value for name, value in PLAYER.items() if name != left_out}]} for left_out in PLAYER),
        {**STATE, "player": [{**PLAYER, "raceName": "a\ud800"}]},
        {**STATE, "player": [{**PLAYER, "raceName": "a\x00"}]},
        {**STATE, "player": [{**PLAYER, "raceName": "a" * 129}]},
        {**STATE, "player": [{**PLAYER, "planets": 1.5}]},
        {**STATE, "player": [{**PLAYER, "planets": -1}]},
        {**STATE, "player": [{**PLAYER, "population": -0.5}]},
        {**STATE, "player": [{**PLAYER, "population": "1"}]},
        {**STATE, "player": [{**PLAYER, "population": True}]},
        {**STATE, "player": [{**PLAYER, "votes": 10**400}]},
        json.dumps({**STATE, "player": [{**PLAYER, "votes": 7777}]}).replace("7777", "1e999").encode(),
        {**STATE, "player": [{**PLAYER, "extinct": None}]},
    ],
)
def test_what_is_no_state_is_a_failure(body: object) -> None:
    with answering(http(200, body)) as url, pytest.raises(EngineFailed):
        ask_status(url)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(500, {"error": "x"}), EngineFailed),
        (http(503, b"<html>"), EngineFailed),
        (http(501, b""), EngineNotInitialised),
        (http(201, STATE), EngineFailed),
        (http(204), EngineFailed),
        (http(302, b"", "Location: http://127.0.0.1:1/"), EngineFailed),
        (http(302, b"", "Location: http://xn--/"), EngineFailed),
        (http(404, b"<html>"), EngineRejected),
        (http(400, {"error": {}}), EngineRejected),
        (b"SSH-2.0-OpenSSH_9.2\r\n", EngineFailed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{", EngineFailed),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\n", EngineFailed),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50_000, EngineFailed),
        (b"", EngineFailed),
        (http(200, gzip.compress(json.dumps(STATE).encode()), "Content-Encoding: gzip"), EngineFailed),
        (http(200, b" " * (LARGEST_ANSWER + 1)), EngineFailed),
        (http(404, b" " * (LARGEST_ANSWER + 1)), EngineFailed),
    ],
)
def test_an_answer_that_the_contract_does_not_have(answer: bytes, error: type[EngineError]) -> None:
    with answering(answer) as url:
        with pytest.raises(EngineError) as raised:
            ask_status(url)
        assert type(raised.value) is error, raised.value


def test_a_rejection_brings_what_the_engine_said_if_that_is_json() -> None:
    for body, expected in (({"error": 1}, {"error": 1}), (b"<html>", None), (b"", None)):
        with answering(http(422, body)) as url, pytest.raises(EngineRejected) as rejected:
            ask_status(url)
        assert (rejected.value.status, rejected.value.body) == (422, expected)


def test_what_an_engine_sets_goes_to_no_other() -> None:
    cookies = [f"Set-Cookie: c{n}={'x' * 3000}" for n in range(30)] + ["Set-Cookie: a=\u00e9"]

    async def ask(client: EngineClient) -> None:
        await client.healthz(rude.url)
        await client.healthz(other.url)

    rude_answer = http(200, b"", *cookies).decode().encode("latin-1")
    with (
        RudeEngine(lambda connection, _: connection.sendall(rude_answer)) as rude,
        RudeEngine(lambda connection, _: connection.sendall(http(200, b""))) as other,
    ):
        run(ask)
    assert b"ookie" not in b"".join(other.requests)


def test_an_answer_without_end_is_cut_off() -> None:
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * (4 * LARGEST_ANSWER)
    with answering(endless, keep_open=True) as url, pytest.raises(EngineFailed, match="more than"):
        ask_status(url)


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{"])
def test_an_engine_that_does_not_answer_in_time(begin: bytes) -> None:
    async def ask(client: EngineClient) -> None:
        loop = asyncio.get_running_loop()
        for call, seconds in (
            (client.healthz(url), 0.1),
            (client.status(url, GAME), 0.1),
            (client.turn(url, GAME), 0.2),
            (client.init(url, GAME, ["Ada"]), 0.2),
            (client.banish(url, "Ada"), 0.2),
        ):
            before = loop.time()
            with pytest.raises(EngineTimeout):
                await call
            assert seconds - 0.05 <= loop.time() - before < seconds + 2

    with answering(begin, keep_open=True) as url:
        run(ask, call_timeout=0.2, probe_timeout=0.1)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://no-such-engine.invalid:8080", "ftp://x", "", "http://[", "x"])
def test_where_there_is_no_engine(endpoint: str) -> None:
    with pytest.raises(EngineUnreachable):
        run(lambda client: client.healthz(endpoint))


def test_a_proxy_of_the_environment_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with EngineProcess(tmp_path) as engine:
        run(lambda client: client.healthz(engine.url))


def test_healthz_need_not_be_json() -> None:
    with answering(http(200, b"ok")) as url:
        run(lambda client: client.healthz(url))
    with answering(http(202, b"ok")) as url, pytest.raises(EngineFailed):
        run(lambda client: client.healthz(url))
