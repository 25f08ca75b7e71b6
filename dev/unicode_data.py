"""The facts of Unicode that race names are judged by: `/usr/bin/python3 -m dev.unicode_data [DIRECTORY]` writes them anew.

Needed only by whoever takes a newer Unicode. Reads Debian's package unicode-data, and asks ICU (python3-icu) for normal forms
and skeletons; both must be of one Unicode version. What is written, tab-separated and in UTF-8, is what `load.sql` loads:

    case_foldings.tsv       codepoint, folding: full case folding (CaseFolding.txt, status C and F)
    confusables.tsv         codepoint, skeleton: of Unicode TS 39, for what a name can contain once it is folded
    default_ignorables.tsv  first, last: Default_Ignorable_Code_Point (DerivedCoreProperties.txt)
    name_characters.tsv     first, last, kind, scripts: letters, marks and digits (UnicodeData.txt) with their scripts
                            (Scripts.txt, ScriptExtensions.txt), augmented as TS 39 has it; {} for those of every script
    unicode_version.tsv     data_version, unicode_version, icu_version: the first names all of the above by a digest
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SOURCE = Path("/usr/share/unicode")
TARGET = Path(__file__).resolve().parent.parent / "db" / "data" / "unicode"
FILES = ("case_foldings.tsv", "confusables.tsv", "default_ignorables.tsv", "name_characters.tsv")
VERSION = "unicode_version.tsv"

SEPARATORS = " -'."
KINDS = {"L": "letter", "Mn": "mark", "Mc": "mark", "Nd": "digit"}
# Scripts that are written together: Unicode TS 39, 5.1, augmented script sets.
TOGETHER = {
    "Han": {"Hanb", "Jpan", "Kore"},
    "Hiragana": {"Jpan"},
    "Katakana": {"Jpan"},
    "Hangul": {"Kore"},
    "Bopomofo": {"Hanb"},
}
EVERYWHERE = {"Common", "Inherited"}

Characters = dict[int, tuple[str, frozenset[str]]]


def digest(directory: Path) -> str:
    """Return what tells these data from others."""
    whole = hashlib.sha256()
    for name in FILES:
        whole.update((directory / name).read_bytes())
    return whole.hexdigest()[:12]


def fields(name: str) -> Iterator[list[str]]:
    """Return the fields of each line of a file of the Unicode Character Database, without comments."""
    for line in (SOURCE / name).read_text(encoding="utf-8").splitlines():
        data = line.partition("#")[0]
        if data.strip():
            yield [field.strip() for field in data.split(";")]


def code_points(field: str) -> range:
    first, _, last = field.partition("..")
    return range(int(first, 16), int(last or first, 16) + 1)


def unicode_version() -> str:
    """Return the version of the database's files; all must have the same."""
    found: set[str] = set()
    for name in ("CaseFolding", "DerivedCoreProperties", "Scripts", "ScriptExtensions"):
        line = (SOURCE / f"{name}.txt").read_text(encoding="utf-8").split("\n", 1)[0]
        found |= set(re.findall(rf"# {name}-([0-9.]+)\.txt", line))
    if len(found) != 1:
        raise SystemExit(f"the files in {SOURCE} are not of one version: {sorted(found)}")
    return found.pop()


def read_foldings() -> dict[int, str]:
    return {
        int(code, 16): "".join(chr(int(part, 16)) for part in folding.split())
        for code, status, folding, *_ in fields("CaseFolding.txt")
        if status in "CF"
    }


def read_ignorables() -> set[int]:
    return {
        point
        for code, name, *_ in fields("DerivedCoreProperties.txt")
        if name == "Default_Ignorable_Code_Point"
        for point in code_points(code)
    }


def read_categories() -> dict[int, str]:
    """Return the general category of each code point; some ranges are given by their first and last only."""
    found: dict[int, str] = {}
    first = 0
    for code, name, category, *_ in fields("UnicodeData.txt"):
        point = int(code, 16)
        if name.endswith(", First>"):
            first = point
        elif name.endswith(", Last>"):
            found |= dict.fromkeys(range(first, point + 1), category)
        else:
            found[point] = category
    return found


def read_scripts() -> dict[int, set[str]]:
    """Return Script_Extensions by long names."""
    names = {short: long for prop, short, long, *_ in fields("PropertyValueAliases.txt") if prop == "sc"}
    found = {point: {script} for code, script, *_ in fields("Scripts.txt") for point in code_points(code)}
    for code, extensions, *_ in fields("ScriptExtensions.txt"):
        found |= {point: {names[short] for short in extensions.split()} for point in code_points(code)}
    return found


def read_characters(ignorables: set[int]) -> Characters:
    """Return kind and augmented scripts of each letter, mark and digit that can be seen."""
    scripts = read_scripts()
    found: Characters = {}
    for point, category in read_categories().items():
        kind = KINDS.get(category) or KINDS.get(category[0])
        if kind is not None and point not in ignorables:
            own = scripts.get(point, {"Unknown"})
            both = set() if own & EVERYWHERE else own.union(*(TOGETHER.get(script, set()) for script in own))
            found[point] = kind, frozenset(both)
    return found


def ranges(points: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Return the first and the last of each run of neighbours."""
    first = last = -2
    for point in sorted(points):
        if point != last + 1:
            if last >= 0:
                yield first, last
            first = point
        last = point
    if last >= 0:
        yield first, last


def write(directory: Path, name: str, rows: Iterable[Iterable[object]]) -> None:
    """Write a file as COPY reads it."""
    lines = ("\t".join(str(value).replace("\\", "\\\\") for value in row) + "\n" for row in rows)
    (directory / name).write_text("".join(lines), encoding="utf-8")


def main(directory: Path) -> int:
    import icu

    version = unicode_version()
    if not version.startswith(f"{icu.UNICODE_VERSION}."):
        raise SystemExit(f"the files are of Unicode {version}, ICU {icu.ICU_VERSION} knows {icu.UNICODE_VERSION}")
    compatible, apart = icu.Normalizer2.getNFKCInstance(), icu.Normalizer2.getNFDInstance()
    checker = icu.SpoofChecker()
    foldings, ignorables = read_foldings(), read_ignorables()
    characters = read_characters(ignorables)

    # Every character that there is once a name has been normalised, folded and taken apart.
    folded = set(SEPARATORS)
    for point in characters:
        folded |= set(apart.normalize("".join(foldings.get(ord(c), c) for c in compatible.normalize(chr(point)))))
    skeletons = {ord(c): checker.getSkeleton(0, c) for c in folded}

    by_kind: dict[tuple[str, frozenset[str]], set[int]] = {}
    for point, what in characters.items():
        by_kind.setdefault(what, set()).add(point)

    directory.mkdir(parents=True, exist_ok=True)
    write(directory, "case_foldings.tsv", sorted(foldings.items()))
    write(directory, "confusables.tsv", sorted((p, s) for p, s in skeletons.items() if s != chr(p)))
    write(directory, "default_ignorables.tsv", ranges(ignorables))
    write(
        directory,
        "name_characters.tsv",
        sorted((*r, kind, f"{{{','.join(sorted(s))}}}") for (kind, s), points in by_kind.items() for r in ranges(points)),
    )
    data_version = f"unicode-{version} icu-{icu.ICU_VERSION} {digest(directory)}"
    write(directory, VERSION, [(data_version, version, icu.ICU_VERSION)])
    print(f"written to {directory}: {data_version}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET))
