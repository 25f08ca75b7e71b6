"""The development engine's rules."""

from __future__ import annotations

import copy
import json
import random
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from dev.engine.game import COMMANDS, HOME_POPULATION, MOST_DEFENCE, ORDERS, Game, Past, Planet

ROOT = Path(__file__).resolve().parents[2]
GAME = str(uuid.UUID(int=7))


def new(*names: str, seed: str = "seed", last_turn: int = 12) -> Game:
    return Game.new(GAME, names or ("Ada", "Bob"), seed, last_turn)[0]


def home(game: Game, race: str) -> Planet:
    return next(planet for planet in game.planets if planet.owner == race)


def give(game: Game, race: str, *orders: dict[str, Any]) -> None:
    assert game.order_problems(race, orders) == []
    game.orders[race] = list(orders)


def standing(game: Game, race: str) -> dict[str, Any]:
    found: dict[str, Any] = next(player for player in game.state()["player"] if player["raceName"] == race)
    return found


def report(past: Past, race: str) -> dict[str, Any]:
    return past.reports[race]


def test_a_new_game_treats_all_alike() -> None:
    game, past = Game.new(GAME, ["Ada", "Bob", "Eve"], "seed", 12)
    assert game.state()["turn"] == game.state()["stage"] == 0
    assert game.state()["finished"] is False
    for player in game.state()["player"]:
        assert (player["planets"], player["population"], player["votes"]) == (1, HOME_POPULATION, 1)
        assert player["extinct"] is False
    assert [player["raceName"] for player in game.state()["player"]] == ["Ada", "Bob", "Eve"]
    assert len({player["id"] for player in game.state()["player"]}) == 3
    assert past.turn == 0
    assert past.reports.keys() == {"Ada", "Bob", "Eve"}
    # Each sees two planets on either side, as the ring closes.
    assert {len(r["seen"]) for r in past.reports.values()} == {4}


def test_the_seed_decides_all_that_chance_does() -> None:
    def play(seed: str) -> str:
        game, past = Game.new(GAME, ["Ada", "Bob", "Eve"], seed, 12)
        told = [past.reports]
        for _ in range(6):
            for race in ("Ada", "Bob", "Eve"):
                game.orders[race] = something_to_do(game, race, random.Random(1))
            told.append(game.next_turn().reports)
        return json.dumps(told)

    assert play("one") == play("one")
    assert play("one") != play("two")


def something_to_do(game: Game, race: str, chance: random.Random) -> list[dict[str, Any]]:
    """Return orders that may be given, one for each planet that can have one."""
    orders = []
    for planet in game.planets:
        if planet.owner != race:
            continue
        possible: list[dict[str, Any]] = [{"order": kind, "planet": planet.number} for kind in ("grow", "fortify")]
        for target in game.planets:
            for kind in ("settle", "attack"):
                possible.append({"order": kind, "planet": planet.number, "target": target.number})
                possible.append({**possible[-1], "people": max(1, planet.population - 1)})
        chance.shuffle(possible)
        orders.append(next(order for order in possible if not game.order_problems(race, [order])))
    return orders


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_ordered_nothing_becomes_impossible(seed: int) -> None:
    chance = random.Random(seed)
    names = [f"Race {number}" for number in range(chance.randint(1, 5))]
    game = new(*names, seed=str(seed), last_turn=chance.randint(1, 25))
    while not game.finished:
        if chance.random() < 0.05:
            game.banish(chance.choice(game.races))
        for race in game.races:
            if not race.extinct:
                game.orders[race.name] = something_to_do(game, race.name, chance)
        if chance.random() < 0.1:
            game.banish(chance.choice(game.races))
        again = Game.from_json(json.loads(json.dumps(game.to_json())))
        assert again == game
        turn = game.turn
        past = game.next_turn()
        assert again.next_turn() == past
        assert past.turn == game.turn == turn + 1
        for planet in game.planets:
            assert 0 <= planet.population <= planet.size
            assert 0 <= planet.defence <= MOST_DEFENCE
            assert (planet.owner is None) == (planet.population == 0)
        state = game.state()
        assert sum(player["votes"] for player in state["player"]) == sum(player["planets"] for player in state["player"])
        assert [p["extinct"] for p in state["player"]] == [p["planets"] == 0 for p in state["player"]]
        living = sum(not player["extinct"] for player in state["player"])
        assert game.finished == (game.turn == game.last_turn or living < min(2, len(names)))
        assert past.reports.keys() == set(names)
        for name in names:
            assert str(past.turn) in report(past, name)["text"]


def test_planets_grow_and_grow_faster_when_told() -> None:
    game = new()
    give(game, "Ada", {"order": "grow", "planet": home(game, "Ada").number})
    past = game.next_turn()
    assert (home(game, "Ada").population, home(game, "Bob").population) == (120, 105)
    assert report(past, "Ada")["orders"] == [
        {"order": "grow", "planet": home(game, "Ada").number, "result": f"{home(game, 'Ada').name} grows faster."}
    ]
    assert report(past, "Bob")["orders"] == []
    home(game, "Ada").population = home(game, "Ada").size
    game.next_turn()
    assert home(game, "Ada").population == home(game, "Ada").size


