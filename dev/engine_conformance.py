"""Check that an engine keeps the contract of docs/engine.md:

    python -m dev.engine_conformance URL [--order JSON] [--command JSON] [--turns N]

URL is that of a fresh engine, one that was not initialised: a game of three races is made in it and played. What an
order or a command is made of is the engine's own affair; given one that the first race may give in the first turn,
more is checked. Each check is printed; the exit status is 1 if one failed, 2 if there was nothing to check.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlencode, urlsplit

CALL_TIMEOUT = 60.0
PROBE_TIMEOUT = 5.0
LARGEST_ANSWER = 1 << 20
RACES = ("Zorg", "Люди", "O'Hara's 2nd-best race of a lot.")

Outcome = Literal["ok", "FAIL", "skip"]

_STATE = "/api/v1/admin/status"
_INIT = "/api/v1/admin/init"
_TURN = "/api/v1/admin/turn"
_BANISH = "/api/v1/admin/race/banish"
_COMMAND = "/api/v1/command"
_ORDER = "/api/v1/order"
_REPORT = "/api/v1/report"


@dataclass(frozen=True)
class Check:
    """One line of the contract; `detail` says what came instead, or why it was not checked."""

    outcome: Outcome
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.outcome:4} {self.name}" + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True)
class Answer:
    """What came; status 0 is no answer at all, and `text` then says why."""

    status: int
    text: str
    kind: str = ""
    seconds: float = 0.0

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def __str__(self) -> str:
        shown = self.text if len(self.text) <= 300 else f"{self.text[:300]}…"
        return f"{self.status or 'no answer'} {shown}".rstrip()


class NothingToCheck(Exception):
    """There is no fresh engine at the URL; the message says what there is."""


class Conformance:
    """One run over one fresh engine. `tell` gets each check as it is done."""

    def __init__(
        self,
        url: str,
        *,
        order: Mapping[str, Any] | None = None,
        command: Mapping[str, Any] | None = None,
        turns: int = 40,
        tell: Callable[[Check], None] = lambda check: None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
            raise NothingToCheck(f"{url} is not http://host:port")
        self._address = (parts.hostname, parts.port or 80)
        self._order = order
        self._command = command
        self._turns = turns
        self._tell = tell
        self._game_id = str(uuid.uuid4())
        self._state: dict[str, Any] = {}
        self.checks: list[Check] = []

    def run(self) -> bool:
        """Do all checks; return whether none failed. Raises NothingToCheck."""
        answer = self._call("GET", _STATE)
        if answer.status == 0:
            raise NothingToCheck(f"no engine answers: {answer.text}")
        if answer.status == 200 and isinstance(answer.json, dict) and "player" in answer.json:
            raise NothingToCheck("the engine has a game already; checks need a fresh one")
        self._before()
        self._bad_inits()
        if self._init():
            self._status()
            self._reports()
            self._orders()
            self._commands()
            self._requests()
            self._next_turn()
            self._banishing()
            self._to_the_end()
        return not self.failed

    @property
    def failed(self) -> list[Check]:
        return [check for check in self.checks if check.outcome == "FAIL"]

    # -- the parts, in the order of a game's life

    def _before(self) -> None:
        self._expect("healthz answers 200", self._call("GET", "/healthz", timeout=PROBE_TIMEOUT), 200)
        for name, answer in (
            ("status", self._call("GET", _STATE)),
            ("turn", self._call("PUT", _TURN)),
            ("banish", self._call("POST", _BANISH, {"raceName": RACES[0]})),
            ("a command", self._call("PUT", _COMMAND, {"actor": RACES[0], "commands": []})),
            ("an order", self._call("PUT", _ORDER, {"actor": RACES[0], "turn": 0, "commands": []})),
            ("reading orders", self._get(_ORDER, RACES[0], 0)),
            ("reading a report", self._get(_REPORT, RACES[0], 0)),
        ):
            self._expect(f"before init, {name} is 501", answer, 501)

    def _bad_inits(self) -> None:
        races = [{"raceName": name} for name in RACES]
        bad: dict[str, object] = {
            "a zero UUID": {"gameId": str(uuid.UUID(int=0)), "races": races},
            "what is no UUID": {"gameId": "game-1", "races": races},
            "a number for the id": {"gameId": 1, "races": races},
            "no id": {"races": races},
            "no races": {"gameId": self._game_id},
            "an empty list of races": {"gameId": self._game_id, "races": []},
            "races that are no list": {"gameId": self._game_id, "races": {"raceName": "Zorg"}},
            "races that are strings": {"gameId": self._game_id, "races": list(RACES)},
            "a race without a name": {"gameId": self._game_id, "races": [*races, {}]},
            "a race's empty name": {"gameId": self._game_id, "races": [*races, {"raceName": ""}]},
            "a race's name that is a number": {"gameId": self._game_id, "races": [*races, {"raceName": 7}]},
            "a race's name of 10,000 characters": {"gameId": self._game_id, "races": [*races, {"raceName": "z" * 10_000}]},
            "two races of one name": {"gameId": self._game_id, "races": [*races, races[0]]},
            "a list for a body": [],
            "a body that is not JSON": b"{",
            "an empty body": b"",
        }
        for what, body in bad.items():
            self._expect(f"init with {what} is 400", self._call("POST", _INIT, body), 400)
        self._expect("what was refused has made no game: status is still 501", self._call("GET", _STATE), 501)

    def _init(self) -> bool:
        body = {"gameId": self._game_id, "races": [{"raceName": name} for name in RACES]}
        answer = self._call("POST", _INIT, body)
        made = self._expect("init answers 201", answer, 201) and self._is_state("init's answer is a state", answer)
        if not made:
            self._add(False, "the rest needs a game", "there is none")
            return False
        self._state = answer.json
        names = [player["raceName"] for player in self._state["player"]]
        self._add(sorted(names) == sorted(RACES), "the state has exactly the races that were given", str(names))
        self._add(self._state["finished"] is False, "a new game is not finished", "it is")
        self._add(not any(p["extinct"] for p in self._state["player"]), "no race of a new game is extinct", "one is")
        self._expect("a second init is 409", self._call("POST", _INIT, body), 409)
        other = {**body, "gameId": str(uuid.uuid4())}
        self._expect("a second init with another game's id is 409", self._call("POST", _INIT, other), 409)
        return True

    def _status(self) -> None:
        answer = self._call("GET", _STATE, timeout=PROBE_TIMEOUT)
        self._expect("status answers 200", answer, 200)
        self._add(answer.json == self._state, "status is the state that init answered", str(answer))
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self._call("GET", _STATE, timeout=PROBE_TIMEOUT), range(32)))
        same = sum(answer.json == self._state for answer in answers)
        self._add(same == len(answers), "32 reads of the status, 8 at a time, all answer it", f"{same} did")
        self._expect("healthz answers 200 with a game", self._call("GET", "/healthz", timeout=PROBE_TIMEOUT), 200)

    def _reports(self) -> None:
        turn = self._state["turn"]
        for name in RACES:
            self._has_report(f"there is a report of the new game for {name}", name, turn)
        self._refused("a report for no race of the game", self._get(_REPORT, "Nobody", turn))
        self._refused("a report on a turn to come", self._get(_REPORT, RACES[0], turn + 1000))
        self._bad_queries("a report", _REPORT)

    def _bad_queries(self, what: str, path: str) -> None:
        for how, query in {
            "without a player": {"turn": "0"},
            "without a turn": {"player": RACES[0]},
            "with a turn that is no number": {"player": RACES[0], "turn": "x"},
            "with a negative turn": {"player": RACES[0], "turn": "-1"},
            "with a huge turn": {"player": RACES[0], "turn": "9" * 30},
        }.items():
            self._refused(f"{what} {how}", self._call("GET", f"{path}?{urlencode(query)}"), also=(204,))
        self._refused(f"{what} whose query is not UTF-8", self._call("GET", f"{path}?player=%ff%fe&turn=0"))

    def _orders(self) -> None:
        turn = self._state["turn"]
        self._empty("without orders, reading them is 204", self._get(_ORDER, RACES[0], turn), 204)
        self._bad_queries("reading orders", _ORDER)
        body = {"actor": RACES[0], "turn": turn, "commands": []}
        answer = self._call("PUT", _ORDER, body)
        self._expect("an empty list of orders is accepted", answer, 200, 202)
        self._add(isinstance(answer.json, dict), "it is answered with the orders that are stored", str(answer))
        self._empty("after an empty list, reading orders is 204", self._get(_ORDER, RACES[0], turn), 204)
        for what, bad in self._bad_lists(body).items():
            self._wrong(f"orders with {what}", self._call("PUT", _ORDER, bad))
        for what, bad in {
            "no turn": {"actor": RACES[0], "commands": []},
            "a turn that is a string": {**body, "turn": str(turn)},
            "a turn that is null": {**body, "turn": None},
            "a negative turn": {**body, "turn": -1},
            "an order that nobody can know": {**body, "commands": [{"no such thing": "…"}]},
        }.items():
            self._wrong(f"orders with {what}", self._call("PUT", _ORDER, bad))
        self._refused("orders of no race of the game", self._call("PUT", _ORDER, {**body, "actor": "Nobody"}))
        self._empty("after what was refused, reading orders is still 204", self._get(_ORDER, RACES[0], turn), 204)
        if self._order is None:
            self._skip("orders are stored, read, replaced and cleared", "give one with --order")
            return
        orders = {**body, "commands": [self._order]}
        self._expect("the order that was given is accepted", self._call("PUT", _ORDER, orders), 200, 202)
        self._stored("it is read as it was given", turn, [self._order])
        for name in RACES[1:]:
            self._empty(f"{name} has none of it", self._get(_ORDER, name, turn), 204)
        strange = {**body, "commands": [self._order, {"no such thing": "…"}]}
        self._wrong("a list with one good and one bad order", self._call("PUT", _ORDER, strange))
        self._stored("a list that was refused leaves what was stored", turn, [self._order])
        self._expect("the same order again replaces it", self._call("PUT", _ORDER, orders), 200, 202)
        self._stored("it is there once", turn, [self._order])
        self._expect("an empty list is accepted", self._call("PUT", _ORDER, body), 200, 202)
        self._empty("an empty list has cleared them", self._get(_ORDER, RACES[0], turn), 204)
        self._expect("it is accepted once more", self._call("PUT", _ORDER, orders), 200, 202)

    def _commands(self) -> None:
        body = {"actor": RACES[0], "commands": []}
        self._expect("no commands are answered with 202", self._call("PUT", _COMMAND, body), 202)
        for what, bad in self._bad_lists(body).items():
            self._wrong(f"commands with {what}", self._call("PUT", _COMMAND, bad))
        self._refused("commands of no race of the game", self._call("PUT", _COMMAND, {**body, "actor": "Nobody"}))
        if self._command is None:
            self._skip("commands act at once and have a result each", "give one with --command")
            return
        answer = self._call("PUT", _COMMAND, {**body, "commands": [self._command, self._command]})
        self._expect("the command that was given is answered with 202", answer, 202)
        found = answer.json.values() if isinstance(answer.json, dict) else [answer.json]
        results = any(isinstance(value, list) and len(value) == 2 for value in found)
        self._add(results, "two commands have two results", str(answer))

    def _bad_lists(self, body: Mapping[str, Any]) -> dict[str, object]:
        return {
            "no actor": {name: value for name, value in body.items() if name != "actor"},
            "an actor that is a number": {**body, "actor": 7},
            "no list of commands": {name: value for name, value in body.items() if name != "commands"},
            "commands that are no list": {**body, "commands": {}},
            "commands that are null": {**body, "commands": None},
            "a command that is a string": {**body, "commands": ["grow"]},
            "a command that is a list": {**body, "commands": [[]]},
            "a list for a body": [],
            "a body that is not JSON": b"{]",
            "a body that is not UTF-8": b'{"actor": "\xff\xfe"}',
            "a body nested too deep": b"[" * 100_000,
        }

    def _requests(self) -> None:
        self._refused("a path that the contract does not have", self._call("GET", "/api/v1/admin/no-such-call"))
        self._refused("a method that a path does not have", self._call("DELETE", _STATE))
        self._refused("a method that nobody has", self._call("BREW", _STATE))
        self._refused("a body of 2 MiB", self._call("PUT", _COMMAND, b" " * (2 << 20)))
        for what, bad in {
            "no name": {},
            "a name that is a number": {"raceName": 7},
            "a list for a body": [],
            "a body that is not JSON": b"{",
        }.items():
            self._wrong(f"banishing with {what}", self._call("POST", _BANISH, bad))
        self._expect("banishing no race of the game is 404", self._call("POST", _BANISH, {"raceName": "Nobody"}), 404)
        answer = self._call("GET", _STATE)
        unchanged = answer.json is not None and _without_stage(answer.json) == _without_stage(self._state)
        self._add(unchanged or self._command is not None, "after all of this the state is what it was", str(answer))

    def _next_turn(self) -> None:
        before = self._state["turn"]
        self._generate("turn answers 200")
        turn = self._state["turn"]
        self._add(turn == before + 1, "the turn is one more", f"{before}, then {turn}")
        self._add({p["raceName"] for p in self._state["player"]} == set(RACES), "the races are the same", str(self._state))
        for name in RACES:
            self._has_report(f"there is a report on the new turn for {name}", name, turn)
        self._has_report("the report of the turn before is still there", RACES[0], before)
        self._empty("the new turn has no orders yet", self._get(_ORDER, RACES[0], turn), 204)
        if self._order is not None:
            self._stored("the orders of the turn before can still be read", before, [self._order])

    def _banishing(self) -> None:
        gone = RACES[-1]
        self._empty("banishing answers 204", self._call("POST", _BANISH, {"raceName": gone}), 204)
        answer = self._call("GET", _STATE)
        if self._is_state("after it, status answers a state", answer):
            out = all(player["extinct"] for player in answer.json["player"] if player["raceName"] == gone)
            self._add(out, "the banished race is extinct, or not listed", str(answer))
        again = self._call("POST", _BANISH, {"raceName": gone})
        self._refused("banishing it again", again, also=(204,))
        body = {"actor": gone, "turn": self._state["turn"], "commands": [self._order or {"order": "grow", "planet": 1}]}
        self._refused("an order of a banished race", self._call("PUT", _ORDER, body))
        self._generate("the turn after it answers 200")
        left = {player["raceName"] for player in self._state["player"] if not player["extinct"]}
        self._add(gone not in left, "it does not come back", str(left))

    def _to_the_end(self) -> None:
        for _ in range(self._turns):
            if self._state["finished"]:
                break
            if not self._generate("another turn answers 200"):
                return
        if not self._state["finished"]:
            self._skip("a turn of a finished game is 409", f"it is not finished after {self._state['turn']} turns")
            return
        last = self._state
        self._expect("a turn of a finished game is 409", self._call("PUT", _TURN), 409)
        answer = self._call("GET", _STATE)
        self._add(answer.json == last, "the state of a finished game stays", str(answer))
        self._has_report("the last report is there", RACES[0], last["turn"])
        self._has_report("so is the first", RACES[0], 0)

    # -- kinds of checks

    def _add(self, good: bool, name: str, otherwise: str) -> bool:
        self._note(Check("ok", name) if good else Check("FAIL", name, otherwise))
        return good

    def _skip(self, name: str, why: str) -> None:
        self._note(Check("skip", name, why))

    def _note(self, check: Check) -> None:
        self.checks.append(check)
        self._tell(check)

    def _expect(self, name: str, answer: Answer, *statuses: int) -> bool:
        return self._add(answer.status in statuses, name, str(answer))

    def _empty(self, name: str, answer: Answer, status: int) -> None:
        self._add(answer.status == status and not answer.text, f"{name}, without a body", str(answer))

    def _refused(self, what: str, answer: Answer, also: Sequence[int] = ()) -> None:
        allowed = " or ".join([*map(str, also), "a 4xx"])
        self._add(400 <= answer.status < 500 or answer.status in also, f"{what} is {allowed}", str(answer))

    def _wrong(self, what: str, answer: Answer) -> None:
        self._add(answer.status == 400 and bool(answer.text), f"{what}: 400 and what is wrong", str(answer))

    def _has_report(self, name: str, race: str, turn: int) -> None:
        answer = self._get(_REPORT, race, turn)
        good = answer.status == 200 and answer.json is not None and len(answer.text.encode()) <= LARGEST_ANSWER
        self._add(good, name, str(answer))

    def _stored(self, name: str, turn: int, commands: list[Any]) -> None:
        answer = self._get(_ORDER, RACES[0], turn)
        stored = answer.json.get("commands") if isinstance(answer.json, dict) else None
        self._add(answer.status == 200 and stored == commands, name, str(answer))

    def _generate(self, name: str) -> bool:
        before = self._state.get("turn", 0)
        answer = self._call("PUT", _TURN)
        if not (self._expect(name, answer, 200) and self._is_state("its answer is a state", answer)):
            return False
        self._state = answer.json
        status = self._call("GET", _STATE)
        self._add(status.json == self._state, "status is what turn answered", str(status))
        return bool(self._state["turn"] == before + 1)

    def _is_state(self, name: str, answer: Answer) -> bool:
        wrong = state_problems(answer.json, self._game_id)
        if not answer.kind.startswith("application/json"):
            wrong.append(f"Content-Type is {answer.kind or 'not there'}")
        return self._add(not wrong, name, f"{', '.join(wrong)}: {answer}")

    # -- HTTP

    def _get(self, path: str, player: str, turn: int) -> Answer:
        return self._call("GET", f"{path}?{urlencode({'player': player, 'turn': turn}, quote_via=quote)}", timeout=PROBE_TIMEOUT)

    def _call(self, method: str, path: str, body: object = None, *, timeout: float = CALL_TIMEOUT) -> Answer:
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        connection = http.client.HTTPConnection(*self._address, timeout=timeout)
        begin = time.monotonic()
        try:
            # It need not read all of what is too large, but must answer.
            with suppress(BrokenPipeError, ConnectionResetError):
                connection.request(method, path, data, headers)
            response = connection.getresponse()
            text = response.read(LARGEST_ANSWER + 1).decode()
            seconds = time.monotonic() - begin
            if seconds > timeout:
                return Answer(0, f"an answer after {seconds:.1f} s, of {timeout} s")
            return Answer(response.status, text, response.headers.get("Content-Type", ""), seconds)
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Answer(0, f"{type(error).__name__}: {error}")
        finally:
            connection.close()


def _without_stage(state: Any) -> Any:
    return {name: value for name, value in state.items() if name != "stage"} if isinstance(state, dict) else state


def state_problems(state: Any, game_id: str) -> list[str]:
    """Return in which ways something is not a state of the game."""
    if not isinstance(state, dict):
        return ["it is no object"]
    wrong = []

    def whole(value: object) -> bool:
        return type(value) is int and 0 <= value < 1 << 31

    def number(value: object) -> bool:
        return type(value) in (int, float) and 0 <= value < math.inf  # type: ignore[operator]

    if state.get("id") != game_id:
        wrong.append("id is not the game's")
    if not whole(state.get("turn")):
        wrong.append("turn is no whole number from 0")
    if not (whole(state.get("stage")) or isinstance(state.get("stage"), str)):
        wrong.append("stage is neither a whole number nor a string")
    if type(state.get("finished")) is not bool:
        wrong.append("finished is neither true nor false")
    players = state.get("player")
    if not isinstance(players, list) or not all(isinstance(player, dict) for player in players):
        return [*wrong, "player is no list of objects"]
    for index, player in enumerate(players):
        where = f"player[{index}]"
        if not isinstance(player.get("id"), str) or not player["id"]:
            wrong.append(f"{where}.id is no string")
        if not isinstance(player.get("raceName"), str) or not player["raceName"]:
            wrong.append(f"{where}.raceName is no string")
        if not whole(player.get("planets")):
            wrong.append(f"{where}.planets is no whole number from 0")
        wrong += [f"{where}.{name} is no number from 0" for name in ("population", "votes") if not number(player.get(name))]
        if type(player.get("extinct")) is not bool:
            wrong.append(f"{where}.extinct is neither true nor false")
    for name in ("id", "raceName"):
        values = [str(player.get(name)) for player in players]
        if len(set(values)) < len(values):
            wrong.append(f"two players have one {name}")
    return wrong


def _object(text: str) -> dict[str, Any]:
    made = json.loads(text)
    if not isinstance(made, dict):
        raise ValueError
    return made


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m dev.engine_conformance", description="Check an engine.")
    parser.add_argument("url", help="of a fresh engine, such as http://127.0.0.1:8080")
    parser.add_argument("--order", type=_object, help="an order that the first race may give in the first turn, as JSON")
    parser.add_argument("--command", type=_object, help="a command that the first race may give in the first turn, as JSON")
    parser.add_argument("--turns", type=int, default=40, help="how many turns to wait for the game's end (40)")
    options = parser.parse_args(arguments)
    try:
        conformance = Conformance(
            options.url,
            order=options.order,
            command=options.command,
            turns=options.turns,
            tell=lambda check: print(check, flush=True),
        )
        conformance.run()
    except NothingToCheck as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(conformance.checks)} checks, {len(conformance.failed)} failed")
    return 1 if conformance.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
