"""proto/notification.fbs has a table for every kind that is pushed, with the catalogue's fields, and no other."""

import re
from pathlib import Path

from tests.postgres import Database
from workers.push.payloads import TABLES, table_name

SCHEMA = Path(__file__).resolve().parents[2] / "proto" / "notification.fbs"
TYPES = {
    "uuid": "string (required)",
    "text": "string (required)",
    "time": "string (required)",
    "integer": "int32",
    "uuid?": "string",
}


def schema_tables() -> dict[str, dict[str, str]]:
    """The schema's tables by name: the types of their fields, in order."""
    tables: dict[str, dict[str, str]] = {}
    for line in SCHEMA.read_text().splitlines():
        if table := re.fullmatch(r"table (\w+) {", line):
            fields = tables[table[1]] = {}
        elif field := re.fullmatch(r"  (\w+): ([^;]+);", line):
            fields[field[1]] = field[2]
        else:
            assert not line or line == "}" or line.lstrip().startswith("//") or line.startswith("namespace "), line
    return tables


def test_tables_are_the_catalogue_s(database: Database) -> None:
    with database.connect() as connection:
        kinds = connection.execute(
            "SELECT kind, fields FROM backend.notification_kinds WHERE 'push' = ANY (channels) ORDER BY kind"
        ).fetchall()
    assert len({table_name(kind) for kind, _ in kinds}) == len(kinds)
    tables = schema_tables()
    assert tables == {table_name(kind): {name: TYPES[kind] for name, kind in fields.items()} for kind, fields in kinds}
    generated = {name: {f.name: f.type for f in table.fields} for name, table in TABLES.items()}
    assert generated == {
        name: {field: int if written == "int32" else str for field, written in fields.items()} for name, fields in tables.items()
    }
