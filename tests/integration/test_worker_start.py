"""When the job program refuses to start, and what it says then."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest
from psycopg import sql

from dev.cluster import Cluster, free_port
from tests.postgres import Database
from tests.services import Program, StartProgram, until

EX_CONFIG = 78


def refused(program: Program, *words: str) -> None:
    """Fail unless it ended as one that must not be started again as it is, and says why to people and to machines."""
    assert program.wait() == EX_CONFIG
    for word in words:
        assert word in program.errors()
    assert "Traceback" not in program.errors()
    [line] = program.logged("refusing to start")
    assert line["level"] == "error"
    assert line["reason"] in program.errors()
    assert program.logged("working") == []


def test_an_older_schema(database: Database, start_program: StartProgram) -> None:
    database.cluster.sqitch(database.name, "revert", "-y", "--to", "HEAD^")
    refused(start_program("worker", database), "older than this program", "sqitch deploy")


def test_no_schema_at_all(cluster: Cluster, start_program: StartProgram) -> None:
    """The oldest there is; the login exists in the cluster, whichever database it was made for."""
    empty = Database(cluster, f"empty_{secrets.token_hex(6)}")
    cluster.create_database(empty.name)
    try:
        refused(start_program("worker", empty), "older than this program", "sqitch deploy")
    finally:
        empty.drop()


def test_a_schema_from_before_the_workers_door(database: Database, start_program: StartProgram) -> None:
    database.cluster.sqitch(database.name, "revert", "-y", "--to", "api/administrators")
    refused(start_program("worker", database), "older than this program", "sqitch deploy")


def test_a_superuser(database: Database, start_program: StartProgram) -> None:
    program = start_program("worker", database, BACKEND_POSTGRES_DSN_WORKER=database.dsn("postgres"))
    refused(program, "superuser", "backend_worker")


def test_a_superuser_may_in_development(database: Database, start_program: StartProgram) -> None:
    dsn = database.dsn("postgres")
    program = start_program("worker", database, BACKEND_POSTGRES_DSN_WORKER=dsn, BACKEND_DEVELOPMENT="true")
    until(lambda: program.logged("working"))
    assert any("BACKEND_DEVELOPMENT" in line["msg"] for line in program.log_lines() if line["level"] == "warn")


@pytest.mark.parametrize("login", ["galaxy_api", "galaxy_push"])
def test_the_login_of_another_door(database: Database, start_program: StartProgram, login: str) -> None:
    program = start_program("worker", database, BACKEND_POSTGRES_DSN_WORKER=database.dsn(login))
    refused(program, login, "backend_worker")


@pytest.fixture
def greedy(cluster: Cluster, template_database: str) -> Iterator[str]:
    """A login that is a member of two doors, of one of them by way of a group."""
    login, group = f"greedy_{secrets.token_hex(4)}", f"group_{secrets.token_hex(4)}"
    names = {"login": sql.Identifier(login), "group": sql.Identifier(group)}
    with cluster.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {group}; CREATE ROLE {login} LOGIN").format(**names))
        connection.execute(sql.SQL("GRANT backend_api TO {group}; GRANT backend_worker, {group} TO {login}").format(**names))
        yield login
        connection.execute(sql.SQL("DROP ROLE {login}; DROP ROLE {group}").format(**names))


def test_a_login_of_more_than_one_door(database: Database, start_program: StartProgram, greedy: str) -> None:
    refused(start_program("worker", database, BACKEND_POSTGRES_DSN_WORKER=database.dsn(greedy)), greedy, "also a member")


def test_no_postgres_at_all_may_be_tried_again(database: Database, start_program: StartProgram) -> None:
    """It is not the configuration that is wrong: whoever supervises it starts it again."""
    nobody = f"postgresql://galaxy_worker@127.0.0.1:{free_port()}/galaxy?search_path=backend"
    program = start_program("worker", database, BACKEND_POSTGRES_DSN_WORKER=nobody)
    assert program.wait() == 1
    [line] = program.logged("Postgres cannot be asked")
    assert line["level"] == "error"
    assert "Traceback" not in program.errors()


def test_a_configuration_that_is_wrong(database: Database, start_program: StartProgram) -> None:
    program = start_program("worker", database, BACKEND_SMTP_PORT="many", BACKEND_MAIL_MAX_ATTEMPTS="0")
    assert program.wait() == EX_CONFIG
    assert "BACKEND_SMTP_PORT" in program.errors()
    assert "BACKEND_MAIL_MAX_ATTEMPTS" in program.errors()
