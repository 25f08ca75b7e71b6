"""The plan as the programs read it, and logins."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.schema import PLAN, Refused, check_deployed, check_login, login_problem, missing_changes, planned_changes
from tests.postgres import Database


def test_ids_are_those_that_sqitch_records(shared_database: Database) -> None:
    with shared_database.cluster.connect(shared_database.name) as connection:
        rows = connection.execute("SELECT change, change_id FROM sqitch.changes ORDER BY committed_at, planned_at").fetchall()
    assert [(c.name, c.change_id) for c in planned_changes()] == rows


def test_nothing_is_missing_when_all_is_there_or_more() -> None:
    ids = [c.change_id for c in planned_changes()]
    check_deployed(ids)
    check_deployed([*ids, "f" * 40])


def test_what_is_missing_is_named() -> None:
    changes = planned_changes()
    assert missing_changes(c.change_id for c in changes[:-2]) == [c.name for c in changes[-2:]]
    with pytest.raises(Refused, match=rf"1 changes? (is|are) not deployed, the first is {changes[3].name}; run: sqitch deploy"):
        check_deployed(c.change_id for n, c in enumerate(changes) if n != 3)
    with pytest.raises(Refused, match="sqitch deploy"):
        check_deployed([])


def plan(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "sqitch.plan"
    path.write_text("\n".join(["%syntax-version=1.0.0", "%project=galaxy-backend", "", *lines]) + "\n")
    return path


def test_tags_blank_lines_and_comments_are_no_changes(tmp_path: Path) -> None:
    one = "a/one 2026-01-01T00:00:00Z Ann <ann@example.org> # One."
    two = "a/two [a/one] 2026-01-02T00:00:00Z Ann <ann@example.org> # Two."
    tagged = plan(tmp_path, one, "@v1 2026-01-01T00:00:01Z Ann <ann@example.org> # First.", "", "# a comment", two)
    assert [c.name for c in planned_changes(tagged)] == ["a/one", "a/two"]


def test_an_id_hangs_on_everything_in_the_line_and_before(tmp_path: Path) -> None:
    one = "a/one 2026-01-01T00:00:00Z Ann <ann@example.org> # One."
    two = "a/two [a/one !a/zero] 2026-01-02T00:00:00Z Ann <ann@example.org> # Two."
    ids = [c.change_id for c in planned_changes(plan(tmp_path, one, two))]
    for change in (("One.", "1."), ("Ann", "Bob"), ("00:00Z", "01Z")):
        if change[0] not in one:
            continue
        other = [c.change_id for c in planned_changes(plan(tmp_path, one.replace(*change), two))]
        assert other[0] != ids[0]
        assert other[1] != ids[1], "the one before is in it"
    assert planned_changes(plan(tmp_path, one, two.replace(" !a/zero", "")))[1].change_id != ids[1]


def test_a_reworked_change_is_told_from_the_first(tmp_path: Path) -> None:
    one = "a/one 2026-01-01T00:00:00Z Ann <ann@example.org> # One."
    again = "a/one [a/one@v1] 2026-01-03T00:00:00Z Ann <ann@example.org> # One, better."
    found = planned_changes(plan(tmp_path, one, "@v1 2026-01-02T00:00:00Z Ann <ann@example.org>", again))
    assert [c.name for c in found] == ["a/one", "a/one"]
    assert found[0].change_id != found[1].change_id
    assert missing_changes([]) == [c.name for c in planned_changes()]


def test_a_line_that_is_no_change_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nonsense"):
        planned_changes(plan(tmp_path, "this is nonsense"))


def test_the_plan_is_the_projects() -> None:
    assert PLAN.name == "sqitch.plan"
    assert len(planned_changes()) == len({c.change_id for c in planned_changes()}) > 20


@pytest.mark.parametrize(
    ("is_superuser", "member_of", "says"),
    [
        (False, ["backend_api"], None),
        (True, ["backend_api"], "superuser"),
        (True, [], "superuser"),
        (False, ["backend_api", "backend_worker"], "backend_worker"),
        (False, ["backend_api", "pg_read_all_data"], "pg_read_all_data"),
        (False, ["backend_worker"], "backend_worker"),
        (False, [], "not a member of backend_api"),
    ],
)
def test_a_login_is_of_its_door_and_nothing_else(is_superuser: bool, member_of: list[str], says: str | None) -> None:
    problem = login_problem(is_superuser, member_of, "backend_api", "somebody")
    if says is None:
        assert problem is None
    else:
        assert problem is not None
        assert says in problem
        assert "somebody" in problem


@pytest.mark.parametrize("door", ["api", "worker", "push"])
def test_our_logins_are_of_their_doors(door: str, shared_database: Database) -> None:
    with shared_database.cluster.connect(shared_database.name, f"galaxy_{door}") as connection:
        check_login(connection, f"backend_{door}", False)
        with pytest.raises(Refused):
            check_login(connection, "backend_other", False)


def test_a_superuser_is_known_behind_another_role(shared_database: Database) -> None:
    with shared_database.cluster.connect(shared_database.name, options="-c role=galaxy_api") as connection:
        with pytest.raises(Refused, match="superuser"):
            check_login(connection, "backend_api", False)
        check_login(connection, "backend_api", True)