def test_fortifying_has_an_end() -> None:
    game = new(last_turn=99)
    for _ in range(MOST_DEFENCE + 2):
        give(game, "Ada", {"order": "fortify", "planet": home(game, "Ada").number})
        game.next_turn()
    assert home(game, "Ada").defence == MOST_DEFENCE


def test_settling_takes_a_planet_that_is_nobodys() -> None:
    game = new()
    start = home(game, "Ada")
    target = game.planets[start.number]
    target.size = 60
    give(game, "Ada", {"order": "settle", "planet": start.number, "target": target.number, "people": 40})
    past = game.next_turn()
    assert (target.owner, target.population, start.population) == ("Ada", 42, 63)
    assert standing(game, "Ada")["planets"] == 2
    assert target.number in [planet["number"] for planet in report(past, "Ada")["planets"]]


def test_of_two_who_settle_one_planet_more_people_win_and_the_others_come_back() -> None:
    game = new()
    first, second = game.planets[0], game.planets[4]
    between = game.planets[2]
    assert {first.owner, second.owner} == {"Ada", "Bob"}
    assert first.owner is not None
    assert second.owner is not None
    give(game, first.owner, {"order": "settle", "planet": 1, "target": 3, "people": 20})
    give(game, second.owner, {"order": "settle", "planet": 5, "target": 3, "people": 30})
    past = game.next_turn()
    assert between.owner == second.owner
    assert (first.population, second.population) == (105, 73)
    assert "come back" in "".join(report(past, first.owner)["events"])


def test_an_attack_is_won_by_the_stronger() -> None:
    game = new()
    for planet in game.planets:
        planet.size = 1000
    attacker, target = home(game, "Ada"), game.planets[home(game, "Ada").number]
    home(game, "Bob").population = 50
    target.owner, target.population = "Bob", 100
    attacker.population = 1000
    give(game, "Ada", {"order": "attack", "planet": attacker.number, "target": target.number, "people": 30})
    past = game.next_turn()
    assert target.owner == "Bob"
    assert 60 <= target.population <= 90
    assert "die attacking" in report(past, "Bob")["text"]
    give(game, "Ada", {"order": "attack", "planet": attacker.number, "target": target.number, "people": 500})
    past = game.next_turn()
    assert target.owner == "Ada"
    assert target.defence == 0
    assert f"from {'Bob'}" in "".join(report(past, "Bob")["events"])
    assert standing(game, "Bob")["extinct"] is False


def test_defence_makes_a_planet_stronger() -> None:
    outcomes = []
    for defence in (0, MOST_DEFENCE):
        game = new()
        attacker, target = home(game, "Ada"), game.planets[home(game, "Ada").number]
        target.owner, target.population, target.defence = "Bob", 60, defence
        give(game, "Ada", {"order": "attack", "planet": attacker.number, "target": target.number, "people": 90})
        game.next_turn()
        outcomes.append(target.owner)
    assert outcomes == ["Ada", "Bob"]


def test_who_loses_the_last_planet_is_extinct_and_the_last_race_has_won() -> None:
    game = new()
    attacker, last = home(game, "Ada"), home(game, "Bob")
    last.owner, last.population = None, 0
    target = game.planets[attacker.number]
    target.owner, target.population, target.defence = "Bob", 1, 0
    assert game.command(game.races[0], [{"command": "vote", "for": "Bob"}])[0]["done"] is True
    give(game, "Ada", {"order": "attack", "planet": attacker.number, "target": target.number})
    past = game.next_turn()
    assert standing(game, "Bob")["extinct"] is True
    assert standing(game, "Ada")["votes"] == 2, "votes for who is gone are one's own again"
    assert game.finished
    assert "the game is over" in report(past, "Bob")["text"]
    assert "out of play" in report(past, "Bob")["text"]


def test_banishing_frees_the_planets_and_the_next_turn_judges() -> None:
    game = new("Ada", "Bob", "Eve")
    give(game, "Bob", {"order": "grow", "planet": home(game, "Bob").number})
    game.banish(game.races[1])
    assert standing(game, "Bob")["extinct"] is True
    assert standing(game, "Bob")["planets"] == 0
    assert game.orders == {}
    game.next_turn()
    assert not game.finished
    game.banish(game.races[2])
    assert not game.finished
    game.next_turn()
    assert game.finished


def test_an_attack_on_a_planet_whose_race_was_banished_just_takes_it() -> None:
    game = new("Ada", "Bob", "Eve")
    target = game.planets[home(game, "Ada").number]
    target.owner, target.population = "Bob", 50
    give(game, "Ada", {"order": "attack", "planet": home(game, "Ada").number, "target": target.number})
    game.banish(game.races[1])
    past = game.next_turn()
    assert target.owner == "Ada"
    assert "which nobody holds any more" in report(past, "Ada")["text"]


