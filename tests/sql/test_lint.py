"""The form of the scripts under db/: each rule of the house is a linter, and each linter refuses an example."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import pytest

from dev.error_codes import (
    DOORS,
    Code,
    Function,
    all_codes,
    calls,
    constraint_errors,
    functions_of,
    possible_codes,
    reached,
    statements,
    tokens,
    without_comments,
)

ROOT = Path(__file__).resolve().parents[2]
DB = ROOT / "db"
PROJECT = "galaxy-backend"
TAILS = {"deploy": "to", "revert": "from", "verify": "on"}
QUEUE = ("backend/queue_base", "backend/queue")


@dataclass(frozen=True)
class Script:
    """A script of a change; its kind is deploy, revert or verify."""

    kind: str
    change: str
    text: str

    @property
    def schema(self) -> str:
        return self.change.split("/")[0]

    @cached_property
    def code(self) -> str:
        """The script without its comments, also those in bodies."""
        return without_comments(self.text)

    @cached_property
    def bodies(self) -> list[str]:
        """What stands in dollar quotes, without comments and with its strings emptied."""
        return [_bare(token.text[2:-2]) for token in tokens(self.code) if token.kind == "dollar" and token.text[:2] == "$$"]

    @cached_property
    def outside(self) -> str:
        """What does not stand in dollar quotes, likewise."""
        return _bare(self.code)


def _bare(code: str) -> str:
    return "".join("''" if token.kind in ("string", "dollar") else token.text for token in tokens(code))


@dataclass(frozen=True)
class Project:
    """All scripts, and what the plan says that each change requires."""

    scripts: tuple[Script, ...]
    requires: Mapping[str, list[str]] = field(default_factory=dict)

    @cached_property
    def functions(self) -> list[Function]:
        return [f for s in self.scripts if s.kind == "deploy" for f in functions_of(s.change, s.text)]

    @cached_property
    def calls(self) -> dict[str, set[str]]:
        return calls(self.functions)

    @cached_property
    def codes(self) -> dict[str, set[Code]]:
        return all_codes(self.functions)

    @cached_property
    def possible(self) -> dict[str, set[Code]]:
        of_constraints = {code for _, code, _ in constraint_errors()}
        return {name: codes | of_constraints for name, codes in possible_codes(self.functions).items()}

    def functions_of(self, script: Script) -> list[Function]:
        return [f for f in self.functions if script.kind == "deploy" and f.change == script.change]

    def deploy_of(self, change: str) -> Script | None:
        return next((s for s in self.scripts if s.kind == "deploy" and s.change == change), None)


Linter = Callable[[Script, Project], Iterator[str]]
EXAMPLES: dict[Linter, list[Project]] = {}


def refuses(*examples: tuple[str, str, str] | list[tuple[str, str, str]]) -> Callable[[Linter], Linter]:
    """Register a linter with examples of what it refuses: (kind, change, text), or several that go together."""

    def register(linter: Linter) -> Linter:
        EXAMPLES[linter] = [
            Project(tuple(Script(*s) for s in (example if isinstance(example, list) else [example]))) for example in examples
        ]
        return linter

    return register


PATH = "SET search_path = backend, pg_catalog, pg_temp\n"


def function(
    name: str = "api.thing_get",
    header: str = f"LANGUAGE plpgsql STABLE SECURITY DEFINER\n{PATH}",
    body: str = "RETURN 'x';",
    comment: str | None = "A thing. Raises nothing of its own.",
    arguments: str = "",
) -> str:
    """A function as it should be, for examples that change one thing."""
    made = f"CREATE FUNCTION {name}({arguments}) RETURNS text\n{header}AS $$\nBEGIN\n    {body}\nEND;\n$$;\n"
    return made if comment is None else f"{made}COMMENT ON FUNCTION {name}({arguments}) IS '{comment}';\n"


# The shape of a script


@refuses(
    ("deploy", "api/things", "-- Deploy galaxy-backend:api/thing to pg\n"),
    ("deploy", "api/things", "-- Deploy galaxy-backend:api/things from pg\n"),
    ("revert", "api/things", "-- Deploy galaxy-backend:api/things to pg\n"),
    ("verify", "api/things", "BEGIN;\n"),
)
def first_line_names_the_change(script: Script, _: Project) -> Iterator[str]:
    expected = f"-- {script.kind.title()} {PROJECT}:{script.change} {TAILS[script.kind]} pg"
    if script.text.split("\n", 1)[0] != expected:
        yield f"the first line must be: {expected}"


@refuses(
    ("deploy", "api/things", "SELECT 1;\nBEGIN;\nSET LOCAL ROLE backend_owner;\nCOMMIT;"),
    ("deploy", "api/things", "BEGIN;\nSET LOCAL ROLE backend_owner;\nROLLBACK;"),
    ("deploy", "api/things", "BEGIN;\nSET LOCAL ROLE backend_owner;\nCOMMIT;\nSELECT 1;"),
    ("deploy", "api/things", "BEGIN;\nSET LOCAL ROLE backend_owner;\nCOMMIT;\nBEGIN;\nCOMMIT;"),
    ("deploy", "api/things", "SET LOCAL ROLE backend_owner;\nCREATE TABLE backend.x ();"),
    ("revert", "api/things", "BEGIN;\nSET LOCAL ROLE backend_owner;\nDROP TABLE backend.x;"),
    ("verify", "api/things", "BEGIN;\nDO $$ BEGIN ASSERT true; END; $$;\nCOMMIT;"),
)
def one_transaction(script: Script, _: Project) -> Iterator[str]:
    """Everything between BEGIN and COMMIT (a verify: ROLLBACK). To revert the queue takes several."""
    found = statements(script.text)
    if script.change in QUEUE and script.kind == "revert":
        found = [s for s in found if s != "SET client_min_messages = warning"]
    last = "ROLLBACK" if script.kind == "verify" else "COMMIT"
    controls = [s for s in found if s in ("BEGIN", "COMMIT", "ROLLBACK")]
    if found[:1] != ["BEGIN"] or found[-1:] != [last]:
        yield f"must begin with BEGIN; and end with {last};"
    if controls != ["BEGIN", last]:
        yield "must be one transaction"


@refuses(
    ("deploy", "api/things", "BEGIN;\nCREATE TABLE backend.x ();\nCOMMIT;"),
    ("deploy", "api/things", "BEGIN;\nCREATE TABLE backend.x ();\nSET LOCAL ROLE backend_owner;\nCOMMIT;"),
    ("deploy", "api/things", "BEGIN;\nSET ROLE backend_owner;\nCOMMIT;"),
    ("deploy", "api/things", "BEGIN;\nSET LOCAL ROLE backend_owner;\nRESET ROLE;\nCOMMIT;"),
)
def owner_makes_everything(script: Script, _: Project) -> Iterator[str]:
    """The owner does, from the first statement on; there is none before the roles, and it cannot make schemas."""
    if script.kind == "deploy" and script.change not in ("backend/roles", "backend/schemas"):
        found = statements(script.text)
        if found[1:2] != ["SET LOCAL ROLE backend_owner"]:
            yield "the first statement after BEGIN must be SET LOCAL ROLE backend_owner"
        if any(re.match(r"(RE)?SET (LOCAL |SESSION )?ROLE", s) for s in found[2:]):
            yield "the role must stay the owner's"


@refuses(
    [("deploy", "api/things", "-- Deploy galaxy-backend:api/things to pg\n-- requires: backend/errors\n")],
    [("deploy", "api/things", "-- Deploy galaxy-backend:api/things to pg\n")],
)
def requirements_are_the_plans(script: Script, project: Project) -> Iterator[str]:
    if script.kind == "deploy":
        said = re.findall(r"^-- requires: (\S+)$", script.text, re.MULTILINE)
        planned = project.requires.get(script.change, ["backend/states"])
        if said != planned:
            yield f"says that it requires {said}, the plan says {planned}"


@refuses(
    [
        ("deploy", "backend/things", "BEGIN;\nCREATE TABLE backend.things ();\nCOMMIT;"),
        ("deploy", "api/things", "BEGIN;\n" + function(body="RETURN (SELECT t FROM things AS t);") + "COMMIT;"),
    ],
    [
        ("deploy", "backend/things", "BEGIN;\n" + function("backend.thing_json") + "COMMIT;"),
        ("deploy", "api/things", "BEGIN;\n" + function(body="RETURN thing_json();") + "COMMIT;"),
    ],
)
def requirements_are_enough(script: Script, project: Project) -> Iterator[str]:
    """What a change names was made by itself or by a change that it requires, directly or through others."""
    if script.kind != "deploy":
        return
    available = reached(script.change, {change: set(names) for change, names in project.requires.items()})
    words = {token.text for text in [script.outside, *script.bodies] for token in tokens(text) if token.kind == "word"}
    for other in project.scripts:
        if other.kind == "deploy" and other.change not in available and other.schema == "backend":
            for name in _made(other, "TABLE|VIEW|DOMAIN"):
                if name.split(".")[1] in words - _made_names(script):
                    yield f"uses {name} of {other.change}, which it does not require"
    for made in project.functions_of(script):
        for callee in project.calls[made.full_name]:
            makers = {f.change for f in project.functions if f.full_name == callee}
            if not makers & available:
                yield f"{made.full_name} calls {callee} of {', '.join(sorted(makers))}, which it does not require"


def _made(script: Script, kinds: str) -> list[str]:
    return re.findall(rf"\bCREATE (?:OR REPLACE )?(?:UNLOGGED )?(?:{kinds}) (\w+\.\w+)", script.code)


def _made_names(script: Script) -> set[str]:
    return {name.split(".")[1] for name in _made(script, "TABLE|VIEW|DOMAIN|TYPE|FUNCTION")}


@refuses(
    ("deploy", "api/things", "begin;\n"),
    ("deploy", "api/things", function(body="select 'x';")),
    ("deploy", "api/things", "CREATE TABLE backend.x (a integer not null);"),
    ("revert", "api/things", "drop table backend.x;"),
)
def keywords_are_uppercase(script: Script, _: Project) -> Iterator[str]:
    for text in [script.outside, *script.bodies]:
        for token in tokens(text):
            if token.kind == "word" and token.text in _KEYWORDS:
                yield f"{token.text} must be {token.text.upper()}"


_KEYWORDS = frozenset(
    re.findall(
        r"\w+",
        "add after all alter and any as asc before begin by case check column comment commit constraint create cross "
        "declare default delete desc distinct do domain drop each else elsif end except exception execute exists exit "
        "for foreach foreign from full function grant group having if immutable in index inner insert intersect into is "
        "join key lateral like limit loop materialized not notify null nulls of on only or order outer over partition "
        "perform primary procedure raise references reset return returning returns revoke rollback row schema security "
        "select set stable strict table temporary then to truncate union unique update using values view volatile when "
        "where while with ",
    )
)


@refuses(
    ("deploy", "api/things", "BEGIN;\n\tSELECT 1;"), ("deploy", "api/things", "BEGIN; \nCOMMIT;"), ("deploy", "a/b", "BEGIN;")
)
def layout(script: Script, _: Project) -> Iterator[str]:
    if "\t" in script.text:
        yield "has a tab"
    if re.search(r"[ \r]$", script.text, re.MULTILINE):
        yield "has a space at the end of a line"
    if not script.text.endswith(";\n") and not re.search(r"\\ir .*\n\Z", script.text):
        yield "does not end with a statement and a line break"


# Functions


_HEADER = re.compile(
    r"""
    (?:RETURNS\ (?:TABLE\ \(.*?\)|(?:SETOF\ )?[\w.\[\]]+)\n)?
    LANGUAGE\ (?:sql|plpgsql)\ (?:IMMUTABLE|STABLE|VOLATILE)\ SECURITY\ (?:INVOKER|DEFINER)\n
    (?P<path>SET\ search_path\ =\ backend,\ (?:procrastinate,\ )?pg_catalog,\ pg_temp\n)?
    (?:SET\ (?:enable_\w+|plan_cache_mode|jit)\ =\ \w+\n)*
    (?P<as>AS\ )?
    """,
    re.VERBOSE | re.DOTALL,
)


@refuses(
    ("deploy", "api/things", function(header="LANGUAGE plpgsql STABLE SECURITY DEFINER\n")),
    ("deploy", "api/things", function(header="LANGUAGE plpgsql STABLE\n" + PATH)),
    (
        "deploy",
        "api/things",
        function(header="LANGUAGE plpgsql SECURITY DEFINER\n" + PATH),
    ),
    (
        "deploy",
        "api/things",
        function(header="STABLE LANGUAGE plpgsql SECURITY DEFINER\n" + PATH),
    ),
    ("deploy", "api/things", function(header="LANGUAGE plpgsql STABLE SECURITY DEFINER\nSET search_path = backend\n")),
    (
        "deploy",
        "api/things",
        function(header="LANGUAGE plpgsql STABLE SECURITY DEFINER\nSET search_path = public, backend, pg_catalog, pg_temp\n"),
    ),
    ("deploy", "api/things", function(header="LANGUAGE plpgsql STABLE SECURITY DEFINER\n" + PATH + "SET role = none\n")),
    (
        "deploy",
        "backend/things",
        "CREATE FUNCTION backend.x() RETURNS text\nLANGUAGE sql STABLE SECURITY INVOKER\nAS $$ SELECT 'x' $$;",
    ),
    (
        "deploy",
        "backend/things",
        "CREATE FUNCTION backend.x() RETURNS text\nLANGUAGE sql STABLE SECURITY INVOKER\nAS 'SELECT 1';",
    ),
)
def header_is_complete(script: Script, project: Project) -> Iterator[str]:
    """Language, volatility, security, search path, planning, in this order. A body that is bound when made needs no path."""
    if script.kind != "deploy":
        return
    made = project.functions_of(script)
    if len(made) != len(re.findall(r"\bCREATE (?:OR REPLACE )?(?:FUNCTION|PROCEDURE)\b", script.code)):
        yield "has a function that is not written like the others"
    for found in made:
        header = _HEADER.fullmatch(found.header.lstrip())
        if header is None:
            yield f"{found.full_name}: the header is not complete, or not in order"
        elif found.body.startswith("$$") != bool(header["as"]) or bool(header["as"]) != bool(header["path"]):
            yield f"{found.full_name}: a body in dollar quotes needs a search path, and no other does"


@refuses(
    (
        "deploy",
        "api/things",
        function(header="LANGUAGE plpgsql STABLE SECURITY INVOKER\n" + PATH),
    ),
    ("deploy", "api/things", "CREATE FUNCTION api.x() RETURNS text\nLANGUAGE sql STABLE SECURITY DEFINER\nRETURN 'x';"),
    ("deploy", "backend/things", function("backend.thing_json")),
    ("deploy", "api/things", function("worker.thing_get")),
)
def doors_are_definers_and_helpers_are_not(script: Script, project: Project) -> Iterator[str]:
    for made in project.functions_of(script):
        if made.schema != script.schema:
            yield f"{made.full_name} belongs in a change {made.schema}/…"
        # A table that others write too has a trigger that needs more rights than they have.
        is_trigger_of_the_queue = made.full_name == "backend.tg_procrastinate_jobs__wake"
        if (made.schema in DOORS or is_trigger_of_the_queue) != ("SECURITY DEFINER" in made.header):
            yield f"{made.full_name}: functions of a door are SECURITY DEFINER, and no helper is"
        if made.schema in DOORS and "LANGUAGE plpgsql" not in made.header:
            yield f"{made.full_name}: functions of a door are in PL/pgSQL"


_ENQUEUING = "LANGUAGE plpgsql VOLATILE SECURITY DEFINER\nSET search_path = backend, procrastinate, pg_catalog, pg_temp\n"


@refuses(
    ("deploy", "api/things", function(header=_ENQUEUING)),
    ("deploy", "worker/things", function("worker.thing_purge", body="DELETE FROM procrastinate_jobs;")),
)
def queue_is_on_the_path_of_those_who_use_it(script: Script, project: Project) -> Iterator[str]:
    """Of whoever names what is in it; besides, only of those who enqueue through a helper."""
    for made in project.functions_of(script):
        names_it = re.search(r"\bprocrastinate_\w+", without_comments(made.body)) is not None
        if names_it and "procrastinate," not in made.header:
            yield f"{made.full_name} uses the queue without procrastinate on its path"
        if "procrastinate," in made.header and not names_it and "backend.job_defer" not in reached(made.full_name, project.calls):
            yield f"{made.full_name} has procrastinate on its path and enqueues nothing"


@refuses(
    ("deploy", "api/things", function(comment=None)),
    ("deploy", "api/things", function(comment="A thing.")),
    ("deploy", "api/things", function(body="PERFORM fail(404, 'thing_not_found', 'x');")),
    ("deploy", "api/things", function(comment="A thing. GX404 thing_not_found.")),
    ("deploy", "api/things", function(body="PERFORM fail(404, 'a', 'x');", comment="A thing. GX404 b.")),
    ("deploy", "api/things", function(body="PERFORM fail(404, 'a', 'x');", comment="A thing. GX403 a.")),
    ("deploy", "api/things", function(body="PERFORM fail(404, 'a', 'x');", comment="Returns 404 a.")),
    ("deploy", "api/things", function(body="RETURN refusal(400, 'a', 'x');", comment="A thing. GX400 a.")),
    [
        ("deploy", "backend/things", function("backend.thing_require", body="PERFORM fail(404, 'thing_not_found', 'x');")),
        ("deploy", "api/things", function(body="PERFORM thing_require();")),
    ],
    ("deploy", "api/things", function(body="PERFORM fail(404, 'a', 'x');", comment="GX404 a. Raises nothing of its own.")),
)
def comments_name_the_codes(script: Script, project: Project) -> Iterator[str]:
    """One sentence, then exactly the codes that the function refuses with, by itself or through what it calls."""
    for made in project.functions_of(script) if script.schema in DOORS else ():
        real, promised = project.codes[made.full_name], made.promised()
        if not made.comment:
            yield f"{made.full_name} has no comment"
        for code in sorted(real - promised):
            yield f"{made.full_name} refuses with {code.status} {code.code}, which its comment does not name"
        # What a guard gives as a reason, and what a constraint stands for, may be met or not: the comment knows.
        for code in sorted(promised - real - project.possible[made.full_name]):
            yield f"{made.full_name} never refuses with {code.status} {code.code}"
        says_nothing = "Raises nothing of its own." in made.comment
        if says_nothing == bool(real) and not re.search(r"\b[0-9A-Z]{5} (?:for|when)\b", made.comment):
            yield f"{made.full_name}: the comment must name codes, or say: Raises nothing of its own."


# What bodies may not do


@refuses(("deploy", "api/things", function(body="NULL;\nEXCEPTION WHEN OTHERS THEN\n    NULL;")))
def nothing_swallows_errors(script: Script, _: Project) -> Iterator[str]:
    if any(re.search(r"\bWHEN\s+OTHERS\b", body, re.IGNORECASE) for body in script.bodies):
        yield "has WHEN OTHERS"


@refuses(
    ("deploy", "api/things", function(body="PERFORM FROM things FOR UPDATE;")),
    ("deploy", "api/things", function(body="DELETE FROM a;\n    PERFORM FROM things FOR UPDATE;")),
)
def locks_are_no_stronger_than_needed(script: Script, _: Project) -> Iterator[str]:
    """FOR NO KEY UPDATE; FOR UPDATE only in the statement that deletes the rows."""
    for body in script.bodies:
        for statement in body.split(";"):
            if re.search(r"\bFOR UPDATE\b", statement) and not re.search(r"\bDELETE FROM\b", statement):
                yield "locks FOR UPDATE what it does not delete"


_BOUND = """CREATE FUNCTION backend.thing_end() RETURNS void
LANGUAGE sql VOLATILE SECURITY INVOKER
BEGIN ATOMIC
    {};
