"""Database errors as answers."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from app.errors import ApiError, ConstraintError, error_body, from_database, internal, invalid, unavailable
from tests.postgres import Database

KNOWN = {"accounts_user_name_is_unique": ConstraintError(422, "name_taken", "That name is taken.")}


def caught(database: Database, statement: str) -> psycopg.Error:
    with database.cluster.connect(database.name) as connection:
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            return error
    raise AssertionError("nothing was raised")


def test_the_body_has_the_standard_form() -> None:
    body = error_body("too_bad", "Ä sentence.", {"a": [1]}, "request-1")
    assert json.loads(body) == {
        "error": {"code": "too_bad", "message": "Ä sentence.", "details": {"a": [1]}, "request_id": "request-1"}
    }
    assert "Ä".encode() in body


def test_refusals_of_the_app() -> None:
    problems = [{"path": "email", "problem": "is required"}]
    assert (invalid(problems).status, invalid(problems).code, invalid(problems).details) == (400, "invalid_request", problems)
    assert (internal().status, internal().code, internal().details) == (500, "internal", {})
    assert (unavailable().status, unavailable().code, unavailable().headers) == (503, "unavailable", {"Retry-After": "1"})


def test_a_refusal_passes_through_context_managers() -> None:
    """contextlib sets __traceback__ on what it lets through, so an exception must let itself be changed."""

    @contextlib.contextmanager
    def around() -> Any:
        yield

    def refuse() -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(around())
            with around():
                raise ApiError(404, "not_found", "No.")

    with pytest.raises(ApiError):
        refuse()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 503])
def test_what_our_functions_raise_is_told_as_it_is(status: int, shared_database: Database) -> None:
    error = caught(shared_database, f"SELECT backend.fail({status}, 'too_bad', 'A sentence.', '{{\"a\": 1}}')")
    told = from_database(error, {})
    assert (told.status, told.code, told.message, told.details) == (status, "too_bad", "A sentence.", {"a": 1})
    if status in (429, 503):
        assert int(told.headers["Retry-After"]) > 0


def test_without_context_details_are_empty(shared_database: Database) -> None:
    assert from_database(caught(shared_database, "SELECT backend.fail(404, 'gone', 'Gone.')"), {}).details == {}


def test_a_constraint_is_told_by_its_name(shared_database: Database) -> None:
    statement = """
        INSERT INTO backend.accounts (user_name, display_name, email)
        SELECT 'twice', 'twice', NULL FROM generate_series(1, 2)
    """
    error = caught(shared_database, statement)
    assert from_database(error, KNOWN) == ApiError(422, "name_taken", "That name is taken.")
    assert from_database(error, {}).code == "internal", "a constraint that is not listed is a fault of ours"


@pytest.mark.parametrize(
    "statement",
    [
        "SET statement_timeout = '10ms'; SELECT pg_sleep(5)",
        "DO $$ BEGIN RAISE SQLSTATE '40001'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '55P03'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '53100'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '53200'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '53300'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '57P01'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '57P03'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '08006'; END $$",
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "BEGIN READ ONLY; CREATE TABLE backend.x (a int)",
    ],
)
def test_what_passes_by_itself_is_unavailable(statement: str, shared_database: Database) -> None:
    assert from_database(caught(shared_database, statement), {}) == unavailable()


def test_no_connection_is_unavailable() -> None:
    assert from_database(psycopg.OperationalError("connection refused"), {}) == unavailable()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT 1 / 0",
        "SELECT * FROM nowhere",
        "SELECT 'x'::uuid",
        "DO $$ BEGIN RAISE 'swordfish'; END $$",
        "SELECT syntax error",
        "SELECT NULL::int[1:",
        "DO $$ BEGIN RAISE SQLSTATE 'GXABC'; END $$",
    ],
)
def test_what_was_not_foreseen_says_nothing(statement: str, shared_database: Database, caplog: pytest.LogCaptureFixture) -> None:
    told = from_database(caught(shared_database, statement), {})
    assert told == internal()
    (record,) = [r for r in caplog.records if r.msg == "unforeseen database error"]
    assert "swordfish" not in repr(vars(record))


@pytest.mark.parametrize("error", [pg.CharacterNotInRepertoire(), pg.UntranslatableCharacter()])
def test_text_that_cannot_be_stored_is_the_callers(error: psycopg.Error) -> None:
    # Made here: what gets so far carries no server's answer.
    told = from_database(error, {})
    assert (told.status, told.code) == (400, "invalid_request")
