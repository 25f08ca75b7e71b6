"""pgtap/backend/doors.sql reads the whole catalog: each of its tests refuses an example of what it is there for."""

import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.cluster import Cluster, find_binaries
from dev.pgtap import prove
from tests.postgres import Database

FILE = Path(__file__).resolve().parents[2] / "pgtap" / "backend" / "doors.sql"
COUNTS = {"there are functions in the doors", "there are helpers", "there are tables", "there are triggers"}

PATH = "SET search_path = backend, pg_catalog, pg_temp"


def door(
    name: str = "api.example",
    arguments: str = "",
    returns: str = "text",
    header: str = f"LANGUAGE plpgsql STABLE SECURITY DEFINER {PATH}",
    body: str = "RETURN 'x';",
) -> str:
    """A function of a door, right but for what is given."""
    return f"CREATE FUNCTION {name}({arguments}) RETURNS {returns} {header} AS $$ BEGIN {body} END; $$;"


def helper(
    name: str = "backend.example", header: str = f"LANGUAGE plpgsql STABLE SECURITY INVOKER {PATH}", body: str = "RETURN 'x';"
) -> str:
    return door(name, header=header, body=body)


def table(
    columns: str = "a uuid PRIMARY KEY DEFAULT backend.uuid_v7(), created_at timestamptz NOT NULL DEFAULT backend.now()",
) -> str:
    return f"CREATE TABLE backend.example ({columns});"


STATE = "status text NOT NULL, created_at timestamptz NOT NULL DEFAULT backend.now()"
EDGES = "EXECUTE FUNCTION backend.tg_state__follow_edges('example', 'status');"
MACHINE = "INSERT INTO backend.state_transitions (machine, action, to_state, description) VALUES ('example', 'a', 'b', '-');"

