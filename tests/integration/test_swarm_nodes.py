"""Games of a Swarm over several nodes, that drain, die and come back; with GALAXY_SWARM_NODES=1 only.

The nodes are daemons of one machine, which must have little else to do: a Swarm that is starved takes nodes for dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.games import call
from tests.postgres import Database
from tests.runtimes import Platform, swarm_platform
from tests.services import ADMIN, until
from tests.swarm import Swarm

pytestmark = [
    pytest.mark.xdist_group("swarm"),
    pytest.mark.skipif("GALAXY_SWARM_NODES" not in os.environ, reason="GALAXY_SWARM_NODES is not set"),
]


@pytest.fixture
def shared(swarm_of_three: Swarm, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "9999")
    yield from swarm_platform(swarm_of_three, database, tmp_path, is_shared=True)


@pytest.fixture
def pinned(swarm_of_three: Swarm, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    monkeypatch.setenv("GALAXY_ENGINE_LAST_TURN", "9999")
    yield from swarm_platform(swarm_of_three, database, tmp_path, is_shared=False)


def _turn(platform: Platform, game_id: str, turn: int) -> None:
    call(platform.db, "api.runtime_force_next_turn", ADMIN, game_id)
    platform.recover(1)
    platform.is_well(game_id, current_turn=turn)


def _node(swarm_of_three: Swarm, platform: Platform, game_id: str) -> int:
    return swarm_of_three.node_of(platform.runtime(game_id)["container_id"])


def _running_on(swarm_of_three: Swarm, platform: Platform, wanted: int) -> str:
    """Start a game on a node."""
    others = [number for number in range(3) if number != wanted]
    for number in others:
        swarm_of_three.drain(number)
    try:
        game_id = platform.running()
    finally:
        for number in others:
            swarm_of_three.drain(number, is_drained=False)
    assert _node(swarm_of_three, platform, game_id) == wanted
    return game_id


def test_a_game_whose_node_is_drained_goes_on_elsewhere_with_its_state(swarm_of_three: Swarm, shared: Platform) -> None:
    moved, other = _running_on(swarm_of_three, shared, 2), _running_on(swarm_of_three, shared, 1)
    _turn(shared, moved, 1)
    before = shared.engine(moved)
    swarm_of_three.drain(2)
    try:
        until(lambda: {found.id for found in swarm_of_three.containers(moved)} - {shared.runtime(moved)["container_id"]}, 60, 0.1)
        shared.recover(2)
        shared.is_well(moved, current_turn=1, generation=1)
        assert _node(swarm_of_three, shared, moved) != 2
        assert shared.engine(moved) == before
        _turn(shared, moved, 2)
        shared.is_well(other, current_turn=0)
        assert _node(swarm_of_three, shared, other) == 1
    finally:
        swarm_of_three.drain(2, is_drained=False)


def test_a_turn_that_falls_into_a_drain_is_computed_once(swarm_of_three: Swarm, shared: Platform) -> None:
    game_id = shared.running()
    node = _node(swarm_of_three, shared, game_id)
    swarm_of_three.drain(node)
    try:
        call(shared.db, "api.runtime_force_next_turn", ADMIN, game_id)
        shared.recover(2)
        shared.is_well(game_id, current_turn=1)
        assert _node(swarm_of_three, shared, game_id) != node
    finally:
        swarm_of_three.drain(node, is_drained=False)


def test_a_game_that_is_pinned_waits_for_its_node(swarm_of_three: Swarm, pinned: Platform) -> None:
    game_id = pinned.running()
    assert _node(swarm_of_three, pinned, game_id) == 0
    _turn(pinned, game_id, 1)
    swarm_of_three.drain(0)
    try:
        until(lambda: not swarm_of_three.containers(game_id), 60, 0.1)
        observed = pinned.use(lambda tasks, driver, client: driver.inspect(game_id))
        assert observed is not None
        assert not observed.is_running
    finally:
        swarm_of_three.drain(0, is_drained=False)
    pinned.recover(2)
    pinned.is_well(game_id, current_turn=1)
    # Its service made anew, it is where its state is.
    pinned.use(lambda tasks, driver, client: driver.remove(game_id))
    pinned.recover(2)
    assert _node(swarm_of_three, pinned, game_id) == 0
    assert pinned.engine(game_id).turn == 1


# The last: the node does not come back.
def test_a_game_whose_node_dies_goes_on_elsewhere_with_its_state(swarm_of_three: Swarm, shared: Platform) -> None:
    game_id = _running_on(swarm_of_three, shared, 2)
    _turn(shared, game_id, 1)
    before = shared.engine(game_id)
    swarm_of_three.lose(2)
    until(lambda: swarm_of_three.containers(game_id), 90, 0.1)
    shared.recover(2)
    shared.is_well(game_id, current_turn=1, generation=1)
    assert shared.engine(game_id) == before
    _turn(shared, game_id, 2)
