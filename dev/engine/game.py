"""The rules: races on a ring of planets. Nothing here knows of HTTP, files or clocks.

Planets stand in a ring and reach those at most two steps away. Orders are kept until the turn and carried out
together; commands act at once. What chance decides follows from the game's seed, so a game can be played again.
docs/engine.md has the rules for players.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Command = dict[str, Any]
Problem = dict[str, str]

REACH = 2
PLANETS_PER_RACE = 4
HOME_SIZE = 200
HOME_POPULATION = 100
HOME_DEFENCE = 2
MOST_DEFENCE = 10
MOST_COMMANDS = 1000
LONGEST_NAME = 64

# The fields that each kind must have, then those that it may have.
ORDERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "grow": (("planet",), ()),
    "fortify": (("planet",), ()),
    "settle": (("planet", "target"), ("people",)),
    "attack": (("planet", "target"), ("people",)),
}
COMMANDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "vote": (("for",), ()),
    "rename": (("planet", "name"), ()),
}
_NUMBERS = ("planet", "target", "people")


@dataclass
class Planet:
    number: int
    name: str
    size: int
    owner: str | None = None
    population: int = 0
    defence: int = 0


@dataclass
class Race:
    id: str
    name: str
    votes_for: str
    extinct: bool = False


@dataclass
class Past:
    """What a turn leaves behind for good: the orders that led to it, and every race's report on it."""

    turn: int
    orders: dict[str, list[Command]]
    reports: dict[str, dict[str, Any]]


@dataclass
class _Happened:
    """What is told in the reports of one turn, by race."""

    events: dict[str, list[str]]
    orders: dict[str, list[Command]]

    def tell(self, races: Sequence[str | None], text: str) -> None:
        for race in dict.fromkeys(races):
            if race is not None:
                self.events[race].append(text)


def name_problem(name: object) -> str | None:
    """Return what is wrong with the name of a race or a planet."""
    if not isinstance(name, str):
        return "must be a string"
    if not 1 <= len(name) <= LONGEST_NAME:
        return f"must have 1 to {LONGEST_NAME} characters"
    if not name.isprintable() or name != name.strip():
        return "must be printable and not begin or end with a space"
    return None