# What is done as the owner, and the test that must refuse it.
EXAMPLES = [
    ("CREATE TABLE api.example ();", "a door holds functions"),
    ("CREATE VIEW worker.example AS SELECT 1 AS a;", "a door holds functions"),
    (door(header=f"LANGUAGE plpgsql STABLE SECURITY INVOKER {PATH}"), "every function of a door is SECURITY DEFINER"),
    (
        "CREATE FUNCTION api.example() RETURNS text LANGUAGE sql SECURITY DEFINER RETURN 'x';",
        "every function of a door is in PL/pgSQL",
    ),
    (door(header="LANGUAGE plpgsql STABLE SECURITY DEFINER"), "every function of a door has its search path pinned"),
    (
        door(header="LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_temp, backend, pg_catalog"),
        "every function of a door has its search path pinned",
    ),
    (
        door(header=f"LANGUAGE plpgsql STABLE SECURITY DEFINER {PATH} SET work_mem = '1MB'"),
        "every function of a door has its search path pinned",
    ),
    (door(), "every function of a door has a comment"),
    ("GRANT EXECUTE ON FUNCTION api.session_get(uuid) TO PUBLIC;", "every function of a door is granted to the door's role only"),
    (
        "GRANT EXECUTE ON FUNCTION api.session_get(uuid) TO backend_push;",
        "every function of a door is granted to the door's role only",
    ),
    (
        "GRANT EXECUTE ON FUNCTION api.session_get(uuid) TO backend_api WITH GRANT OPTION;",
        "every function of a door is granted to the door's role only",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION api.session_get(uuid) FROM backend_api;",
        "every function of a door can be executed by the door's role",
    ),
    (door("api.session_get", "p_a text"), "a name means one function of a door"),
    ("DROP FUNCTION api.account_internal_get(uuid);", "the exceptions of the internal group are functions"),
    (door(arguments="p_user_id uuid"), "every function for a person looks at the person's account"),
    (
        door(arguments="p_user_id uuid, p_x uuid", body="PERFORM account_require(p_x); RETURN 'x';"),
        "every function for a person looks at the person's account",
    ),
    (
        door(arguments="p_user_id uuid", body="DELETE FROM accounts; PERFORM account_require(p_user_id); RETURN 'x';"),
        "every function for a person looks at the person's account",
    ),
    (door(arguments="p_admin text"), "every function for an administrator looks at the administrator"),
    (
        door(
            arguments="p_admin text", body="UPDATE accounts SET email = NULL; PERFORM administrator_require(p_admin); RETURN 'x';"
        ),
        "every function for an administrator looks at the administrator",
    ),
    (door("worker.example", "p_user_id uuid"), "only the API speaks for people"),
    ("GRANT SELECT ON backend.accounts TO backend_api;", "no table, view, sequence or column of backend is granted"),
    ("GRANT SELECT (email) ON backend.accounts TO backend_api;", "no table, view, sequence or column of backend is granted"),
    ("GRANT SELECT ON backend.invariants TO PUBLIC;", "no table, view, sequence or column of backend is granted"),
    ("GRANT EXECUTE ON FUNCTION backend.now() TO PUBLIC;", "no function of backend is granted"),
    ("GRANT USAGE ON TYPE backend.limit_code TO backend_api;", "no type of backend is granted"),
    (
        "GRANT DELETE ON backend.accounts TO backend_worker;",
        "no role of a door, no login and not PUBLIC has any right on any table",
    ),
    (
        "GRANT SELECT (email) ON backend.accounts TO galaxy_push;",
        "no role of a door, no login and not PUBLIC has any right on any table",
    ),
    ("GRANT SELECT ON procrastinate.procrastinate_jobs TO backend_api;", "the queue's tables are the worker's"),
    ("GRANT TRUNCATE ON procrastinate.procrastinate_jobs TO backend_worker;", "the queue's tables are the worker's"),
    ("GRANT UPDATE ON SEQUENCE procrastinate.procrastinate_jobs_id_seq TO backend_worker;", "no sequence can be set by anybody"),
    ("GRANT USAGE ON SEQUENCE backend.push_pending_pending_id_seq TO backend_api;", "no sequence can be set by anybody"),
    (
        "GRANT EXECUTE ON FUNCTION push.events_read(bigint, integer) TO galaxy_api;",
        "each role and login can execute all of its own door",
    ),
    ("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA procrastinate TO PUBLIC;", "each role and login can execute all of its own door"),
    ("GRANT CREATE ON SCHEMA api TO backend_api;", "no role of a door can create anything that stays"),
    ("RESET ROLE; CREATE TABLE backend.example ();", "everything belongs to backend_owner"),
    ("RESET ROLE; ALTER FUNCTION backend.now() OWNER TO galaxy_deploy;", "everything belongs to backend_owner"),
    (
        "RESET ROLE; CREATE TABLE public.example (); ALTER TABLE public.example OWNER TO backend_owner;",
        "nothing of ours is outside our schemas",
    ),
    ("RESET ROLE; CREATE EXTENSION file_fdw;", "no extension is needed"),
    (helper(header=f"LANGUAGE plpgsql STABLE SECURITY DEFINER {PATH}"), "no helper is SECURITY DEFINER"),
    (helper(header="LANGUAGE plpgsql STABLE SECURITY INVOKER"), "every helper whose names are not bound"),
    (
        "CREATE FUNCTION backend.example() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'x' $$;",
        "every helper whose names are not bound",
    ),
    (helper(), "every function has a comment"),
    (door(arguments="limit_ integer"), "every argument's name begins with p_"),
    (
        door("backend.example", returns="trigger", header=f"LANGUAGE plpgsql {PATH}", body="RETURN NEW;"),
        "trigger functions, and only they",
    ),
    (helper("backend.tg_accounts__example"), "trigger functions, and only they"),
    (helper(body="DELETE FROM accounts; RETURN 'x';"), "a function that is not VOLATILE writes nothing"),
    (helper(body="NOTIFY example; RETURN 'x';"), "a function that is not VOLATILE writes nothing"),
    (table(), "every table, view and domain says what it is"),
    ("COMMENT ON DOMAIN backend.limit_code IS NULL;", "every table, view and domain says what it is"),
    (table("a integer, created_at timestamptz NOT NULL DEFAULT backend.now()"), "every table has a primary key"),
    (table("a uuid PRIMARY KEY DEFAULT gen_random_uuid()"), "an id of a table's own is a UUID of version 7"),
    (table("a integer PRIMARY KEY"), "every table has created_at"),
    (table("a integer PRIMARY KEY, created_at timestamptz NOT NULL DEFAULT now()"), "every table has created_at"),
    (table("a integer PRIMARY KEY, created_at timestamptz DEFAULT backend.now()"), "every table has created_at"),
    (table("updated_at timestamptz NOT NULL DEFAULT backend.now()"), "every updated_at is set by the touch trigger"),
    ("ALTER TABLE backend.accounts DISABLE TRIGGER touch;", "every updated_at is set by the touch trigger"),
    (
        "DROP TRIGGER touch ON backend.accounts; CREATE TRIGGER touch BEFORE UPDATE OF email ON backend.accounts"
        " FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();",
        "every updated_at is set by the touch trigger",
    ),
    (
        table() + helper(header=f"LANGUAGE plpgsql VOLATILE {PATH}", body="UPDATE example SET a = a; RETURN 'x';"),
        "every table whose rows a function changes has updated_at",
    ),
    (
        table() + "CREATE TRIGGER touch BEFORE UPDATE ON backend.example FOR EACH ROW EXECUTE FUNCTION backend.tg_row__touch();",
        "no touch trigger is without an updated_at",
    ),
    (table("a uuid REFERENCES backend.accounts"), "every foreign key has an index"),
    (
        table("a uuid REFERENCES backend.accounts, b integer") + "CREATE INDEX ON backend.example (b, a);",
        "every foreign key has an index",
    ),
    (
        table("a uuid REFERENCES backend.accounts, b integer") + "CREATE INDEX ON backend.example (a) WHERE b > 0;",
        "every foreign key has an index",
    ),
    (table("a integer CHECK (a > 0)"), "every check has a name that states its rule"),
    (
        "ALTER TABLE backend.accounts ADD CONSTRAINT accounts_have_a_name CHECK (user_name <> '') NOT VALID;",
        "every check has a name that states its rule",
    ),
    (
        "INSERT INTO backend.constraint_errors VALUES ('no_such_constraint', 400, 'a', 'A.');",
        "every constraint that has a meaning",
    ),
    (table("a timestamp"), "no time is without its zone"),
    (door(arguments="p_at timestamp"), "no time is without its zone"),
    ("ALTER TABLE backend.device_sessions DISABLE TRIGGER follow_edges;", "no trigger sleeps"),
    ("ALTER TABLE backend.device_sessions ENABLE REPLICA TRIGGER follow_edges;", "no trigger sleeps"),
    (table(STATE), "every column of a state has the trigger"),
    (
        table(STATE) + MACHINE + f"CREATE TRIGGER follow_edges BEFORE UPDATE ON backend.example FOR EACH ROW {EDGES}",
        "every column of a state has the trigger",
    ),
    (
        table(STATE)
        + MACHINE
        + f"CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE OF created_at ON backend.example FOR EACH ROW {EDGES}",
        "every column of a state has the trigger",
    ),
    (
        table(STATE)
        + MACHINE
        + f"CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE ON backend.example FOR EACH ROW WHEN (NEW.status <> 'b') {EDGES}",
        "every column of a state has the trigger",
    ),
    (MACHINE, "every machine has its column"),
    (
        table(STATE) + f"CREATE TRIGGER follow_edges BEFORE INSERT OR UPDATE ON backend.example FOR EACH ROW {EDGES}",
        "every machine has its column",
    ),
    ("ALTER TABLE backend.device_sessions ALTER status SET DEFAULT 'revoked';", "a state is never null, and its default"),
    ("ALTER TABLE backend.device_sessions ALTER status DROP NOT NULL;", "a state is never null, and its default"),
]