END;
COMMENT ON FUNCTION backend.thing_end() IS 'The end.';
"""


@refuses(
    ("deploy", "backend/things", _BOUND.format("UPDATE backend.things AS t SET is_over = true")),
    ("deploy", "backend/things", _BOUND.format("DELETE FROM backend.things AS t WHERE t.is_over")),
)
def what_is_bound_is_dumped_alike(script: Script, _: Project) -> Iterator[str]:
    """Postgres writes docs/schema.sql, and the other name of what a bound body changes as its minor version has it."""
    bound = (rest.partition("\nEND;")[0] for rest in script.outside.split("BEGIN ATOMIC")[1:])
    if any(re.search(r"\b(?:UPDATE|DELETE FROM|INSERT INTO) [\w.]+ AS\b", body) for body in bound):
        yield "gives another name to what a body changes that is bound when it is made"


@refuses(
    ("deploy", "api/things", function(body="EXECUTE 'SELECT 1';")),
    ("deploy", "api/things", function(body="RETURN QUERY EXECUTE format('SELECT %I', 'x');")),
)
def no_sql_is_built(script: Script, _: Project) -> Iterator[str]:
    """Except for the roles, of which there are several, the invariants, which find their views in the catalog, and the deletion
    of accounts, which finds its tables in what the areas have declared."""
    if script.change not in ("backend/roles", "backend/invariants", "backend/account_deletion") and any(
        re.search(r"\bEXECUTE\b(?! (?:FUNCTION|PROCEDURE|ON)\b)", body) for body in script.bodies
    ):
        yield "has a dynamic EXECUTE"


@refuses(
    ("deploy", "backend/things", "CREATE TABLE backend.things (at timestamptz DEFAULT now());"),
    ("deploy", "api/things", function(body="RETURN now();")),
    ("deploy", "api/things", function(body="RETURN current_timestamp;")),
    ("deploy", "api/things", function(body="RETURN clock_timestamp();")),
    ("deploy", "api/things", function(body="RETURN pg_catalog.now();")),
)
def time_is_the_platforms(script: Script, _: Project) -> Iterator[str]:
    """backend.now(), except where the clock is made, the stream's epoch, and the job queue, whose times are the server's."""
    if script.kind == "deploy" and script.change not in ("backend/clock", "worker/jobs", *QUEUE):
        text = "\n".join([script.outside, *script.bodies])
        if script.change == "backend/push":
            text = text.replace("extract(epoch FROM clock_timestamp())", "")
        if script.change == "api/service":
            text = text.replace("w.last_heartbeat > transaction_timestamp()", "")
        for found in re.findall(
            r"(?<!backend\.)\b(?:now|clock_timestamp|statement_timestamp|transaction_timestamp|timeofday)\(\)"
            r"|\b(?:current_timestamp|current_date|current_time|localtime|localtimestamp)\b",
            text,
            re.IGNORECASE,
        ):
            yield f"asks {found}, not backend.now()"


@refuses(
    ("deploy", "api/things", function(body="NOTIFY galaxy, 'x';")),
    ("deploy", "api/things", function(body="PERFORM pg_notify('galaxy', 'x');")),
)
def notifications_carry_nothing(script: Script, _: Project) -> Iterator[str]:
    text = "\n".join([script.outside, *script.bodies])
    # Procrastinate's workers are told in its own words.
    if script.change != "worker/jobs" and re.search(r"\bNOTIFY \w+\s*,|\bpg_notify\b", text):
        yield "notifies with a payload"


# Verify and revert


@refuses(
    ("verify", "api/things", "BEGIN;\nSELECT false;\nROLLBACK;"),
    ("verify", "api/things", "BEGIN;\nSELECT count(*) = 1 FROM backend.things;\nROLLBACK;"),
    ("verify", "api/things", "BEGIN;\nDO $$ BEGIN PERFORM 1; END; $$;\nROLLBACK;"),
    ("verify", "api/things", "BEGIN;\nSELECT FROM backend.things WHERE false;\nROLLBACK;"),
)
def verify_can_fail(script: Script, _: Project) -> Iterator[str]:
    """By an ASSERT, or by selecting columns by their names; a SELECT that answers false passes."""
    if script.kind != "verify":
        return
    columns = r"SELECT (\w+(?:\.\w+)?(?:,\s*)?)+\s+FROM \w+\.\w+ WHERE false"
    outside = [s for s in statements(script.text) if s.startswith("SELECT")]
    if not any(re.search(r"\bASSERT\b", body) for body in script.bodies) and not any(re.fullmatch(columns, s) for s in outside):
        yield "cannot fail: it has no ASSERT and selects no column"
    for statement in outside:
        if not re.fullmatch(columns, statement):
            yield f"passes whatever this says: {statement.split(chr(10))[0]}"


_THING = ("deploy", "backend/things", "CREATE TABLE backend.things (a integer);\n" + function("backend.thing_json"))


@refuses(
    [_THING, ("verify", "backend/things", "SELECT a FROM backend.things WHERE false;")],
    [_THING, ("verify", "backend/things", "SELECT backend.thing_json();")],
    [_THING, ("verify", "backend/things", "-- backend.things, backend.thing_json()\n")],
    [_THING, ("verify", "backend/things", "SELECT a FROM backend.things_of_others, backend.thing_json();")],
)
def verify_looks_at_everything(script: Script, project: Project) -> Iterator[str]:
    deploy = project.deploy_of(script.change)
    if script.kind == "verify" and deploy is not None:
        for name in dict.fromkeys(_made(deploy, "TABLE|VIEW|FUNCTION|TYPE|DOMAIN")):
            if not re.search(rf"(?<![\w.]){re.escape(name)}\b", script.code):
                yield f"does not look at {name}"


@refuses(
    [_THING, ("revert", "backend/things", "DROP TABLE backend.things;")],
    [_THING, ("revert", "backend/things", "DROP FUNCTION backend.thing_json();\nDROP TABLE IF EXISTS backend.things;")],
    [
        _THING,
        (
            "revert",
            "backend/things",
            "DROP TABLE backend.things;\nDROP FUNCTION backend.thing_json();\nDROP TABLE backend.others;",
        ),
    ],
)
def revert_takes_away_what_was_made(script: Script, project: Project) -> Iterator[str]:
    """All of it, nothing else, and not IF EXISTS, which would pass over what is missing."""
    deploy = project.deploy_of(script.change)
    if script.kind == "revert" and deploy is not None and script.change not in QUEUE:
        made = set(_made(deploy, "TABLE|VIEW|FUNCTION|TYPE|DOMAIN"))
        dropped = set(re.findall(r"\bDROP (?:TABLE|VIEW|FUNCTION|TYPE|DOMAIN) (\w+\.\w+)", script.code))
        for name in sorted(made - dropped):
            yield f"does not drop {name}"
        for name in sorted(dropped - made):
            yield f"drops {name}, which is another change's"
        if re.search(r"\bDROP (?:TABLE|VIEW|FUNCTION|TYPE|DOMAIN|SCHEMA) IF EXISTS\b", script.code):
            yield "drops IF EXISTS"


@refuses(("revert", "backend/things", "DROP TABLE backend.things CASCADE;"))
def revert_takes_nothing_else_with_it(script: Script, _: Project) -> Iterator[str]:
    if script.kind == "revert" and script.change not in QUEUE and re.search(r"\bCASCADE\b", script.code):
        yield "drops with CASCADE"


@refuses(
    [
        ("deploy", "backend/things", "INSERT INTO backend.state_transitions (machine) VALUES ('thing'), ('other');"),
        ("revert", "backend/things", "DELETE FROM backend.state_transitions WHERE machine = 'thing';"),
    ],
    [
        ("deploy", "backend/things", "INSERT INTO backend.settings VALUES ('thing_ttl', 1, 1, 1, 'count', '-');"),
        ("revert", "backend/things", "DELETE FROM backend.settings WHERE setting_name = 'thing_tt';"),
    ],
)
def revert_takes_back_facts(script: Script, project: Project) -> Iterator[str]:
    """The first word of each row that a deploy adds to a table of another change is in the revert."""
    deploy = project.deploy_of(script.change)
    if script.kind == "revert" and deploy is not None:
        for statement in statements(deploy.text):
            table = re.match(r"INSERT INTO (\w+\.\w+)", statement)
            if table and table[1] not in _made(deploy, "TABLE"):
                for word in dict.fromkeys(re.findall(r"(?:VALUES|,)\s*\(\s*'(\w+)'", statement)):
                    if f"'{word}'" not in script.code:
                        yield f"leaves {word} in {table[1]}"


# The tests


@cache
def read_project() -> Project:
    plan = re.findall(r"^(\w+/\w+) (?:\[([^\]]*)\] )?\d{4}-", (ROOT / "sqitch.plan").read_text(), re.MULTILINE)
    return Project(
        scripts=tuple(
            Script(kind, path.relative_to(DB / kind).with_suffix("").as_posix(), path.read_text())
            for kind in TAILS
            for path in sorted((DB / kind).rglob("*.sql"))
        ),
        requires={change: requires.split() for change, requires in plan},
    )


def problems(linter: Linter, project: Project) -> list[str]:
    return [
        f"db/{script.kind}/{script.change}.sql: {problem}" for script in project.scripts for problem in linter(script, project)
    ]


@pytest.mark.parametrize("linter", EXAMPLES, ids=lambda linter: linter.__name__)
def test_scripts(linter: Linter) -> None:
    project = read_project()
    assert len(project.scripts) >= 3 * 27
    assert len(project.functions) >= 70
    found = problems(linter, project)
    if found:
        pytest.fail("\n".join(found), pytrace=False)


@pytest.mark.parametrize(
    "linter,example",
    [(linter, example) for linter, examples in EXAMPLES.items() for example in examples],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_linter_refuses_its_example(linter: Linter, example: Project) -> None:
    assert problems(linter, example)


def test_examples_are_wrong_in_one_thing_only() -> None:
    """What the examples are made from is right: only what they change is refused."""
    right = function()
    project = Project(
        (
            Script("deploy", "api/things", f"BEGIN;\nSET LOCAL ROLE backend_owner;\n{right}COMMIT;\n"),
            Script("verify", "api/things", "BEGIN;\nDO $$ BEGIN ASSERT api.thing_get() = 'x'; END; $$;\nROLLBACK;\n"),
            Script("revert", "api/things", "BEGIN;\nDROP FUNCTION api.thing_get();\nCOMMIT;\n"),
        ),
        {"api/things": []},
    )
    found = [problem for linter in EXAMPLES if linter is not first_line_names_the_change for problem in problems(linter, project)]
    assert found == []


def test_the_plan_names_every_script() -> None:
    project = read_project()
    for kind in TAILS:
        assert sorted(s.change for s in project.scripts if s.kind == kind) == sorted(project.requires)
