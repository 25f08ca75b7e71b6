#!/usr/bin/env python3
"""Print the path of a migration file of the installed Procrastinate package, if its SHA-256 is the expected one.

Usage: procrastinate_migration.py NAME SHA256. A Sqitch change runs this in backquotes and includes what it prints; on a
mismatch nothing is printed, the reason goes to stderr, and the include of an empty name stops the deploy.
"""

import hashlib
import importlib.util
import pathlib
import sys


def main() -> int:
    name, expected = sys.argv[1:]
    spec = importlib.util.find_spec("procrastinate")
    if spec is None or spec.origin is None:
        sys.stderr.write("procrastinate is not installed for this python3: put the .venv's bin first on the PATH\n")
        return 1
    path = pathlib.Path(spec.origin).parent / "sql" / "migrations" / name
    found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "no such file"
    if found != expected:
        sys.stderr.write(f"{name} is not the migration that this change was written for: {found}\n")
        return 1
    sys.stdout.write(str(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
