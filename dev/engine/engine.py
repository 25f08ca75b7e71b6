"""The contract's calls over one game in a state directory, without HTTP.

A call that changes something changes a copy, writes it down, and only then takes the copy for the game: an answer
that was given is on the disk, and one that could not be written changed nothing.
"""

from __future__ import annotations

import copy
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from dev.engine import store
from dev.engine.game import LONGEST_NAME, MOST_COMMANDS, Game, Past, Problem, Race, name_problem

MOST_RACES = 64
STATE = "state.json"

T = TypeVar("T")


class Refused(Exception):
    """A call that is not carried out: the answer's status, a code, a sentence, and what is wrong where."""

    def __init__(self, status: int, code: str, message: str, problems: list[Problem] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.problems = problems


class Engine:
    """One game, or none yet. Every method may be called from many threads and raises Refused.

    Raises ValueError for files in the state directory that are not ours.
    """

    def __init__(self, directory: Path, *, seed: str | None, last_turn: int) -> None:
        self._directory = directory
        self._seed = seed
        self._last_turn = last_turn
        self._changing = threading.Lock()
        content = store.read_json(directory / STATE)
        try:
            self._game = None if content is None else Game.from_json(content)
        except (TypeError, KeyError) as error:
            raise ValueError(f"{directory / STATE}: {error!r}") from None

    @property
    def about(self) -> str:
        """What is being played, for the log."""
        return "no game yet" if self._game is None else f"game {self._game.id}, turn {self._game.turn}"

    def init(self, body: object) -> dict[str, Any]:
        fields = _fields(body, "gameId", "races")
        problems: list[Problem] = []
        game_id = _game_id(fields["gameId"])
        if game_id is None:
            problems.append({"where": "gameId", "what": "must be a UUID, and not the zero one"})
        names, wrong = _race_names(fields["races"])
        problems += wrong
        if problems or game_id is None:
            raise Refused(400, "invalid_init", "The game cannot be made.", problems)
        with self._changing:
            if self._game is not None:
                raise Refused(409, "already_initialised", "There is a game already.")
            game, past = Game.new(game_id, names, self._seed or game_id, self._last_turn)
            self._keep(game, past)
            return game.state()

    def status(self) -> dict[str, Any]:
        return self._current().state()

    def turn(self) -> dict[str, Any]:
        with self._changing:
            game = copy.deepcopy(self._current())
            _refuse_finished(game)
            self._keep(game, game.next_turn())
            return game.state()

    def banish(self, body: object) -> None:
        def change(game: Game) -> None:
            race = _race(game, name)
            if not race.extinct:
                game.banish(race)

        self._current()
        name = _text(_fields(body, "raceName"), "raceName")
        self._change(change)

    def command(self, body: object) -> dict[str, Any]:
        def change(game: Game) -> list[dict[str, Any]]:
            return game.command(_player(game, actor), commands)

        self._current()
        fields = _fields(body, "actor", "commands")
        actor, commands = _text(fields, "actor"), _commands(fields)
        return {"results": self._change(change)}

    def put_order(self, body: object) -> dict[str, Any]:
        def change(game: Game) -> None:
            race = _player(game, actor)
            if turn != game.turn:
                problem = {"where": "turn", "what": f"must be the turn that the game is in, {game.turn}"}
                raise Refused(400, "wrong_turn", "Orders are taken for the current turn only.", [problem])
            problems = game.order_problems(race.name, commands)
            if problems:
                raise Refused(400, "invalid_order", "Nothing was stored.", problems)
            game.orders.pop(race.name, None)
            if commands:
                game.orders[race.name] = commands

        self._current()
        fields = _fields(body, "actor", "turn", "commands")
        actor, commands, turn = _text(fields, "actor"), _commands(fields), fields["turn"]
        if type(turn) is not int or turn < 0:
            raise _malformed("turn", "must be a whole number")
        self._change(change)
        return {"player": actor, "turn": turn, "commands": commands}

    def get_order(self, player: str, turn: int) -> dict[str, Any] | None:
        """Return the orders that were stored for a turn, None without any."""
        game = self._current()
        _race(game, player)
        orders = game.orders if turn == game.turn else {}
        if turn < game.turn:
            orders = self._past(turn + 1).orders
        return {"player": player, "turn": turn, "commands": orders[player]} if player in orders else None

    def report(self, player: str, turn: int) -> dict[str, Any]:
        game = self._current()
        _race(game, player)
        if turn > game.turn:
            raise Refused(404, "no_report", f"The game is in turn {game.turn}.")
        return self._past(turn).reports[player]

    # -- keeping

    def _current(self) -> Game:
        if self._game is None:
            raise Refused(501, "not_initialised", "There is no game yet.")
        return self._game

    def _change(self, change: Callable[[Game], T]) -> T:
        with self._changing:
            game = copy.deepcopy(self._current())
            result = change(game)
            if game != self._game:
                self._keep(game)
            return result

    def _keep(self, game: Game, past: Past | None = None) -> None:
        if past is not None:
            # First: a file about a turn that is not yet the game's is not looked at, and is written anew with that turn.
            store.write_json(self._past_file(past.turn), asdict(past))
        store.write_json(self._directory / STATE, game.to_json())
        self._game = game

    def _past(self, turn: int) -> Past:
        return Past(**store.read_json(self._past_file(turn)))

    def _past_file(self, turn: int) -> Path:
        return self._directory / f"turn-{turn:04}.json"


def _malformed(where: str, what: str) -> Refused:
    return Refused(400, "malformed", "The request is malformed.", [{"where": where, "what": what}])


def _fields(body: object, *names: str) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise _malformed("", "the body must be a JSON object")
    problems = [{"where": name, "what": "is missing"} for name in names if name not in body]
    problems += [{"where": name[:LONGEST_NAME], "what": "is not a field of this call"} for name in body if name not in names]
    if problems:
        raise Refused(400, "malformed", "The request is malformed.", problems)
    return body


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise _malformed(name, "must be a string")
    return value


def _commands(fields: dict[str, Any]) -> list[Any]:
    commands = fields["commands"]
    if not isinstance(commands, list) or len(commands) > MOST_COMMANDS:
        raise _malformed("commands", f"must be a list of at most {MOST_COMMANDS}")
    problems = [
        {"where": f"commands[{i}]", "what": "must be an object"} for i, c in enumerate(commands) if not isinstance(c, dict)
    ]
    if problems:
        raise Refused(400, "malformed", "The request is malformed.", problems)
    return commands


def _game_id(value: object) -> str | None:
    if not isinstance(value, str) or len(value) != 36:
        return None
    try:
        made = uuid.UUID(value)
    except ValueError:
        return None
    return str(made) if made.int and str(made) == value.lower() else None


def _race_names(races: object) -> tuple[list[str], list[Problem]]:
    if not isinstance(races, list) or not 1 <= len(races) <= MOST_RACES:
        return [], [{"where": "races", "what": f"must be a list of 1 to {MOST_RACES}"}]
    names: list[str] = []
    problems: list[Problem] = []
    for index, race in enumerate(races):
        where = f"races[{index}]"
        if not isinstance(race, dict) or set(race) != {"raceName"}:
            problems.append({"where": where, "what": "must be an object with raceName"})
            continue
        wrong = name_problem(race["raceName"])
        if wrong is None and race["raceName"] in names:
            wrong = f"is the same as that of races[{names.index(race['raceName'])}]"
        if wrong is not None:
            problems.append({"where": f"{where}.raceName", "what": wrong})
        names.append(race["raceName"])
    return names, problems


def _race(game: Game, name: str) -> Race:
    race = game.race(name)
    if race is None:
        raise Refused(404, "unknown_race", "There is no such race in this game.")
    return race


def _player(game: Game, name: str) -> Race:
    """Return a race that may act."""
    race = _race(game, name)
    _refuse_finished(game)
    if race.extinct:
        raise Refused(409, "race_extinct", "The race is out of play.")
    return race


def _refuse_finished(game: Game) -> None:
    if game.finished:
        raise Refused(409, "game_finished", "The game is over.")
