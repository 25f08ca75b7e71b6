"""The deployed schema as text: `python -m dev.schema FILE` writes it, `dump` returns it.

Made by pg_dump from a throw-away cluster, less what changes from one machine or minor version to the next.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from dev.cluster import Cluster, find_binaries, throw_away

_HEADER = "-- Written by `make schema` from the deployed schema: do not edit.\n\n"
_NOISE = re.compile(r"^(?:--.*|\\(?:un)?restrict .*|SET .*|SELECT pg_catalog\.set_config\('search_path'.*)\n", re.MULTILINE)


def dump(cluster: Cluster, database: str) -> str:
    """Return the normalised dump of a database, without Sqitch's own tables."""
    answer = subprocess.run(
        [
            find_binaries() / "pg_dump",
            f"--host={cluster.socket_directory}",
            f"--port={cluster.port}",
            "--username=postgres",
            "--schema-only",
            "--exclude-schema=sqitch",
            database,
        ],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return _HEADER + re.sub(r"\n{3,}", "\n\n", _NOISE.sub("", answer.stdout)).strip() + "\n"


def main(path: Path) -> None:
    with throw_away() as cluster:
        cluster.create_database("galaxy")
        cluster.sqitch("galaxy", "deploy")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dump(cluster, "galaxy"))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dev.schema FILE")
    main(Path(sys.argv[1]))