def test_the_last_turn_ends_the_game() -> None:
    game = new(last_turn=2)
    game.next_turn()
    assert not game.finished
    game.next_turn()
    assert game.finished


def test_one_race_alone_plays_to_the_last_turn() -> None:
    game = new("Ada", last_turn=3)
    game.next_turn()
    assert not game.finished
    game.banish(game.races[0])
    game.next_turn()
    assert game.finished


def test_commands_act_at_once_and_one_by_one() -> None:
    game = new()
    number = home(game, "Ada").number
    results = game.command(
        game.races[0],
        [
            {"command": "vote", "for": "Bob"},
            {"command": "rename", "planet": number, "name": "New Home"},
            {"command": "rename", "planet": home(game, "Bob").number, "name": "Mine"},
            {"command": "rename", "planet": number, "name": "\x00"},
            {"command": "vote", "for": "Nobody"},
            {"command": "surrender"},
            "vote",
        ],
    )
    assert [result["done"] for result in results] == [True, True, False, False, False, False, False]
    assert [result["problems"][0]["where"] for result in results[2:]] == [
        "commands[2].planet",
        "commands[3].name",
        "commands[4].for",
        "commands[5].command",
        "commands[6]",
    ]
    assert home(game, "Ada").name == "New Home"
    assert (standing(game, "Ada")["votes"], standing(game, "Bob")["votes"]) == (0, 2)
    assert game.stage == 2
    game.next_turn()
    assert game.stage == 0


GROW = {"order": "grow", "planet": 1}


@pytest.mark.parametrize(
    ("order", "where", "what"),
    [
        ("grow", "commands[1]", "object"),
        ({}, "commands[1].order", "one of grow, fortify, settle, attack"),
        ({"order": ["grow"]}, "commands[1].order", "one of"),
        ({"order": "grow"}, "commands[1].planet", "missing"),
        ({"order": "grow", "planet": "1"}, "commands[1].planet", "whole number"),
        ({"order": "grow", "planet": True}, "commands[1].planet", "whole number"),
        ({"order": "grow", "planet": 1.0}, "commands[1].planet", "whole number"),
        ({"order": "grow", "planet": -1}, "commands[1].planet", "whole number"),
        ({"order": "grow", "planet": 1 << 40}, "commands[1].planet", "whole number"),
        ({"order": "grow", "planet": 0}, "commands[1].planet", "not a planet of yours"),
        ({"order": "grow", "planet": 2}, "commands[1].planet", "not a planet of yours"),
        ({"order": "grow", "planet": 1}, "commands[1].planet", "has an order already: commands[0]"),
        ({"order": "grow", "planet": 3, "target": 2}, "commands[1].target", "does not belong"),
        ({"order": "settle", "planet": 3}, "commands[1].target", "missing"),
        ({"order": "settle", "planet": 3, "target": 3}, "commands[1].target", "not another planet"),
        ({"order": "settle", "planet": 3, "target": 6}, "commands[1].target", "not another planet"),
        ({"order": "settle", "planet": 3, "target": 5}, "commands[1].target", "belongs to somebody"),
        ({"order": "attack", "planet": 3, "target": 2}, "commands[1].target", "not a planet of another"),
        ({"order": "attack", "planet": 3, "target": 1}, "commands[1].target", "not a planet of another"),
        ({"order": "settle", "planet": 3, "target": 2, "people": 0}, "commands[1].people", "from 1 to 9"),
        ({"order": "settle", "planet": 3, "target": 2, "people": 10}, "commands[1].people", "from 1 to 9"),
        ({"order": "settle", "planet": 8, "target": 7}, "commands[1].planet", "nobody to send"),
        ({"order": "settle", "planet": 3, "target": 2, "people": None}, "commands[1].people", "whole number"),
    ],
)
def test_a_wrong_order_is_told_with_its_place(order: object, where: str, what: str) -> None:
    game = new()
    me, other = str(game.planets[0].owner), str(game.planets[4].owner)
    for number, owner, population in ((3, me, 10), (8, me, 1), (5, other, 10)):
        game.planets[number - 1].owner, game.planets[number - 1].population = owner, population
    before = copy.deepcopy(game)
    problems = game.order_problems(me, [GROW, order])
    assert [problem["where"] for problem in problems] == [where]
    assert what in problems[0]["what"]
    assert game == before


def test_every_order_and_command_is_in_the_document() -> None:
    text = (ROOT / "docs" / "engine.md").read_text()
    game_part = text[text.index("### The game") : text.index("### By hand")]
    shown = [json.loads(example) for example in re.findall(r"`(\{.*?\})`", game_part)]
    for key, kinds in (("order", ORDERS), ("command", COMMANDS)):
        fields = {example[key]: set(example) - {key} for example in shown if key in example}
        assert fields == {kind: {*required, *optional} for kind, (required, optional) in kinds.items()}
