"""The changes as Sqitch runs them: deploy, verify, revert, deploy, on clusters of their own.

Of their own because roles belong to a whole cluster, and a revert takes them away.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.cluster import DEPLOY_LOGIN, Cluster, find_binaries, throw_away
from dev.schema_dump import normalise
from tests.services import until

ROOT = Path(__file__).resolve().parents[2]
DB = ROOT / "db"
PLAN = re.findall(r"^(\w+/\w+) (?:\[([^\]]*)\] )?\d{4}-", (ROOT / "sqitch.plan").read_text(), re.MULTILINE)
CHANGES = [change for change, _ in PLAN]

# What there is in a database beside the system's and Sqitch's own, and what the tables of backend hold, less what every
# deploy makes anew: times, and the epoch of the push stream.
OBJECTS = """
SELECT concat_ws(' ', pg_describe_object(d.catalog, d.object, 0), obj_description(d.object, d.catalog::regclass::text::name))
  FROM (SELECT tableoid, oid, relnamespace FROM pg_class
        UNION ALL SELECT tableoid, oid, pronamespace FROM pg_proc
        UNION ALL SELECT tableoid, oid, typnamespace FROM pg_type
        UNION ALL SELECT tableoid, oid, connamespace FROM pg_constraint
        UNION ALL SELECT tableoid, oid, oid FROM pg_namespace
        UNION ALL SELECT t.tableoid, t.oid, c.relnamespace FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid
         WHERE NOT t.tgisinternal
        UNION ALL SELECT a.tableoid, a.oid, c.relnamespace FROM pg_attrdef AS a JOIN pg_class AS c ON c.oid = adrelid
       ) AS d(catalog, object, place)
 WHERE d.place::regnamespace::text !~ '^(pg_.*|information_schema|sqitch)$'
UNION ALL
SELECT concat_ws(' ', 'grant', d.object, a.privilege_type, coalesce(nullif(a.grantee, 0)::regrole::text, 'PUBLIC'))
  FROM (SELECT oid::regclass::text, coalesce(relacl, acldefault('r', relowner)), relnamespace, relowner FROM pg_class
        UNION ALL SELECT oid::regprocedure::text, coalesce(proacl, acldefault('f', proowner)), pronamespace, proowner FROM pg_proc
        UNION ALL SELECT oid::regnamespace::text, coalesce(nspacl, acldefault('n', nspowner)), oid, nspowner FROM pg_namespace
       ) AS d(object, acl, place, owner),
       aclexplode(d.acl) AS a
 WHERE d.place::regnamespace::text !~ '^(pg_.*|information_schema)$' AND a.grantee <> d.owner
UNION ALL
SELECT concat_ws(' ', 'default acl', defaclnamespace::regnamespace, defaclobjtype, defaclacl) FROM pg_default_acl
UNION ALL
SELECT concat_ws(' ', 'extension', extname) FROM pg_extension
"""
FACTS = """
SELECT format(
    $$SELECT '%1$s ' || (to_jsonb(t) - ARRAY['created_at', 'updated_at', 'epoch'])::text FROM %1$s AS t$$, oid::regclass)
  FROM pg_class WHERE relnamespace = to_regnamespace('backend') AND relkind = 'r'
