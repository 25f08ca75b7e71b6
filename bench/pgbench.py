"""pgbench, prepared, over the Unix socket: what Postgres does without HTTP and without Python."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from bench.load import WARM_UP, Figures, percentile
from dev.cluster import Cluster, find_binaries


class Transaction(NamedTuple):
    ended: float
    """When, by the machine's clock."""
    took: float
    """Seconds; where a rate was asked for, from when it was due."""


def run(
    cluster: Cluster,
    database: str,
    script: str,
    *,
    clients: int,
    seconds: float,
    login: str = "galaxy_api",
    variables: Mapping[str, int] = MappingProxyType({}),
    rate: int = 0,
) -> list[Transaction]:
    """Run a script over and over for at least a second, so many times a second, or as often as can be where the rate is 0.

    Returns its transactions by when they ended. Raises RuntimeError when a client is refused anything.
    """
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "script.sql")
        file.write_text(script)
        answer = subprocess.run(
            [
                find_binaries() / "pgbench",
                "--no-vacuum",
                "--protocol=prepared",
                f"--client={clients}",
                f"--jobs={min(clients, len(os.sched_getaffinity(0)))}",
                f"--time={max(1, round(seconds))}",
                *([f"--rate={rate}"] if rate else []),
                *(f"--define={name}={value}" for name, value in variables.items()),
                f"--file={file}",
                "--log",
                f"--log-prefix={directory}/log",
                f"--host={cluster.socket_directory}",
                f"--port={cluster.port}",
                f"--username={login}",
                database,
            ],
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", "PGOPTIONS": "-csearch_path=backend"},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds + 60,
        )
        if answer.returncode != 0:
            raise RuntimeError(f"pgbench ended with {answer.returncode}:\n{answer.stderr[-3000:]}")
        # client, number, microseconds, script, the end in seconds and microseconds, …
        lines = [line.split() for log in Path(directory).glob("log.*") for line in log.read_text().splitlines()]
    return sorted(Transaction(int(line[4]) + int(line[5]) / 1e6, int(line[2]) / 1e6) for line in lines)


def figures(transactions: Sequence[Transaction]) -> Figures:
    """Return the figures of what was done after connections and functions were warm, as bench.load does."""
    began, end = transactions[0].ended - transactions[0].took, transactions[-1].ended
    begin = began + (end - began) * WARM_UP / (1 + WARM_UP)
    took = [transaction.took for transaction in transactions if transaction.ended > begin]
    return Figures(len(took) / (end - begin), percentile(took, 0.5), percentile(took, 0.99), len(transactions), busy=0)
