"""plpgsql_check over every PL/pgSQL function of ours: what it would only find out when it runs."""

import secrets
from collections.abc import Iterator
from typing import Any, NamedTuple

import psycopg
import pytest

from dev.cluster import Cluster
from tests.postgres import Database


class Complaint(NamedTuple):
    """Which function, at which line, of what kind, and what."""

    function: str
    line: int | None
    level: str
    message: str


# What is meant to be as it is: (function, part of the message), and why.
ALLOWED = {
    # An immutable function would be evaluated while a statement is planned, and refuse where nothing is wrong.
    ("backend.fail", "routine is marked as STABLE, should be IMMUTABLE"),
    # It finds the views of the areas in the catalog, so that a new area adds one and nobody rewrites this.
    ("backend.invariants_collect", "cannot to determine result of dynamic SQL"),
}

# A trigger function is checked with each table that uses it.
CHECK = """
SELECT p.oid::regproc::text, c.lineno, c.level, concat_ws(' ', c.message, c.detail, c.hint)
  FROM pg_proc AS p
  LEFT JOIN (SELECT DISTINCT tgfoid, tgrelid FROM pg_trigger WHERE NOT tgisinternal) AS t ON t.tgfoid = p.oid,
       LATERAL plpgsql_check_function_tb(
           p.oid, coalesce(t.tgrelid, 0), fatal_errors => false, other_warnings => true, extra_warnings => true,
           performance_warnings => true, security_warnings => true) AS c
 WHERE p.pronamespace = ANY (ARRAY['backend', 'api', 'worker', 'push']::regnamespace[])
   AND p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'plpgsql')
   AND (p.prorettype <> 'trigger'::regtype OR t.tgrelid IS NOT NULL)
"""


@pytest.fixture(scope="module")
def shared_connection(cluster: Cluster, template_database: str) -> Iterator[psycopg.Connection[Any]]:
    database = Database(cluster, f"test_{secrets.token_hex(8)}")
    cluster.create_database(database.name, template_database)
    connection = database.connect(options="-csearch_path=pg_catalog,plpgsql_check")
    connection.execute("CREATE SCHEMA plpgsql_check")
    connection.execute("CREATE EXTENSION plpgsql_check SCHEMA plpgsql_check")
    yield connection
    database.drop()


@pytest.fixture
def connection(shared_connection: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    with shared_connection.transaction(force_rollback=True):
        yield shared_connection


def complaints(connection: psycopg.Connection[Any]) -> set[Complaint]:
    return {Complaint(*row) for row in connection.execute(CHECK)}


def is_allowed(complaint: Complaint) -> bool:
    return any(complaint.function == name and part in complaint.message for name, part in ALLOWED)


def test_functions(connection: psycopg.Connection[Any]) -> None:
    found = sorted(c for c in complaints(connection) if not is_allowed(c))
    if found:
        pytest.fail("\n".join(f"{c.function}:{c.line}: {c.level}: {c.message}" for c in found), pytrace=False)


def test_every_exception_is_still_needed(connection: psycopg.Connection[Any]) -> None:
    found = complaints(connection)
    assert [(n, part) for n, part in ALLOWED if not any(c.function == n and part in c.message for c in found)] == []


def test_every_trigger_function_is_used(connection: psycopg.Connection[Any]) -> None:
    """One that no table uses would not be checked."""
    unused = connection.execute(
        "SELECT p.oid::regproc::text FROM pg_proc AS p WHERE p.pronamespace = 'backend'::regnamespace"
        " AND p.prorettype = 'trigger'::regtype AND NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgfoid = p.oid)"
    )
    assert unused.fetchall() == []


@pytest.mark.parametrize(
    "body,message",
    [
        ("RETURN (SELECT a.no_such_column FROM accounts AS a LIMIT 1);", "does not exist"),
        ("PERFORM no_such_function(); RETURN 'x';", "does not exist"),
        ("IF p_name = 'x' THEN RETURN 'y'; END IF;", "control reached end of function without RETURN"),
        ("RETURN (SELECT 'x' FROM accounts AS a WHERE a.user_name = p_name::name);", "performance"),
        ("EXECUTE 'SELECT ' || p_name; RETURN 'x';", "SQL injection"),
        ("p_name := 'x'; RETURN 'x';", "never read"),
    ],
)
def test_a_function_that_is_refused(connection: psycopg.Connection[Any], body: str, message: str) -> None:
    connection.execute(
        "CREATE FUNCTION api.example(p_name text) RETURNS text LANGUAGE plpgsql VOLATILE SECURITY DEFINER"
        f" SET search_path = backend, pg_catalog, pg_temp AS $$ BEGIN {body} END; $$"
    )
    found = [f"{c.level}: {c.message}" for c in complaints(connection) if c.function == "api.example"]
    assert any(message in complaint for complaint in found), found


def test_a_trigger_function_that_is_refused(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "CREATE FUNCTION backend.tg_accounts__example() RETURNS trigger LANGUAGE plpgsql VOLATILE SECURITY INVOKER"
        " SET search_path = backend, pg_catalog, pg_temp AS $$ BEGIN NEW.no_such_column := 1; RETURN NEW; END; $$"
    )
    connection.execute(
        "CREATE TRIGGER example BEFORE UPDATE ON backend.accounts FOR EACH ROW EXECUTE FUNCTION backend.tg_accounts__example()"
    )
    assert any(c.function == "backend.tg_accounts__example" for c in complaints(connection))
