"""The development engine as a process: its contract, its files, and what comes over the wire that should not."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from dev import engine_conformance
from dev.engine.engine import Engine, Refused
from dev.engine.game import Game
from dev.engine.process import EngineProcess

ROOT = Path(__file__).resolve().parents[2]
GAME = str(uuid.UUID(int=7))
RACES = {"gameId": GAME, "races": [{"raceName": "Ada"}, {"raceName": "Bob"}]}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[EngineProcess]:
    with EngineProcess(tmp_path / "state", seed="seed") as engine:
        yield engine


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineProcess]:
    """An engine for tests that only ask it what it refuses."""
    with EngineProcess(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


def call(engine: EngineProcess, method: str, path: str, body: Any = None) -> httpx.Response:
    return httpx.request(method, f"{engine.url}{path}", json=body, timeout=30, trust_env=False)


def init(engine: EngineProcess) -> dict[str, Any]:
    answer = call(engine, "POST", "/api/v1/admin/init", RACES)
    assert answer.status_code == 201
    state: dict[str, Any] = answer.json()
    return state


def status(engine: EngineProcess) -> dict[str, Any]:
    state: dict[str, Any] = call(engine, "GET", "/api/v1/admin/status").json()
    return state


def home(engine: EngineProcess, race: str) -> int:
    report = call(engine, "GET", f"/api/v1/report?player={race}&turn=0").json()
    return int(report["planets"][0]["number"])


# -- the contract


def test_it_conforms(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, seed="conform") as engine:
        conformance = engine_conformance.Conformance(engine.url, order=own_order(), command={"command": "vote", "for": "Люди"})
        conformance.run()
        assert [str(check) for check in conformance.checks if check.outcome != "ok"] == []
        assert len(conformance.checks) > 150
        assert "Traceback" not in engine.log


def own_order() -> dict[str, Any]:
    """Return an order that the first of the conformance test's races may give; the seed decides where it lives."""
    game, _ = Game.new(GAME, engine_conformance.RACES, "conform", 12)
    number = next(planet.number for planet in game.planets if planet.owner == engine_conformance.RACES[0])
    return {"order": "grow", "planet": number}


