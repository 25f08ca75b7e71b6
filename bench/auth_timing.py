"""Does the time of an answer tell who has an account? `python -m bench.auth_timing [--samples N] [--connections N]`.

Asks the HTTP program itself for sign-in codes, for addresses with an account, without one, and throttled, in a random order,
and prints for each two of them the AUC: how probably an answer of the one kind took longer than one of the other. 0.5 is a
coin. Run it on a machine that has nothing else to do. From the repository's root.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import itertools
import json
import random
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import data, servers
from bench.load import percentile
from dev.cluster import THROW_AWAY, Cluster

KINDS = ("known", "unknown", "throttled")

_PATH = "/api/v1/public/auth/send-email-code"
# The disk is not to blur what is looked for.
_SETTINGS = {**THROW_AWAY, "shared_buffers": "512MB", "autovacuum": "off"}
_SESSIONS = 100  # as many as the servers' own check wants


def auc(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the probability that a value of `one` is greater than one of `other`; a tie counts half."""
    ordered = sorted(other)
    wins = sum(bisect_left(ordered, value) + bisect_right(ordered, value) for value in one)
    return wins / (2 * len(one) * len(other))


def prepare(cluster: Cluster, samples: int) -> None:
    """Make the accounts, the challenges of those who are throttled, and room for so many codes in a day."""
    with cluster.connect(data.name(_SESSIONS), options="-csearch_path=backend") as connection:
        connection.execute("UPDATE settings SET default_value = max_value WHERE setting_name = 'code_mails_per_service'")
        connection.execute(
            "SELECT account_create('email', e, e, 'en', 'UTC', NULL)"
            " FROM (SELECT 'known-' || i || '@example.org' AS e FROM generate_series(1, %s) AS i) AS t",
            [samples],
        )
        # Later than the measurement takes, so that they stay throttled.
        connection.execute(
            """
            INSERT INTO auth_challenges (email, source_hash, code_hash, created_at, expires_at)
            SELECT e, budget_key('address', e, source_network('127.0.0.1', 24)), sha256(''), now() + interval '1 day',
                   now() + interval '2 days'
              FROM (SELECT 'throttled-' || i || '@example.org' AS e FROM generate_series(1, %s) AS i) AS t, generate_series(1, 3)
            """,
            [samples],
        )
        connection.execute("VACUUM (ANALYZE) accounts, identities, auth_challenges")


def ask(port: int, kinds: Sequence[tuple[str, int]]) -> list[tuple[str, float]]:
    """Ask for codes one after another, on one connection; return how many seconds each answer took."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    found = []
    for kind, number in kinds:
        body = json.dumps({"email": f"{kind}-{number}@example.org"})
        began = time.perf_counter()
        connection.request("POST", _PATH, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        found.append((kind, time.perf_counter() - began))
        if answer.status != 200:
            raise RuntimeError(f"{answer.status} for a {kind} address")
    connection.close()
    return found


def measure(samples: int, connections: int) -> dict[str, list[float]]:
    """Run the program and return the seconds of each answer by kind."""
    kinds = [(kind, number) for kind in KINDS for number in range(1, samples + 1)]
    random.shuffle(kinds)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="galaxy-bench-"))
        cluster = stack.enter_context(data.deployed(_SETTINGS))
        stack.enter_context(data.sessions(cluster, [_SESSIONS]))
        prepare(cluster, samples)
        wanted = [("ours", _SESSIONS)]
        with servers.running(cluster, wanted, Path(directory), None) as found, ThreadPoolExecutor(connections) as pool:
            port = found["ours", _SESSIONS].port
            # Connections that are new, and caches that are cold, are nobody's.
            ask(port, [("warm", number) for number in range(20)])
            times: dict[str, list[float]] = {kind: [] for kind in KINDS}
            for part in pool.map(ask, itertools.repeat(port), [kinds[n::connections] for n in range(connections)]):
                for kind, seconds in part:
                    times[kind].append(seconds)
    return times


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.auth_timing")
    parser.add_argument("--samples", type=int, default=2000, help="answers of each kind")
    parser.add_argument("--connections", type=int, default=2, help="requests at once")
    options = parser.parse_args()
    times = measure(options.samples, options.connections)
    print(f"{options.samples} answers of each kind, {options.connections} at once; milliseconds")
    for kind in KINDS:
        figures = "  ".join(f"p{q:g} {percentile(times[kind], q / 100) * 1000:.1f}" for q in (1, 50, 99))
        print(f"{kind:10} {figures}")
    for one, other in itertools.combinations(KINDS, 2):
        print(f"AUC {one} : {other}  {auc(times[one], times[other]):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
