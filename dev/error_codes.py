"""The codes that the database refuses with: read from db/deploy, written to docs/error_codes.md.

`python -m dev.error_codes` writes the file. The SQL itself is read, not a database: a function's body says what it
raises (`fail(404, 'session_not_found', …)`) or returns (`refusal(…)`), and what it calls raises more.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "db" / "deploy"
DOCUMENT = ROOT / "docs" / "error_codes.md"
DOORS = ("api", "worker", "push")

_TOKEN = re.compile(
    r"""
    (?P<comment> --[^\n]* )
  | (?P<string>  (?: \b[Ee]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' ) )
  | (?P<dollar>  (?P<tag>\$\w*\$).*?(?P=tag) )
  | (?P<psql>    ^\\[^\n]* )
  | (?P<quoted>  "(?:[^"]|"")*" )
  | (?P<word>    [A-Za-z_]\w* )
  | (?P<number>  \d+(?:\.\d+)? )
  | (?P<space>   \s+ )
  | (?P<sign>    . )
    """,
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_FUNCTION = re.compile(
    r"CREATE (?:OR REPLACE )?FUNCTION (?P<schema>\w+)\.(?P<name>\w+)\((?P<arguments>.*?)\)\s"
    r"(?=RETURNS|LANGUAGE)(?P<header>.*?)(?P<body>\$\$.*\$\$|\bRETURN\b.*|\bBEGIN ATOMIC\b.*)\Z",
    re.DOTALL,
)
_COMMENT = re.compile(r"COMMENT ON FUNCTION (?P<schema>\w+)\.(?P<name>\w+)\(.*?\) IS\s+'(?P<text>(?:[^']|'')*)'", re.DOTALL)
_REFUSAL = re.compile(r"\b(?P<how>fail|refusal)\(\s*(?P<status>\d{3}),\s*'(?P<code>\w+)'(?:,\s*'(?P<detail>(?:[^']|'')*)')?")
_CONSTRAINT_ERROR = re.compile(r"\(\s*'(?P<name>\w+)',\s*(?P<status>\d{3}),\s*'(?P<code>\w+)',\s*'(?P<detail>(?:[^']|'')*)'")
_PROMISED = re.compile(r"GX(\d{3}) (\w+(?:, [a-z]\w*)*)")
_RETURNED = re.compile(r"\bReturns (\d{3} [^.]*)\.")


class Token(NamedTuple):
    """A piece of SQL: its kind (comment, string, dollar, psql, quoted, word, number, space or sign) and text."""

    kind: str
    text: str


class Code(NamedTuple):
    """A way to refuse: the HTTP status, the code, and whether it is returned rather than raised."""

    status: int
    code: str
    is_returned: bool


@dataclass(frozen=True)
class Function:
    """A function as its deploy script makes it; `comment` is empty where there is none."""

    change: str
    schema: str
    name: str
    arguments: str
    header: str
    body: str
    comment: str

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    def codes(self) -> dict[Code, str]:
        """What the body itself refuses with, and the sentences for people that go with it (or empty)."""
        return {
            Code(int(found["status"]), found["code"], found["how"] == "refusal"): _unquote(found["detail"] or "")
            for found in _REFUSAL.finditer(without_comments(self.body))
        }

    def reasons(self) -> set[Code]:
        """What a guard's body gives as the reason of a refusal; which of them its callers can meet, it does not say."""
        return {
            Code(int(status), code, False) for status, code in re.findall(r"ROW\((\d{3}), '(\w+)'", without_comments(self.body))
        }

    def promised(self) -> set[Code]:
        """What the comment says that it refuses with."""
        raised = {
            Code(int(status), code, False) for status, codes in _PROMISED.findall(self.comment) for code in codes.split(", ")
        }
        returned = {
            Code(int(status), code, True)
            for sentence in _RETURNED.findall(self.comment)
            for status, codes in re.findall(r"(\d{3}) ([a-z]\w*(?:, [a-z]\w*)*)", sentence)
            for code in codes.split(", ")
        }
        return raised | returned


def tokens(text: str) -> Iterator[Token]:
    """Split SQL; joined again, the tokens are the text."""
    for found in _TOKEN.finditer(text):
        yield Token(found.lastgroup or "", found[0])


def statements(text: str) -> list[str]:
    """Split a script at its semicolons, without comments; those inside a body do not count."""
    found: list[str] = []
    current: list[str] = []
    depth = 0  # of BEGIN ATOMIC … END, with the CASE … END inside it
    for kind, piece in tokens(text):
        if kind in ("comment", "psql"):
            continue
        current.append(piece)
        if kind == "word":
            if piece == "ATOMIC" or (depth and piece == "CASE"):
                depth += 1
            elif depth and piece == "END":
                depth -= 1
        elif piece == ";" and depth == 0:
            found.append("".join(current[:-1]).strip())
            current = []
    return [statement for statement in [*found, "".join(current).strip()] if statement]


def without_comments(text: str) -> str:
    """Drop comments, also those inside a dollar-quoted body."""
    return "".join(
        f"$${without_comments(piece[2:-2])}$$" if kind == "dollar" and piece.startswith("$$") else piece
        for kind, piece in tokens(text)
        if kind != "comment"
    )


def functions_of(change: str, text: str) -> list[Function]:
    """Return the functions that a deploy script makes, in its order."""
    comments: dict[tuple[str, str], str] = {}
    made: list[re.Match[str]] = []
    for statement in statements(text):
        if found := _COMMENT.match(statement):
            comments[found["schema"], found["name"]] = _unquote(found["text"])
        elif found := _FUNCTION.match(statement):
            made.append(found)
    return [
        Function(
            change=change,
            schema=found["schema"],
            name=found["name"],
            arguments=found["arguments"],
            header=found["header"],
            body=found["body"],
            comment=comments.get((found["schema"], found["name"]), ""),
        )
        for found in made
    ]


def read_functions(deploy: Path = DEPLOY) -> list[Function]:
    """Return all functions of the deploy scripts."""
    return [
        function
        for path in sorted(deploy.rglob("*.sql"))
        for function in functions_of(path.relative_to(deploy).with_suffix("").as_posix(), path.read_text())
    ]


def calls(functions: Iterable[Function]) -> dict[str, set[str]]:
    """Return which helpers each function calls itself, by full name.

    Inside a body a name without a schema is a helper's: the search path begins with `backend`.
    """
    functions = list(functions)
    helpers = {function.name for function in functions if function.schema == "backend"}
    called = re.compile(r"(?<![\w.])(?:backend\.)?(\w+)\(")
    return {
        function.full_name: {
            f"backend.{name}"
            for name in called.findall(without_comments(function.body))
            if name in helpers and f"backend.{name}" != function.full_name
        }
        for function in functions
    }


def reached(start: str, graph: Mapping[str, set[str]]) -> set[str]:
    """Return all that a function calls, through others too, and itself."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(graph.get(name, ()))
    return found


def all_codes(functions: Iterable[Function]) -> dict[str, set[Code]]:
    """Return what each function refuses with, by itself or through what it calls, by full name."""
    functions = list(functions)
    graph = calls(functions)
    own = {function.full_name: set(function.codes()) for function in functions}
    return {name: set().union(*(own.get(callee, set()) for callee in reached(name, graph))) for name in graph}


def possible_codes(functions: Iterable[Function]) -> dict[str, set[Code]]:
    """Return what each function may refuse with because of a guard that it asks, by full name."""
    functions = list(functions)
    graph = calls(functions)
    own = {function.full_name: function.reasons() for function in functions}
    return {name: set().union(*(own.get(callee, set()) for callee in reached(name, graph))) for name in graph}


def constraint_errors(deploy: Path = DEPLOY) -> list[tuple[str, Code, str]]:
    """Return the constraints that mean something to callers, with the code and the sentence."""
    return [
        (found["name"], Code(int(found["status"]), found["code"], False), _unquote(found["detail"]))
        for path in sorted(deploy.rglob("*.sql"))
        for statement in statements(path.read_text())
        if statement.startswith("INSERT INTO backend.constraint_errors")
        for found in _CONSTRAINT_ERROR.finditer(statement)
    ]


def document(deploy: Path = DEPLOY) -> str:
    """Return docs/error_codes.md for the scripts in `deploy`."""
    functions = read_functions(deploy)
    codes = all_codes(functions)
    possible = possible_codes(functions)
    sources: dict[tuple[int, str], set[str]] = {}
    sentences: dict[tuple[int, str], set[str]] = {}
    for function in functions:
        for code, sentence in function.codes().items():
            sentences.setdefault(code[:2], set()).add(sentence)
    for function in functions:
        if function.schema in DOORS or function.name.startswith("tg_"):
            for code in codes[function.full_name] | (possible[function.full_name] & function.promised()):
                sources.setdefault(code[:2], set()).add(f"`{function.full_name}`")
    for name, code, sentence in constraint_errors(deploy):
        sentences.setdefault(code[:2], set()).add(sentence)
        sources.setdefault(code[:2], set()).add(f"constraint `{name}`")
    lines = [
        "# Error codes of the database",
        "",
        "<!-- Generated from db/deploy by `make schema`; do not edit. -->",
        "",
        "A refusal is an SQLSTATE `GX` and the HTTP status, with the code as its message (or, where something must stay",
        "written, an answer with that status). Codes that the API itself makes, of requests that reach no function, are",
        "in `app/openapi/openapi.yaml`. A function refuses with what the functions that it calls refuse with.",
        "",
        "| status | code | says | from |",
        "| --- | --- | --- | --- |",
    ]
    for status, name in sorted(sources):
        says = " / ".join(sorted(filter(None, sentences.get((status, name), ())))) or "(says what was refused)"
        lines.append(f"| {status} | `{name}` | {says} | {', '.join(sorted(sources[status, name]))} |")
    return "\n".join(lines) + "\n"


def _unquote(text: str) -> str:
    return text.replace("''", "'")


def main() -> int:
    DOCUMENT.write_text(document())
    print(f"written: {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