def test_the_conformance_test_as_a_program(engine: EngineProcess) -> None:
    command = [sys.executable, "-m", "dev.engine_conformance"]
    done = subprocess.run([*command, engine.url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert lines[0] == "ok   healthz answers 200"
    assert lines[-1].endswith(" 0 failed")
    # What it needs samples for is said, not passed over.
    assert sum(line.startswith("skip ") for line in lines) == 2
    # The engine is no longer fresh, and then it is gone.
    done = subprocess.run([*command, engine.url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, "the engine has a game already; checks need a fresh one\n")
    engine.stop()
    done = subprocess.run([*command, engine.url], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "no engine answers" in done.stderr


class _Yes(BaseHTTPRequestHandler):
    """An engine that agrees to everything."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_PUT = do_POST = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


def test_an_engine_that_does_not_conform_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Yes) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        assert engine_conformance.main([f"http://127.0.0.1:{server.server_address[1]}"]) == 1
        server.shutdown()
        thread.join()
    told = capsys.readouterr().out
    assert "ok   healthz answers 200\n" in told
    assert "FAIL before init, status is 501: 200 {}\n" in told
    assert "FAIL init answers 201: 200 {}\n" in told


# The check that fails first, and the change to a copy of the engine that makes it fail.
BROKEN = {
    "the turn is one more": ("engine.py", "self._keep(game, game.next_turn())", "self._keep(game)"),
    "an empty list has cleared them": ("engine.py", "            game.orders.pop(race.name, None)\n", ""),
    "the new turn has no orders yet": ("game.py", "orders, self.orders = self.orders, {}", "orders = self.orders"),
    "Люди has none of it": ("engine.py", "if player in orders", "if (player := next(iter(orders), ''))"),
    "a second init is 409": ("engine.py", "if self._game is not None:", "if False:"),
    "a turn of a finished game is 409": ("engine.py", "            _refuse_finished(game)\n            self", "            self"),
    "init with two races of one name is 400": ("engine.py", 'race["raceName"] in names', "False"),
    "init with a zero UUID is 400": ("engine.py", "made.int and ", ""),
    "the banished race is extinct": ("engine.py", "                game.banish(race)", "                pass"),
    "a report for no race of the game is a 4xx": ("engine.py", 'Refused(404, "unknown_race"', 'Refused(500, "unknown_race"'),
    "init answers 201": ("server.py", "_Answer(201,", "_Answer(200,"),
    "no commands are answered with 202": ("server.py", "_Answer(202,", "_Answer(200,"),
    "before init, status is 501": ("engine.py", "raise Refused(501,", "raise Refused(503,"),
    "init's answer is a state: Content-Type": ("server.py", '"application/json"', '"text/plain"'),
    "init's answer is a state: player[0].votes": ("game.py", '"votes": votes[race.name]', '"votes": None'),
}


@pytest.mark.parametrize("check", BROKEN)
def test_the_conformance_test_sees_what_is_broken(check: str, tmp_path: Path) -> None:
    name, good, bad = BROKEN[check]
    package = tmp_path / "dev" / "engine"
    package.mkdir(parents=True)
    for file in (ROOT / "dev" / "engine").glob("*.py"):
        text = file.read_text()
        if file.name == name:
            assert good in text
            text = text.replace(good, bad)
        (package / file.name).write_text(text)
    environment = {
        "GALAXY_ENGINE_STATE_DIR": str(tmp_path / "state"),
        "GALAXY_ENGINE_PORT": "0",
        "GALAXY_ENGINE_SEED": "conform",
    }
    with subprocess.Popen([sys.executable, "-m", "dev.engine"], cwd=tmp_path, env=environment, stderr=subprocess.PIPE) as broken:
        assert broken.stderr is not None
        # Else the pipe could fill up.
        reader = threading.Thread(target=broken.stderr.read)
        try:
            url = broken.stderr.readline().decode().partition("listens on ")[2].partition(": ")[0]
            reader.start()
            conformance = engine_conformance.Conformance(url, order=own_order())
            conformance.run()
        finally:
            broken.kill()
            reader.join()
    assert check in str(conformance.failed[0])


# -- its life


def test_it_tells_where_it_is_and_goes_on_from_its_file(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, version="1.2.3", seed="seed", last_turn=5)
    with engine:
        endpoint = json.loads((tmp_path / "endpoint.json").read_bytes())
        assert (endpoint["version"], endpoint["port"]) == ("1.2.3", urlsplit(engine.url).port)
        assert call(engine, "GET", "/healthz").json() == {"status": "ok", "version": "1.2.3"}
        init(engine)
        planet = home(engine, "Ada")
        order = {"actor": "Ada", "turn": 0, "commands": [{"order": "grow", "planet": planet}]}
        assert call(engine, "PUT", "/api/v1/order", order).status_code == 200
        before = call(engine, "PUT", "/api/v1/admin/turn").json()
        order["turn"] = 1
        assert call(engine, "PUT", "/api/v1/order", order).status_code == 200
        reports = [call(engine, "GET", f"/api/v1/report?player=Ada&turn={turn}").json() for turn in (0, 1)]
    assert not (tmp_path / "endpoint.json").exists()
    # What a game is played by is decided when it is made.
    with EngineProcess(tmp_path, version="1.2.4", seed="another", last_turn=1) as engine:
        assert status(engine) == before
        assert call(engine, "GET", "/api/v1/order?player=Ada&turn=1").json()["commands"] == order["commands"]
        assert call(engine, "GET", "/api/v1/order?player=Ada&turn=0").json()["commands"] == order["commands"]
        assert [call(engine, "GET", f"/api/v1/report?player=Ada&turn={turn}").json() for turn in (0, 1)] == reports
        finished = [call(engine, "PUT", "/api/v1/admin/turn").json()["finished"] for _ in range(4)]
        assert finished == [False, False, False, True]
    assert oct(tmp_path.joinpath("state.json").stat().st_mode)[-3:] == "600"


def test_two_never_run_over_one_directory(engine: EngineProcess) -> None:
    init(engine)
    environment = {**os.environ, "GALAXY_ENGINE_STATE_DIR": str(engine.state_dir), "GALAXY_ENGINE_PORT": "0"}
    second = subprocess.run(
        [sys.executable, "-m", "dev.engine"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert second.returncode == 75
    assert "another engine runs over" in second.stderr
    # It has touched nothing.
    assert json.loads((engine.state_dir / "endpoint.json").read_bytes())["port"] == urlsplit(engine.url).port
    assert status(engine)["id"] == GAME


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [
        ("GALAXY_ENGINE_PORT", "http", "GALAXY_ENGINE_PORT must be a whole number from 0 to 65535"),
        ("GALAXY_ENGINE_PORT", "65536", "GALAXY_ENGINE_PORT"),
        ("GALAXY_ENGINE_LAST_TURN", "0", "GALAXY_ENGINE_LAST_TURN"),
        ("GALAXY_ENGINE_STATE_DIR", "games", "must be an absolute path"),
        ("GALAXY_ENGINE_HOST", "localhost", "must be an IPv4 address"),
    ],
)
def test_a_wrong_setting_is_told(setting: str, value: str, told: str, tmp_path: Path) -> None:
    environment = {**os.environ, "GALAXY_ENGINE_STATE_DIR": str(tmp_path), setting: value}
    done = subprocess.run(
        [sys.executable, "-m", "dev.engine"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 78
    assert told in done.stderr


def test_a_file_that_is_not_ours_or_a_port_that_is_taken_stops_the_start(tmp_path: Path, engine: EngineProcess) -> None:
    for content in ("{", "[]", '{"id": 1}', '"x"'):
        directory = tmp_path / "broken"
        directory.mkdir(exist_ok=True)
        (directory / "state.json").write_text(content)
        with pytest.raises(RuntimeError, match="not started"):
            EngineProcess(directory).start()
        assert (directory / "state.json").read_text() == content
    port = urlsplit(engine.url).port
    assert port is not None
    with pytest.raises(RuntimeError, match="in use"):
        EngineProcess(tmp_path / "other", port=port).start()


def test_told_to_stop_it_answers_what_has_come_and_does_not_wait_for_the_idle(engine: EngineProcess) -> None:
    init(engine)
    address = ("127.0.0.1", urlsplit(engine.url).port)
    with socket.create_connection(address) as idle, httpx.Client(trust_env=False) as kept:
        assert kept.get(f"{engine.url}/healthz").status_code == 200
        idle.sendall(b"GET /healthz HT")
        begin = time.monotonic()
        assert engine.stop() == 0
        assert time.monotonic() - begin < 3
    assert "stopped: game" in engine.log


def test_killed_at_any_moment_it_has_lost_nothing_that_it_answered(tmp_path: Path) -> None:
    engine = EngineProcess(tmp_path, seed="seed", last_turn=9999)
    engine.start()
    try:
        _kill_again_and_again(engine)
    finally:
        engine.kill()


def _kill_again_and_again(engine: EngineProcess) -> None:
    init(engine)
    planet = home(engine, "Ada")
    chance = random.Random(5)
    turn = 0
    # By turn: what was sent to be stored, and how much of that was answered. Each differs from the one before it.
    sent: dict[int, list[str]] = {}
    answered: dict[int, int] = {}
    for _ in range(8):
        # Its death is somewhere in a flow of turns and orders.
        killer = threading.Timer(chance.uniform(0.03, 0.15), engine.kill)
        killer.start()
        with httpx.Client(base_url=engine.url, trust_env=False) as client, contextlib.suppress(httpx.TransportError):
            while True:
                for _ in range(2):
                    sent.setdefault(turn, []).append(("grow", "fortify")[len(sent[turn]) % 2] if turn in sent else "grow")
                    body = {"actor": "Ada", "turn": turn, "commands": [{"order": sent[turn][-1], "planet": planet}]}
                    assert client.put("/api/v1/order", json=body).status_code == 200
                    answered[turn] = len(sent[turn])
                answer = client.put("/api/v1/admin/turn")
                assert answer.status_code == 200
                turn += 1
                assert answer.json()["turn"] == turn
        killer.join()
        for file in engine.state_dir.glob("*.json"):
            json.loads(file.read_bytes())
        engine.start()
        now = status(engine)["turn"]
        # What was not answered may have been done.
        assert now in (turn, turn + 1)
        turn = now
    assert turn > 0
    with httpx.Client(base_url=engine.url, trust_env=False) as client:
        for past in range(turn + 1):
            assert client.get(f"/api/v1/report?player=Bob&turn={past}").json()["turn"] == past
            stored = client.get(f"/api/v1/order?player=Ada&turn={past}")
            possible = sent.get(past, [])[max(0, answered.get(past, 0) - 1) :]
            if past in answered or stored.status_code == 200:
                assert stored.json()["commands"][0]["order"] in possible


_DIE = """
import os, signal, sys
from pathlib import Path
from dev.engine.engine import Engine
engine = Engine(Path(sys.argv[1]), seed="seed", last_turn=9)
left = int(sys.argv[2])
def hook(event, arguments):
    global left
    if event == "os.rename" or event == "open" and not isinstance(arguments[0], int):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
engine.turn()
"""


def test_killed_before_each_step_of_a_turn_it_has_that_turn_or_the_one_before(tmp_path: Path) -> None:
    Engine(tmp_path, seed="seed", last_turn=9).init(RACES)
    seen = []
    for step in range(1, 30):
        before = Engine(tmp_path, seed="seed", last_turn=9).status()["turn"]
        done = subprocess.run([sys.executable, "-c", _DIE, str(tmp_path), str(step)], cwd=ROOT, timeout=30, check=False)
        engine = Engine(tmp_path, seed="seed", last_turn=9)
        now = engine.status()["turn"]
        assert [engine.report("Ada", turn)["turn"] for turn in range(now + 1)] == list(range(now + 1))
        if done.returncode == 0:
            assert now == before + 1
            break
        assert done.returncode == -signal.SIGKILL
        seen.append(now - before)
    # Two files, each opened, put in its place, and its directory opened: only after the last is the turn there.
    assert seen == [0, 0, 0, 0, 0, 1]


def test_what_cannot_be_written_down_has_not_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tmp_path, seed="seed", last_turn=9)
    engine.init(RACES)

    def full(path: Path, content: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dev.engine.store.write_json", full)
        with pytest.raises(OSError, match="space"):
            engine.turn()
        with pytest.raises(OSError, match="space"):
            engine.banish({"raceName": "Ada"})
    assert engine.status() == Engine(tmp_path, seed="seed", last_turn=9).status()
    assert engine.status()["turn"] == 0
    assert engine.turn()["turn"] == 1


# -- what comes over the wire


def test_calls_at_once_are_done_one_after_another(engine: EngineProcess) -> None:
    init(engine)
    turns: list[int] = []

    def generate() -> None:
        turns.append(call(engine, "PUT", "/api/v1/admin/turn").json()["turn"])

    threads = [threading.Thread(target=generate) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(turns) == list(range(1, 9))


def test_one_of_many_inits_makes_the_game(engine: EngineProcess) -> None:
    statuses: list[int] = []
    threads = [
        threading.Thread(target=lambda: statuses.append(call(engine, "POST", "/api/v1/admin/init", RACES).status_code))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201] + [409] * 7


def test_who_is_out_or_has_no_game_left_cannot_act_but_read(tmp_path: Path) -> None:
    with EngineProcess(tmp_path, last_turn=2, seed="seed") as engine:
        init(engine)
        planet = home(engine, "Ada")
        assert call(engine, "POST", "/api/v1/admin/race/banish", {"raceName": "Bob"}).status_code == 204
        assert call(engine, "POST", "/api/v1/admin/race/banish", {"raceName": "Bob"}).status_code == 204
        answer = call(engine, "PUT", "/api/v1/command", {"actor": "Bob", "commands": []})
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "race_extinct")
        assert call(engine, "PUT", "/api/v1/admin/turn").json()["finished"] is True
        body = {"actor": "Ada", "turn": 1, "commands": [{"order": "grow", "planet": planet}]}
        answer = call(engine, "PUT", "/api/v1/order", body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "game_finished")
        assert call(engine, "PUT", "/api/v1/admin/turn").status_code == 409
        assert "out of play" in call(engine, "GET", "/api/v1/report?player=Bob&turn=1").json()["text"]


def test_an_order_for_another_turn_says_which_turn_it_is(engine: EngineProcess) -> None:
    init(engine)
    call(engine, "PUT", "/api/v1/admin/turn")
    for turn in (0, 2):
        answer = call(engine, "PUT", "/api/v1/order", {"actor": "Ada", "turn": turn, "commands": []})
        assert answer.status_code == 400
        assert answer.json()["error"]["problems"] == [{"where": "turn", "what": "must be the turn that the game is in, 1"}]


def raw(engine: EngineProcess, request: bytes) -> bytes:
    """Send bytes, and return all that comes until the engine closes."""
    with socket.create_connection(("127.0.0.1", urlsplit(engine.url).port), timeout=10) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize(
    ("request_", "status_"),
    [
        (b"GET /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /healthz?x=1 HTTP/1.1\r\n\r\n", 400),
        (b"GET http://engine/healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET http://[/healthz HTTP/1.1\r\n\r\n", 404),
        (b"GET /healthz/ HTTP/1.1\r\n\r\n", 404),
        (b"GET \xff\xfe HTTP/1.1\r\n\r\n", 404),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", 405),
        (b"__class__ /healthz HTTP/1.1\r\n\r\n", 405),
        (b"GET /healthz HTTP/2.0\r\n\r\n", 400),
        (b"GET /healthz HTTP/one\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \r\n\r\n", 400),
        (b"GET /" + b"x" * 70000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 70000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"PUT /api/v1/admin/turn HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400),
        (b"PUT /api/v1/admin/turn HTTP/1.1\r\nContent-Length: 1_0\r\n\r\n", 400),
        (b"PUT /api/v1/admin/turn HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 400),
        (b"PUT /api/v1/admin/turn HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
        (b"POST /api/v1/admin/init HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\nx", 413),
        (b'POST /api/v1/admin/init HTTP/1.1\r\nContent-Length: 22\r\n\r\n{"gameId":1,"gameId":2}', 400),
        (b"POST /api/v1/admin/init HTTP/1.1\r\nContent-Length: 3\r\n\r\nNaN", 400),
        (b'POST /api/v1/admin/init HTTP/1.1\r\nContent-Length: 13\r\n\r\n{"\\ud800":[1]}', 400),
    ],
)
def test_what_is_no_good_request_is_refused(shared: EngineProcess, request_: bytes, status_: int) -> None:
    answer = raw(shared, request_)
    assert answer.startswith(b"HTTP/1.1 %d " % status_), answer[:200]
    assert call(shared, "GET", "/healthz").status_code == 200
    assert "Traceback" not in shared.log


def test_half_a_request_is_not_carried_out(engine: EngineProcess) -> None:
    init(engine)
    assert raw(engine, b"PUT /api/v1/admin/turn HTTP/1.1\r\nContent-Length: 10\r\n\r\n{") == b""
    assert status(engine)["turn"] == 0


def test_garbage_does_not_bring_it_down(engine: EngineProcess) -> None:
    init(engine)
    chance = random.Random(3)
    good = b'PUT /api/v1/order HTTP/1.1\r\nContent-Length: 56\r\n\r\n{"actor":"Ada","turn":0,"commands":[{"order":"grow"}]}  '
    for _ in range(300):
        request = bytearray(good)
        for _ in range(chance.randint(1, 6)):
            request[chance.randrange(len(request))] = chance.randrange(256)
        answer = raw(engine, bytes(request))
        assert not answer or b"HTTP/1.1 4" in answer[:10] or b"HTTP/1.1 200" in answer[:12], (request, answer)
    assert status(engine)["turn"] == 0
    assert "Traceback" not in engine.log


def test_a_kept_connection_serves_one_request_after_another(engine: EngineProcess) -> None:
    init(engine)
    one = b"GET /api/v1/order?player=Ada&turn=0 HTTP/1.1\r\n\r\n"
    answer = raw(engine, one + b"PUT /api/v1/nothing HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}" + one)
    assert re.findall(rb"HTTP/1\.1 (\d+)", answer) == [b"204", b"404", b"204"]


def test_a_name_of_any_script_can_be_asked_for(tmp_path: Path) -> None:
    name = "Зюг & Söhne + 100%"
    with EngineProcess(tmp_path) as engine:
        body = {"gameId": GAME, "races": [{"raceName": name}]}
        assert call(engine, "POST", "/api/v1/admin/init", body).status_code == 201
        answer = httpx.get(f"{engine.url}/api/v1/report", params={"player": name, "turn": 0}, trust_env=False)
        assert answer.json()["race"] == name


def test_a_refusal_is_an_exception_with_its_parts(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        Engine(tmp_path, seed=None, last_turn=1).init({"gameId": GAME, "races": [{"raceName": "x" * 65}], "more": 1})
    assert refused.value.status == 400
    assert refused.value.problems == [{"where": "more", "what": "is not a field of this call"}]
