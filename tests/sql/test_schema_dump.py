"""docs/schema.sql, docs/states.md, docs/flows.md and docs/error_codes.md say what is deployed."""

import difflib
import subprocess
import sys
from pathlib import Path

import pytest

from dev import error_codes, schema_dump, state_diagrams
from dev.error_codes import Code, Function
from tests.postgres import Database

ROOT = Path(__file__).resolve().parents[2]


def assert_same(committed: Path, expected: str) -> None:
    found = committed.read_text()
    if found != expected:
        lines = difflib.unified_diff(found.splitlines(), expected.splitlines(), committed.name, "what it should be", lineterm="")
        pytest.fail("\n".join([f"{committed.relative_to(ROOT)} is out of date: run `make schema`", *lines]), pytrace=False)


def test_schema(database: Database) -> None:
    with database.connect() as connection:
        major = connection.info.server_version // 10000
    if major != 15:
        pytest.skip(f"docs/schema.sql is as Postgres 15 writes it, this is {major}")
    assert_same(schema_dump.DOCUMENT, schema_dump.dump(database.dsn("galaxy_deploy")))


def test_state_machines(database: Database) -> None:
    found = state_diagrams.document(database.dsn("galaxy_deploy"))
    assert_same(state_diagrams.DOCUMENT, found)
    with database.connect() as connection:
        connection.execute("DELETE FROM backend.state_transitions WHERE machine = 'invite' AND action = 'decline'")
    assert found.replace("    created --> declined: decline [invitee]\n", "") == state_diagrams.document(
        database.dsn("galaxy_deploy")
    )


def test_flows(database: Database) -> None:
    found = state_diagrams.flows(database.dsn("galaxy_deploy"))
    assert_same(state_diagrams.FLOWS, found)
    with database.connect() as connection:
        connection.execute("DELETE FROM backend.state_transitions WHERE machine = 'device_session' AND action = 'revoke'")
        connection.execute("UPDATE backend.notification_kinds SET channels = '{push}' WHERE kind = 'game.started'")
    changed = found.replace("    active --> revoked: revoke\n", "").replace(
        "`game.started` | push, email", "`game.started` | push"
    )
    assert changed == state_diagrams.flows(database.dsn("galaxy_deploy")) != found


def test_dump_shows_what_changes(database: Database) -> None:
    before = schema_dump.dump(database.dsn("postgres"))
    changes = (
        "ALTER TABLE backend.accounts ADD COLUMN note text",
        "ALTER TABLE backend.accounts DROP CONSTRAINT accounts_country_is_iso_3166",
        "GRANT SELECT ON backend.accounts TO backend_api",
        "REVOKE EXECUTE ON FUNCTION api.session_get(uuid) FROM backend_api",
        "ALTER FUNCTION api.session_get(uuid) RESET search_path",
        "ALTER TABLE backend.device_sessions DISABLE TRIGGER follow_edges",
        "COMMENT ON FUNCTION api.session_get(uuid) IS 'x'",
    )
    with database.connect() as connection:
        for change in changes:
            connection.execute(change)
            after = schema_dump.dump(database.dsn("postgres"))
            assert after != before, change
            before = after


def test_dump_is_the_same_for_everybody(database: Database) -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "dev.schema_dump", database.dsn("galaxy_deploy")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed.stdout == schema_dump.dump(database.dsn("postgres"))


def test_dump_of_nothing(database: Database) -> None:
    with pytest.raises(schema_dump.DumpError, match="no_such_database"):
        schema_dump.dump(database.dsn("postgres").replace(database.name, "no_such_database"))


@pytest.mark.parametrize(
    "noise",
    [
        "-- Dumped from database version 15.20\n",
        "-- Dumped by pg_dump version 15.8 (Debian 15.8-0+deb12u1)\n",
        "SET statement_timeout = 0;\n",
        "SELECT pg_catalog.set_config('search_path', '', false);\n",
        "\\restrict aBcD1234\n",
        "\\unrestrict aBcD1234\n",
        "--\n-- Name: x; Type: TABLE; Schema: backend; Owner: -\n--\n",
        "\n\n\n",
    ],
)
def test_noise_is_dropped(noise: str) -> None:
    statement = "CREATE TABLE backend.x (\n    a integer\n);\n"
    assert schema_dump.normalise(f"{noise}\n{statement}\n{noise}") == schema_dump.normalise(statement)