@dataclass
class Game:
    """A game between two turns; `turn` of them were generated, `orders` are those for the next."""

    id: str
    seed: str
    last_turn: int
    turn: int
    stage: int
    finished: bool
    races: list[Race]
    planets: list[Planet]
    orders: dict[str, list[Command]] = field(default_factory=dict)

    # -- beginning, keeping

    @classmethod
    def new(cls, game_id: str, names: Sequence[str], seed: str, last_turn: int) -> tuple[Game, Past]:
        """Make a game and its reports of turn 0; the names are checked and differ."""
        races = [Race(str(uuid.uuid5(uuid.UUID(game_id), name)), name, name) for name in names]
        game = cls(game_id, seed, last_turn, 0, 0, False, races, [])
        for number in range(1, PLANETS_PER_RACE * len(names) + 1):
            game.planets.append(Planet(number, f"Planet {number}", game._draw(60, 160, "size", number)))
        homes = game.planets[::PLANETS_PER_RACE]
        for name, home in zip(sorted(names, key=lambda n: game._draw(0, 1 << 32, "home", n)), homes, strict=True):
            home.owner, home.size = name, HOME_SIZE
            home.population, home.defence = HOME_POPULATION, HOME_DEFENCE
        happened = game._nothing_yet()
        happened.tell(names, "The game begins.")
        return game, game._past({}, happened)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Game:
        return cls(
            **{
                **content,
                "races": [Race(**race) for race in content["races"]],
                "planets": [Planet(**planet) for planet in content["planets"]],
            }
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    # -- looking

    def state(self) -> dict[str, Any]:
        """Return the state as the contract has it."""
        return {"id": self.id, "turn": self.turn, "stage": self.stage, "finished": self.finished, "player": self._standings()}

    def race(self, name: str) -> Race | None:
        return next((race for race in self.races if race.name == name), None)

    def _standings(self) -> list[dict[str, Any]]:
        votes = dict.fromkeys((race.name for race in self.races), 0)
        for race in self.races:
            votes[race.votes_for] += len(self._owned(race.name))
        return [
            {
                "id": race.id,
                "raceName": race.name,
                "planets": len(self._owned(race.name)),
                "population": sum(planet.population for planet in self._owned(race.name)),
                "votes": votes[race.name],
                "extinct": race.extinct,
            }
            for race in self.races
        ]

    def _owned(self, race: str) -> list[Planet]:
        return [planet for planet in self.planets if planet.owner == race]

    def _planet(self, number: object) -> Planet | None:
        return self.planets[number - 1] if isinstance(number, int) and 1 <= number <= len(self.planets) else None

    def _reaches(self, one: Planet, other: Planet) -> bool:
        steps = abs(one.number - other.number)
        return min(steps, len(self.planets) - steps) <= REACH

    def _sees(self, race: str, planet: Planet) -> bool:
        return any(self._reaches(own, planet) for own in self._owned(race))

    def _draw(self, low: int, high: int, *what: object) -> int:
        """Return a number from `low` to `high` that seed, turn and `what` decide."""
        digest = hashlib.sha256(repr((self.seed, self.turn, *what)).encode()).digest()
        return low + int.from_bytes(digest[:8], "big") % (high - low + 1)

    # -- what players send

    def order_problems(self, race: str, orders: Sequence[object]) -> list[Problem]:
        """Return what is wrong with a list of orders, and where; nothing if it may be stored."""
        problems: list[Problem] = []
        first_of: dict[int, int] = {}
        for index, order in enumerate(orders):
            where = f"commands[{index}]"
            wrong = list(_shape_problems(where, order, "order", ORDERS))
            if not wrong:
                assert isinstance(order, dict)
                wrong = list(self._order_problems(where, race, order))
                first = first_of.setdefault(order["planet"], index)
                if first != index:
                    wrong.append(_problem(f"{where}.planet", f"has an order already: commands[{first}]"))
            problems += wrong
        return problems

    def _order_problems(self, where: str, race: str, order: Command) -> Iterator[Problem]:
        planet = self._planet(order["planet"])
        if planet is None or planet.owner != race:
            yield _problem(f"{where}.planet", "is not a planet of yours")
            return
        if "target" not in order:
            return
        target = self._planet(order["target"])
        if target is None or not self._reaches(planet, target) or target is planet:
            yield _problem(f"{where}.target", f"is not another planet at most {REACH} steps away")
        elif order["order"] == "settle" and target.owner is not None:
            yield _problem(f"{where}.target", "belongs to somebody")
        elif order["order"] == "attack" and target.owner in (None, race):
            yield _problem(f"{where}.target", "is not a planet of another race")
        if planet.population < 2:
            yield _problem(f"{where}.planet", "has nobody to send: one must stay")
        elif not 1 <= order.get("people", 1) < planet.population:
            yield _problem(f"{where}.people", f"must be from 1 to {planet.population - 1}: one must stay")

    def command(self, race: Race, commands: Sequence[object]) -> list[dict[str, Any]]:
        """Carry out what can be carried out, one after another, and return a result for each."""
        return [self._command(race, index, command) for index, command in enumerate(commands)]

    def _command(self, race: Race, index: int, command: object) -> dict[str, Any]:
        where = f"commands[{index}]"
        problems = list(_shape_problems(where, command, "command", COMMANDS))
        if not problems:
            assert isinstance(command, dict)
            problems = list(self._command_problems(where, race, command))
        if problems:
            return {"done": False, "problems": problems}
        assert isinstance(command, dict)
        if command["command"] == "vote":
            race.votes_for = command["for"]
            result = f"Your votes are for {race.votes_for}."
        else:
            planet = self._planet(command["planet"])
            assert planet is not None
            planet.name = command["name"]
            result = f"Planet {planet.number} is called {planet.name}."
        self.stage += 1
        return {"done": True, "result": result}

    def _command_problems(self, where: str, race: Race, command: Command) -> Iterator[Problem]:
        if command["command"] == "vote":
            other = self.race(command["for"])
            if other is None or other.extinct:
                yield _problem(f"{where}.for", "is not a race that plays")
        else:
            planet = self._planet(command["planet"])
            if planet is None or planet.owner != race.name:
                yield _problem(f"{where}.planet", "is not a planet of yours")
            wrong = name_problem(command["name"])
            if wrong is not None:
                yield _problem(f"{where}.name", wrong)

    def banish(self, race: Race) -> None:
        """Take a race out of play: its planets belong to nobody. Whether that ends the game, the next turn judges."""
        for planet in self._owned(race.name):
            planet.owner, planet.population, planet.defence = None, 0, 0
        self._extinguish(race)
        self.orders.pop(race.name, None)

    def _extinguish(self, race: Race) -> None:
        race.extinct = True
        for other in self.races:
            if other.votes_for == race.name:
                other.votes_for = other.name

    # -- a turn

    def next_turn(self) -> Past:
        """Carry out the orders, let populations grow, and judge whether that was the last turn."""
        orders, self.orders = self.orders, {}
        self.turn += 1
        self.stage = 0
        happened = self._nothing_yet()
        grown, settlers, attackers = self._carry_out(orders, happened)
        for number in sorted(attackers):
            self._fight(self.planets[number - 1], attackers[number], happened)
        for number in sorted(settlers):
            self._settle(self.planets[number - 1], settlers[number], happened)
        for planet in self.planets:
            if planet.owner is not None:
                # Whoever has taken a planet meanwhile has no part in what its former owner had it do.
                percent, least = (20, 2) if grown.get(planet.number) == planet.owner else (5, 1)
                more = max(least, planet.population * percent // 100)
                planet.population = max(planet.population, min(planet.size, planet.population + more))
        for race in self.races:
            if not race.extinct and not self._owned(race.name):
                self._extinguish(race)
                happened.tell([other.name for other in self.races], f"{race.name} has lost its last planet and is extinct.")
        living = [race.name for race in self.races if not race.extinct]
        if self.turn >= self.last_turn or len(living) < min(2, len(self.races)):
            self.finished = True
            happened.tell([race.name for race in self.races], f"The game is over. Left are: {', '.join(living) or 'nobody'}.")
        return self._past(orders, happened)

    def _carry_out(
        self, orders: Mapping[str, Sequence[Command]], happened: _Happened
    ) -> tuple[dict[int, str], dict[int, list[tuple[str, int, Planet]]], dict[int, list[tuple[str, int, Planet]]]]:
        """Fortify, and send people off; return who makes which planet grow, and who is on the way where."""
        grown: dict[int, str] = {}
        away: dict[str, dict[int, list[tuple[str, int, Planet]]]] = {"settle": {}, "attack": {}}
        for race in self.races:
            for order in orders.get(race.name, ()):
                planet = self.planets[order["planet"] - 1]
                if order["order"] == "grow":
                    grown[planet.number] = race.name
                    result = f"{planet.name} grows faster."
                elif order["order"] == "fortify":
                    planet.defence = min(MOST_DEFENCE, planet.defence + 1)
                    result = f"{planet.name} has defence {planet.defence}."
                else:
                    people = order.get("people", max(1, planet.population // 2))
                    planet.population -= people
                    away[order["order"]].setdefault(order["target"], []).append((race.name, people, planet))
                    result = f"{people} leave {planet.name} for {self.planets[order['target'] - 1].name}."
                happened.orders[race.name].append({**order, "result": result})
        return grown, away["settle"], away["attack"]

    def _fight(self, target: Planet, groups: list[tuple[str, int, Planet]], happened: _Happened) -> None:
        # Chance says in which order those who attack one planet arrive.
        for race, people, home in sorted(groups, key=lambda g: self._draw(0, 1 << 32, "arrival", target.number, g[2].number)):
            owner = target.owner
            told = [race, owner]
            if owner == race:
                target.population = max(target.population, min(target.size, target.population + people))
                happened.tell(told, f"{people} of {race} join those who have taken {target.name}.")
                continue
            attack = people * 10 * self._draw(90, 110, "attack", target.number, home.number)
            defence = target.population * (10 + target.defence) * self._draw(90, 110, "defence", target.number, home.number)
            if attack > defence:
                target.owner, target.defence = race, 0
                target.population = min(target.size, max(1, people * (attack - defence) // attack))
                whose = f"from {owner}" if owner is not None else "which nobody holds any more"
                happened.tell(told, f"{people} of {race} take {target.name} {whose}; {target.population} live.")
            else:
                target.population = max(1, target.population * (defence - attack) // defence)
                happened.tell(told, f"{people} of {race} die attacking {target.name}; {owner} keeps it with {target.population}.")

    def _settle(self, target: Planet, groups: list[tuple[str, int, Planet]], happened: _Happened) -> None:
        arrived: dict[str, int] = {}
        for race, people, _ in groups:
            arrived[race] = arrived.get(race, 0) + people
        winner = max(arrived, key=lambda race: (arrived[race], self._draw(0, 1 << 32, "settle", target.number, race)))
        target.owner, target.population = winner, min(target.size, arrived[winner])
        happened.tell(list(arrived), f"{winner} settles {target.name} with {target.population}.")
        for race, people, home in groups:
            if race != winner and home.owner == race:
                home.population = max(home.population, min(home.size, home.population + people))
                happened.tell([race], f"{people} come back to {home.name}: {target.name} was taken by more.")

    # -- reports

    def _nothing_yet(self) -> _Happened:
        return _Happened({race.name: [] for race in self.races}, {race.name: [] for race in self.races})

    def _past(self, orders: dict[str, list[Command]], happened: _Happened) -> Past:
        return Past(self.turn, orders, {race.name: self._report(race, happened) for race in self.races})

    def _report(self, race: Race, happened: _Happened) -> dict[str, Any]:
        report = {
            "turn": self.turn,
            "race": race.name,
            "extinct": race.extinct,
            "finished": self.finished,
            "planets": [asdict(planet) for planet in self._owned(race.name)],
            "seen": [asdict(p) for p in self.planets if p.owner != race.name and self._sees(race.name, p)],
            "races": self._standings(),
            "orders": happened.orders[race.name],
            "events": happened.events[race.name],
        }
        return {**report, "text": _text(report)}


def _problem(where: str, what: str) -> Problem:
    return {"where": where, "what": what}


def _shape_problems(
    where: str, given: object, key: str, kinds: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
) -> Iterator[Problem]:
    if not isinstance(given, dict):
        yield _problem(where, "must be an object")
        return
    kind = given.get(key)
    if not isinstance(kind, str) or kind not in kinds:
        yield _problem(f"{where}.{key}", f"must be one of {', '.join(kinds)}")
        return
    required, optional = kinds[kind]
    for name in required:
        if name not in given:
            yield _problem(f"{where}.{name}", "is missing")
    for name, value in given.items():
        if name == key:
            continue
        if name not in required and name not in optional:
            # The name is the sender's: shown in JSON, and not longer than names of ours.
            yield _problem(f"{where}.{name[:LONGEST_NAME]}", f"does not belong to {kind}")
        elif name in _NUMBERS:
            if type(value) is not int or not 0 <= value < 1 << 31:
                yield _problem(f"{where}.{name}", "must be a whole number")
        elif not isinstance(value, str):
            yield _problem(f"{where}.{name}", "must be a string")


def _text(report: Mapping[str, Any]) -> str:
    lines = [f"{report['race']}, turn {report['turn']}{': the game is over' if report['finished'] else ''}"]
    if report["extinct"]:
        lines.append("Your race is out of play.")
    for planet in report["planets"]:
        people = f"population {planet['population']} of {planet['size']}"
        lines.append(f"  {planet['number']}. {planet['name']}: {people}, defence {planet['defence']}")
    if report["seen"]:
        lines.append("In reach:")
        for planet in report["seen"]:
            if planet["owner"] is None:
                whose = f"nobody's, room for {planet['size']}"
            else:
                whose = f"{planet['owner']}'s, population {planet['population']}, defence {planet['defence']}"
            lines.append(f"  {planet['number']}. {planet['name']}: {whose}")
    lines.append("Races:")
    for race in report["races"]:
        what = f"{race['planets']} planet{'s' * (race['planets'] != 1)}, population {race['population']}, votes {race['votes']}"
        lines.append(f"  {race['raceName']}: {'out of play' if race['extinct'] else what}")
    for title, texts in (("Orders:", [order["result"] for order in report["orders"]]), ("Events:", report["events"])):
        if texts:
            lines += [title, *(f"  {text}" for text in texts)]
    return "\n".join(lines) + "\n"