"""
ROLES = "SELECT rolname FROM pg_roles WHERE rolname ~ '^(backend|galaxy)_(owner|api|worker|push)$'"


def everything(cluster: Cluster, database: str) -> set[str]:
    """Describe all that a deploy leaves in a database: objects, comments, grants and facts."""
    with cluster.connect(database) as connection:
        found = {row[0] for row in connection.execute(OBJECTS)}
        for (query,) in connection.execute(FACTS).fetchall():
            found |= {row[0] for row in connection.execute(query)}
    return found


def dump(cluster: Cluster, database: str) -> str:
    """The whole definition, procrastinate's too."""
    answer = subprocess.run(
        [
            find_binaries() / "pg_dump",
            f"--host={cluster.socket_directory}",
            f"--port={cluster.port}",
            f"--username={DEPLOY_LOGIN}",
            "--schema-only",
            "--exclude-schema=sqitch",
            database,
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return normalise(answer.stdout)


def roles(cluster: Cluster) -> set[str]:
    with cluster.connect() as connection:
        return {row[0] for row in connection.execute(ROLES)}


def run_script(cluster: Cluster, database: str, kind: str, change: str) -> None:
    """Run one script as Sqitch's client does; fails the test with psql's words."""
    answer = subprocess.run(
        [
            find_binaries() / "psql",
            f"--host={cluster.socket_directory}",
            f"--port={cluster.port}",
            f"--username={DEPLOY_LOGIN}",
            f"--dbname={database}",
            "--no-psqlrc",
            "--quiet",
            "--set=ON_ERROR_STOP=1",
            "--set=registry=sqitch",
            f"--file={DB / kind / change}.sql",
        ],
        cwd=ROOT,
        env={"PATH": f"{Path(sys.executable).parent}:{os.defpath}", "LC_ALL": "C.UTF-8"},  # a change runs python3
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, f"{kind} {change}: {answer.stderr}"


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    with throw_away() as cluster:
        yield cluster


@pytest.mark.xdist_group("sqitch")
def test_deploy_verify_revert_deploy(own_cluster: Cluster) -> None:
    """Nothing is left after a revert, and a second deploy makes the same again. With two databases, to revert one leaves the
    other working, with its roles; with the last one they go."""
    own_cluster.create_database("first")
    before = everything(own_cluster, "first")
    assert roles(own_cluster) == set()
    own_cluster.sqitch("first", "deploy")
    own_cluster.sqitch("first", "verify")
    deployed, definition = everything(own_cluster, "first"), dump(own_cluster, "first")
    assert len(deployed - before) > 500
    assert len(roles(own_cluster)) == 7

    own_cluster.create_database("second", "first")
    own_cluster.sqitch("second", "revert", "-y")
    assert everything(own_cluster, "second") == before
    assert everything(own_cluster, "first") == deployed
    assert len(roles(own_cluster)) == 7
    for door in ("api", "worker", "push"):
        with own_cluster.connect("first", f"galaxy_{door}") as connection:
            found = connection.execute(f"SELECT count(*) FROM {door}.schema_changes()").fetchone()
            assert found == (len(CHANGES),)

    own_cluster.sqitch("first", "revert", "-y")
    assert everything(own_cluster, "first") == before
    assert roles(own_cluster) == set()

    own_cluster.sqitch("second", "deploy")
    assert everything(own_cluster, "second") == deployed
    assert dump(own_cluster, "second") == definition
    own_cluster.drop_database("first")
    own_cluster.drop_database("second")


@pytest.mark.xdist_group("sqitch")
def test_each_change_alone(own_cluster: Cluster) -> None:
    """Deploy, verify, revert, deploy of each: a revert undoes its change and nothing else, and the change comes back the same."""
    own_cluster.create_database("alone")
    with own_cluster.connect("alone", DEPLOY_LOGIN) as connection:  # what the changes see of Sqitch's registry
        connection.execute("CREATE SCHEMA sqitch")
        connection.execute("CREATE TABLE sqitch.changes AS SELECT 'x' AS change_id, 'galaxy-backend' AS project")
    empty = before = everything(own_cluster, "alone")
    for change in CHANGES:
        run_script(own_cluster, "alone", "deploy", change)
        run_script(own_cluster, "alone", "verify", change)
        after = everything(own_cluster, "alone")
        run_script(own_cluster, "alone", "revert", change)
        left = everything(own_cluster, "alone")
        assert (change, left - before, before - left) == (change, set(), set())
        run_script(own_cluster, "alone", "deploy", change)
        again = everything(own_cluster, "alone")
        assert (change, again - after, after - again) == (change, set(), set())
        before = again
    for change in reversed(CHANGES):
        run_script(own_cluster, "alone", "revert", change)
    assert everything(own_cluster, "alone") == empty
    assert roles(own_cluster) == set()
    own_cluster.drop_database("alone")


@pytest.mark.xdist_group("sqitch")
def test_a_revert_that_forgets_something_is_noticed(own_cluster: Cluster) -> None:
    own_cluster.create_database("forgetful")
    before = everything(own_cluster, "forgetful")
    for statement in (
        "CREATE SCHEMA x",
        "CREATE TABLE public.x (a integer DEFAULT 1 CHECK (a > 0))",
        "CREATE FUNCTION public.x() RETURNS integer LANGUAGE sql RETURN 1",
        "CREATE DOMAIN public.y AS text",
        "COMMENT ON SCHEMA public IS 'x'",
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    ):
        with own_cluster.connect("forgetful", autocommit=False) as connection:
            connection.execute(statement)
            connection.commit()
        now = everything(own_cluster, "forgetful")
        assert now != before, statement
        before = now


def test_every_change_has_its_scripts() -> None:
    assert CHANGES
    assert [
        f"{kind}/{c}" for c in CHANGES for kind in ("deploy", "revert", "verify") if not (DB / kind / f"{c}.sql").is_file()
    ] == []


def test_the_order_satisfies_the_requirements() -> None:
    assert len(set(CHANGES)) == len(CHANGES)
    for position, (change, requires) in enumerate(PLAN):
        assert [name for name in requires.split() if name not in CHANGES[:position]] == [], change


def test_every_change_says_in_a_sentence_what_it_is() -> None:
    for line in (ROOT / "sqitch.plan").read_text().splitlines():
        if re.match(r"\w+/\w+ ", line):
            assert re.search(r" # [A-Z].*\.$", line), line


def test_the_queue_is_all_that_the_package_brings() -> None:
    """A newer package with a migration more needs a change that runs it."""
    import procrastinate

    assert procrastinate.__file__ is not None
    migrations = sorted(p.name for p in (Path(procrastinate.__file__).parent / "sql" / "migrations").glob("*.sql"))
    run = [
        name
        for change in CHANGES
        for name in re.findall(
            r"procrastinate_migration\.py (\S+\.sql) [0-9a-f]{64}`", (DB / "deploy" / f"{change}.sql").read_text()
        )
    ]
    assert run == migrations


def test_a_migration_that_is_another_is_refused() -> None:
    answer = subprocess.run(
        [sys.executable, DB / "procrastinate_migration.py", "00.00.00_01_initial.sql", "0" * 64],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (answer.returncode, answer.stdout) == (1, "")
    assert "is not the migration" in answer.stderr


def test_serve_that_is_told_to_stop_while_it_deploys_ends_that_first(tmp_path: Path) -> None:
    """A Sqitch that ends between a change and its note of it leaves a schema that no deploy can go on from."""
    with throw_away() as cluster:
        cluster.create_database("galaxy")
        _stop_while_it_deploys(cluster, tmp_path)


def _stop_while_it_deploys(cluster: Cluster, directory: Path) -> None:
    given = {
        "BACKEND_DEVELOPMENT": "true",
        "BACKEND_POSTGRES_DSN": cluster.dsn("galaxy_api", "galaxy"),
        "BACKEND_POSTGRES_DSN_DEPLOY": cluster.dsn(DEPLOY_LOGIN, "galaxy"),
        "BACKEND_SMTP_HOST": "localhost",
        "BACKEND_SMTP_FROM": "noreply@example.org",
        "BACKEND_RUNTIME_DRIVER": "process",
        "BACKEND_GAME_STATE_ROOT": str(directory),
        "BACKEND_GEOIP_DB_PATH": str(directory / "geo.mmdb"),
    }
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=os.environ | given, stdout=log, stderr=log
        )
    try:
        with cluster.connect("galaxy") as connection:

            def count() -> int:
                if connection.execute("SELECT to_regclass('sqitch.changes')").fetchone() == (None,):
                    return 0
                row = connection.execute("SELECT count(*) FROM sqitch.changes").fetchone()
                assert row is not None
                return int(row[0])

            until(lambda: count() or process.poll() is not None)
            process.terminate()
            process.wait(120)
            assert count() == len(CHANGES), (directory / "log").read_text()
    finally:
        process.kill()
        process.wait()