def test_comments_of_bodies_are_kept() -> None:
    body = "CREATE FUNCTION x()\n    AS $$\nBEGIN\n    -- Why it is so.\n    SET LOCAL x = 1;\nEND;\n$$;\n"
    assert body in schema_dump.normalise(body)


def test_error_codes() -> None:
    assert_same(error_codes.DOCUMENT, error_codes.document())


HELPER = """
-- fail(400, 'in_a_comment', 'x')
CREATE FUNCTION backend.thing_require(p_id uuid) RETURNS void
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    -- fail(400, 'in_a_comment', 'x')
    PERFORM fail(404, 'thing_not_found',
                 'There''s no such thing; none.');
END;
$$;
COMMENT ON FUNCTION backend.thing_require(uuid) IS 'It''s required. GX404 thing_not_found.';
CREATE FUNCTION backend.thing_count() RETURNS integer
LANGUAGE sql VOLATILE SECURITY INVOKER
BEGIN ATOMIC
    SELECT CASE WHEN true THEN 1 END;
    SELECT 2;
END;
INSERT INTO backend.constraint_errors (constraint_name, status, code, message) VALUES
    ('things_name_is_short', 400, 'name_too_long', 'The name''s too long.');
"""
DOOR = """
CREATE FUNCTION api.thing_get(p_id uuid) RETURNS api.reply
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = backend, pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM thing_require(p_id);
    RETURN refusal(409, 'busy', 'Busy.', '{"a": ")"}');
END;
$$;
COMMENT ON FUNCTION api.thing_get(uuid) IS 'A thing. Returns 409 busy. GX404 thing_not_found, GX403 a, b.';
"""


def test_scripts_are_read() -> None:
    helper, count = error_codes.functions_of("backend/things", HELPER)
    assert (helper.full_name, helper.arguments, helper.comment) == (
        "backend.thing_require",
        "p_id uuid",
        "It's required. GX404 thing_not_found.",
    )
    assert helper.codes() == {Code(404, "thing_not_found", False): "There's no such thing; none."}
    assert count.body.startswith("BEGIN ATOMIC")
    assert count.body.endswith("END")
    (door,) = error_codes.functions_of("api/things", DOOR)
    assert door.promised() == {
        Code(409, "busy", True),
        Code(404, "thing_not_found", False),
        Code(403, "a", False),
        Code(403, "b", False),
    }
    assert error_codes.all_codes([helper, count, door])["api.thing_get"] == {
        Code(409, "busy", True),
        Code(404, "thing_not_found", False),
    }


def test_document(tmp_path: Path) -> None:
    for change, text in (("backend/things", HELPER), ("api/things", DOOR)):
        script = tmp_path / f"{change}.sql"
        script.parent.mkdir()
        script.write_text(text)
    assert error_codes.document(tmp_path).splitlines()[-3:] == [
        "| 400 | `name_too_long` | The name's too long. | constraint `things_name_is_short` |",
        "| 404 | `thing_not_found` | There's no such thing; none. | `api.thing_get` |",
        "| 409 | `busy` | Busy. | `api.thing_get` |",
    ]


def test_tokens_are_the_text() -> None:
    for path in sorted(error_codes.DEPLOY.rglob("*.sql")):
        assert "".join(token.text for token in error_codes.tokens(path.read_text())) == path.read_text()


def test_functions_call_helpers() -> None:
    functions: list[Function] = error_codes.read_functions()
    assert "backend.session_revoke" in error_codes.calls(functions)["api.session_revoke"]
    assert "backend.fail" in error_codes.reached("api.my_account_get", error_codes.calls(functions))
