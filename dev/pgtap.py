"""pgTAP: `python -m dev.pgtap [FILE…]` runs the files, or all under pgtap/, against a throw-away cluster."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from app.supervisor import ROOT
from dev.cluster import Cluster, find_binaries, throw_away


def prove(cluster: Cluster, database: str, files: Sequence[str] = ()) -> tuple[int, str]:
    """Run pg_prove as the superuser and return its exit code and output.

    The database gets the extension in a schema `pgtap`, which everybody may use; the search path of the tests is
    `backend, pgtap`. One file goes after another: they move the one clock, and make the same people. No file at all,
    and a file that plans no test, are failures.
    """
    with cluster.connect(database) as connection:
        # Not in `public`, where its views would be something that our roles can read.
        connection.execute("CREATE SCHEMA IF NOT EXISTS pgtap")
        connection.execute("GRANT USAGE ON SCHEMA pgtap TO PUBLIC")
        connection.execute("CREATE EXTENSION IF NOT EXISTS pgtap SCHEMA pgtap")
    found = list(files) or sorted(str(path.relative_to(ROOT)) for path in (ROOT / "pgtap").rglob("*.sql"))
    if not found:
        return 1, "there is no pgTAP file\n"
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PG")}
    environment |= {
        "PGHOST": str(cluster.socket_directory),
        "PGPORT": str(cluster.port),
        "PGUSER": "postgres",
        "PGDATABASE": database,
        "PGOPTIONS": "-csearch_path=backend,pgtap",
        "PATH": f"{environment.get('PATH', os.defpath)}{os.pathsep}{find_binaries()}",
    }
    answer = subprocess.run(
        ["pg_prove", "--failures", "--comments", "--jobs=1", *found],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return answer.returncode, answer.stdout


def main(files: Sequence[str]) -> int:
    with throw_away() as cluster:
        cluster.create_database("galaxy")
        cluster.sqitch("galaxy", "deploy")
        code, output = prove(cluster, "galaxy", files)
    print(output, end="")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