@pytest.fixture(scope="module")
def tap_database(cluster: Cluster, template_database: str) -> Iterator[Database]:
    database = Database(cluster, f"test_{secrets.token_hex(8)}")
    cluster.create_database(database.name, template_database)
    prove(cluster, database.name, [str(FILE)])  # makes the extension
    yield database
    database.drop()


def refused_by(database: Database, statements: str) -> list[str]:
    """Return the descriptions of the tests of doors.sql that fail after these statements."""
    before = f"BEGIN; SET LOCAL ROLE backend_owner; {statements} RESET ROLE; SET LOCAL search_path = pgtap;\n"
    answer = subprocess.run(
        [
            find_binaries() / "psql",
            *("--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1"),
            f"--host={database.cluster.socket_directory}",
            f"--port={database.cluster.port}",
            "--username=postgres",
            f"--dbname={database.name}",
        ],
        input=before + FILE.read_text(),
        env={**os.environ, "PGOPTIONS": "-cclient_min_messages=error"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return re.findall(r"^not ok \d+ - (.*)$", answer.stdout, re.MULTILINE)


@pytest.mark.parametrize("statements,description", EXAMPLES)
def test_refuses(statements: str, description: str, tap_database: Database) -> None:
    refused = refused_by(tap_database, statements)
    assert any(found.startswith(description) for found in refused), refused


def test_every_test_has_an_example() -> None:
    descriptions = set(re.findall(r"^    '((?:[^']|'')*)'\);$", FILE.read_text(), re.MULTILINE))
    assert len(descriptions) + len(COUNTS) == int(re.findall(r"SELECT plan\((\d+)\)", FILE.read_text())[0])
    without = [d for d in descriptions if not any(d.replace("''", "'").startswith(example) for _, example in EXAMPLES)]
    assert without == []
