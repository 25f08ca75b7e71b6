"""Games of a Swarm over several nodes, that drain, die and come back; the nodes are daemons of one machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.games import call
from tests.postgres import Database
from tests.runtimes import Platform, swarm_platform
from tests.services import ADMIN, until
from tests.swarm import Swarm
from workers.runtime.daemon import listens

pytestmark = pytest.mark.xdist_group("swarm")


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


def _running_on(swarm: Swarm, platform: Platform, wanted: int) -> str:
    """Start a game on a node."""
    with swarm.unavailable("pause", *{0, 1, 2} - {wanted}):
        game_id = platform.running()
    assert _node(swarm, platform, game_id) == wanted
    return game_id


def _moved(platform: Platform, game_id: str, former: str) -> None:
    """Wait until Swarm itself runs another container of a game, and its engine listens: passes do not wait for that here."""

    def has_moved() -> bool:
        observed = platform.use(lambda tasks, driver, client: driver.inspect(game_id))
        return bool(observed and observed.container_id != former and observed.endpoint and listens(observed.endpoint))

    until(has_moved, 90, 0.1)


def test_a_game_whose_node_is_drained_goes_on_elsewhere_with_its_state(swarm_of_three: Swarm, shared: Platform) -> None:
    moved, other = _running_on(swarm_of_three, shared, 2), _running_on(swarm_of_three, shared, 1)
    _turn(shared, moved, 1)
    before = shared.engine(moved)
    with swarm_of_three.unavailable("drain", 2):
        _moved(shared, moved, shared.runtime(moved)["container_id"])
        shared.recover(2)
        shared.is_well(moved, current_turn=1, generation=1)
        assert _node(swarm_of_three, shared, moved) != 2
        assert shared.engine(moved) == before
        _turn(shared, moved, 2)
        shared.is_well(other, current_turn=0)
        assert _node(swarm_of_three, shared, other) == 1


def test_a_turn_that_falls_into_a_drain_is_computed_once(swarm_of_three: Swarm, shared: Platform) -> None:
    game_id = _running_on(swarm_of_three, shared, 1)
    former = shared.runtime(game_id)["container_id"]
    with swarm_of_three.unavailable("drain", 1):
        call(shared.db, "api.runtime_force_next_turn", ADMIN, game_id)
        shared.recover(1)
        _moved(shared, game_id, former)
        shared.recover(2)
        shared.is_well(game_id, current_turn=1)
        assert _node(swarm_of_three, shared, game_id) != 1


def test_a_game_that_is_pinned_waits_for_its_node(swarm_of_three: Swarm, pinned: Platform) -> None:
    game_id = pinned.running()
    assert _node(swarm_of_three, pinned, game_id) == 0
    _turn(pinned, game_id, 1)
    former = pinned.runtime(game_id)["container_id"]
    with swarm_of_three.unavailable("drain", 0):
        until(lambda: not swarm_of_three.containers(game_id), 60, 0.1)
        observed = pinned.use(lambda tasks, driver, client: driver.inspect(game_id))
        assert observed is not None
        assert not observed.is_running
    _moved(pinned, game_id, former)
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
    _moved(shared, game_id, shared.runtime(game_id)["container_id"])
    shared.recover(2)
    shared.is_well(game_id, current_turn=1, generation=1)
    assert shared.engine(game_id) == before
    _turn(shared, game_id, 2)
