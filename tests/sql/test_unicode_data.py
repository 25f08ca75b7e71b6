"""The facts of Unicode: the files are what they say, the tables hold the files, and a report of others leaves nothing behind."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dev.cluster import DEPLOY_LOGIN, find_binaries
from dev.unicode_data import FILES, TARGET, VERSION, digest
from tests.postgres import ROOT, Database

REPORT = "db/data/unicode/report.sql"
COLUMNS = {
    VERSION: "data_version, unicode_version, icu_version",
    "case_foldings.tsv": "codepoint, folding",
    "confusables.tsv": "codepoint, skeleton",
    "default_ignorables.tsv": "first_codepoint, last_codepoint",
    "name_characters.tsv": "first_codepoint, last_codepoint, kind, scripts",
}


def test_the_version_names_the_files() -> None:
    data_version, unicode, icu = (TARGET / VERSION).read_text().rstrip("\n").split("\t")
    assert data_version == f"unicode-{unicode} icu-{icu} {digest(TARGET)}"


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_in_order(name: str) -> None:
    text = (TARGET / name).read_text(encoding="utf-8")
    # Not splitlines(), which also parts at characters that are among the facts.
    keys = [int(line.split("\t", 1)[0]) for line in text.removesuffix("\n").split("\n")]
    assert keys == sorted(set(keys))
    assert len(keys) > 10


@pytest.mark.parametrize("name", COLUMNS)
def test_a_table_holds_its_file(name: str, database: Database) -> None:
    table = name.removesuffix(".tsv")
    copied = b""
    with (
        database.connect().cursor() as cursor,
        cursor.copy(f"COPY (SELECT {COLUMNS[name]} FROM {table} ORDER BY 1) TO STDOUT (ENCODING 'UTF8')") as copy,
    ):
        for block in copy:
            copied += bytes(block)
    assert copied == (TARGET / name).read_bytes()


def report(database: Database, directory: Path) -> str:
    """Run the report as is documented; return what it prints."""
    answer = subprocess.run(
        [
            find_binaries() / "psql",
            "--no-psqlrc",
            "--tuples-only",
            "--no-align",
            "-v",
            f"unicode_directory={directory}",
            "-f",
            REPORT,
        ],
        cwd=ROOT,
        env={
            "PATH": os.defpath,
            "LC_ALL": "C.UTF-8",
            "PGHOST": str(database.cluster.socket_directory),
            "PGPORT": str(database.cluster.port),
            "PGUSER": DEPLOY_LOGIN,
            "PGDATABASE": database.name,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def hold(connection: psycopg.Connection[Any], *names: str) -> list[str]:
    """Give each name to somebody, for good; return their ids."""
    people = []
    for number, name in enumerate(names):
        row = connection.execute(
            "SELECT (account_create('telegram', %s, NULL, 'en', 'UTC', NULL)).user_id::text", [str(number)]
        ).fetchone()
        assert row is not None
        people.append(str(row[0]))
        with connection.transaction():
            connection.execute("INSERT INTO race_names (race_name, user_id) VALUES (%s, %s)", [name, people[-1]])
            connection.execute(
                "UPDATE race_names SET tier = 'pending_registration', expires_at = now() WHERE race_name = %s", [name]
            )
            connection.execute(
                "UPDATE race_names SET tier = 'registered', expires_at = NULL, registered_at = now() WHERE race_name = %s", [name]
            )
    return people


def test_a_report_of_other_data(make_database: Callable[[], Database], tmp_path: Path) -> None:
    """Names that would become one, no name, or reserved are listed; and all is as it was."""
    database = make_database()
    connection = database.connect()
    ann, bob, cid, dan = hold(connection, "Quorn", "Wuorn", "qq", "Adwin")
    before = connection.execute("SELECT race_name, canonical, data_version FROM race_names ORDER BY 1").fetchall()
    other = tmp_path / "other"
    shutil.copytree(TARGET, other)
    tmp_path.chmod(0o755)
    with (other / "confusables.tsv").open("a", encoding="utf-8") as file:
        file.write(f"{ord('q')}\tw\n")
    (other / VERSION).write_text("other\t99.0.0\t99\n")
    assert f"collision|Quorn|{ann}|Wuorn|{bob}" in report(database, other).splitlines()
    assert "other" in report(database, other).splitlines()

    shutil.copy(TARGET / "confusables.tsv", other)
    with (other / "confusables.tsv").open("a", encoding="utf-8") as file:
        file.write(f"{ord('q')}\t.\n{ord('w')}\tm\n")
    listed = report(database, other).splitlines()
    assert f"empty|qq|{cid}||" in listed
    assert f"name_reserved|Adwin|{dan}||" in listed

    assert "collision" not in report(database, TARGET)
    assert connection.execute("SELECT race_name, canonical, data_version FROM race_names ORDER BY 1").fetchall() == before
    row = connection.execute("SELECT count(*) FROM confusables WHERE codepoint IN (ascii('q'), ascii('w'))").fetchone()
    assert row == (0,)


def test_a_file_that_is_no_data_is_refused(database: Database, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(TARGET, other)
    (other / "case_foldings.tsv").write_text("x\ty\n")
    with pytest.raises(AssertionError, match="case_foldings"):
        report(database, other)
