"""The rules of the database: every file under pgtap/, and that none of them leaves out what it should look at."""

import re
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import error_codes
from dev.cluster import Cluster
from dev.pgtap import prove
from tests.postgres import Database

ROOT = Path(__file__).resolve().parents[2]
PGTAP = ROOT / "pgtap"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in PGTAP.rglob("*.sql"))
DEPLOY = {
    path.relative_to(error_codes.DEPLOY).with_suffix("").as_posix(): path.read_text()
    for path in sorted(error_codes.DEPLOY.rglob("*.sql"))
}
# The queue's tables are made by two changes, since an enum's new value cannot be used by the transaction that adds it.
TESTED_WITH = {"backend/queue_base": "backend/queue"}


@pytest.fixture(scope="module")
def tap_database(cluster: Cluster, template_database: str) -> Iterator[Database]:
    """One database for all files: each of them rolls back what it does."""
    database = Database(cluster, f"test_{secrets.token_hex(8)}")
    cluster.create_database(database.name, template_database)
    yield database
    database.drop()


@pytest.mark.parametrize("file", FILES)
def test_file(file: str, tap_database: Database) -> None:
    code, output = prove(tap_database.cluster, tap_database.name, [file])
    if code != 0:
        pytest.fail(output, pytrace=False)


def text_of(change: str) -> str:
    return (PGTAP / f"{TESTED_WITH.get(change, change)}.sql").read_text()


@pytest.mark.parametrize("change", DEPLOY)
def test_every_change_has_its_file(change: str) -> None:
    file = PGTAP / f"{TESTED_WITH.get(change, change)}.sql"
    assert file.is_file(), f"write {file.relative_to(ROOT)}"
    assert f"galaxy-backend:{change}" in file.read_text().split("\n\n", 1)[0], "the first line names the change"


@pytest.mark.parametrize("file", FILES)
def test_a_file_plans_its_tests_and_rolls_back(file: str) -> None:
    code = error_codes.without_comments((ROOT / file).read_text())
    assert re.match(r"\s*BEGIN;", code)
    assert len(re.findall(r"\bSELECT plan\(", code)) == 1, "one plan, so that a run over nothing does not pass"
    assert re.search(r"SELECT \* FROM finish\(\);\s*ROLLBACK;\s*\Z", code)
    assert not re.search(r"\bno_plan\b|\bCOMMIT\b|\bpg_sleep\((?!0\.0)", code)


@pytest.mark.parametrize("change", DEPLOY)
def test_every_constraint_is_tried(change: str) -> None:
    """Those with a name of their own; foreign keys and primary keys are stated by fk_ok and col_is_pk."""
    code = error_codes.without_comments(DEPLOY[change])
    named = re.findall(r"\bCONSTRAINT (\w+)\s+(?:CHECK|UNIQUE|REFERENCES|EXCLUDE)\b", code)
    named += re.findall(r"\bCREATE UNIQUE INDEX (\w+)", code)
    assert [name for name in named if f"'{name}'" not in text_of(change)] == []


@pytest.mark.parametrize("change", DEPLOY)
def test_every_invariant_is_broken_once(change: str) -> None:
    found = [
        name
        for view in re.findall(
            r"CREATE VIEW backend\.invariants_\w+ AS\s(.*?);", error_codes.without_comments(DEPLOY[change]), re.DOTALL
        )
        for name in re.findall(r"(?:\A|UNION ALL\s+)SELECT '(\w+)'", view)
    ]
    assert [name for name in found if f"'{name}'" not in text_of(change)] == []
    if "CREATE VIEW backend.invariants_" in DEPLOY[change]:
        assert found


@pytest.mark.parametrize("change", [change for change in DEPLOY if not change.startswith("backend/")])
def test_every_refusal_is_provoked(change: str) -> None:
    """Each code that a function of a door refuses with, by itself or through a helper, is in its door's test."""
    codes = error_codes.all_codes(error_codes.read_functions())
    functions = error_codes.functions_of(change, DEPLOY[change])
    expected = {code for function in functions for code in codes[function.full_name]}
    text = text_of(change)
    missing = [
        code
        for code in sorted(expected)
        if not re.search(
            rf"'{code.status} {code.code}'" if code.is_returned else rf"'GX{code.status}'.{{0,80}}'{code.code}'",
            text,
            re.DOTALL,
        )
    ]
    assert missing == []


@pytest.mark.parametrize("change", DEPLOY)
def test_every_function_and_table_is_named(change: str) -> None:
    made = re.findall(
        r"\bCREATE (?:OR REPLACE )?(?:FUNCTION|TABLE|VIEW|DOMAIN|TYPE) \w+\.(\w+)", error_codes.without_comments(DEPLOY[change])
    )
    text = text_of(change)
    assert [name for name in made if not re.search(rf"\b{name}\b", text)] == []
