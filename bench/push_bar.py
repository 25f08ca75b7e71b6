"""The bar of the push stream: `python -m bench.push_bar [--short | --backlog N] [--seed N]`.

Many writers commit in another order than they began, some roll back, a transaction is held open; streamers are killed one
after another, gateways come again with older cursors, the listeners' backends are ended. Then every gateway must have every
committed event and no other, in one order. Prints its seed, and what it found; ends with 1 if anything is wrong.

`--backlog N` instead: a streamer starts with N events pending, a gateway that was away reads them all, and the streamer's
memory is watched. From the repository's root.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import random
import sys
import tempfile
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from bench.load import percentile
from bench.streamers import Gateway, Streamer, connect, deploy, emit, streamers
from dev.cluster import KILLABLE, Cluster, throw_away

_HELD = 1
_MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Plan:
    writers: int = 32
    events: int = 2000
    streamers: int = 3
    gateways: int = 4
    wait: float = 0.2  # at most so many seconds between an event and its commit
    kill_every: float = 2.0
    hold: float = 60.0


LONG = Plan()
SHORT = Plan(writers=8, events=60, wait=0.1, kill_every=1.5, hold=5.0)


class Bar:
    def __init__(self, cluster: Cluster, running: list[Streamer], plan: Plan, seed: int) -> None:
        self.kills = 0
        self._cluster, self._streamers, self._plan, self._seed = cluster, running, plan, seed
        self._committed: dict[int, float] = {}  # when, by the event's number
        self._over = threading.Event()

    def run(self) -> tuple[list[Gateway], dict[int, float]]:
        """Let everything happen; return the gateways and what was committed."""
        addresses = [streamer.address for streamer in self._streamers]
        gateways = [Gateway(addresses, f"gateway-{number}") for number in range(self._plan.gateways)]
        with ThreadPoolExecutor(self._plan.writers + 2) as pool:
            forgetting = pool.submit(self._forget, gateways)
            working = [pool.submit(self._hold), *(pool.submit(self._write, writer) for writer in range(self._plan.writers))]
            try:
                # Here, because a program ends with the thread that started it.
                self._kill(working)
                for one in working:
                    one.result()
            finally:
                self._over.set()
            forgetting.result()
        until = time.monotonic() + 60
        while time.monotonic() < until and any({n for n, *_ in g.received} != self._committed.keys() for g in gateways):
            time.sleep(0.1)
        for gateway in gateways:
            gateway.close()
        return gateways, self._committed

    def _write(self, writer: int) -> None:
        dice = random.Random(f"{self._seed} writer {writer}")
        with connect(self._cluster) as connection:
            for number in range((writer + 1) * 1_000_000, (writer + 1) * 1_000_000 + self._plan.events):
                rolls_back = dice.random() < 0.1
                with connection.transaction(force_rollback=rolls_back):
                    emit(connection, number)
                    time.sleep(dice.uniform(0, self._plan.wait))
                if not rolls_back:
                    self._committed[number] = time.monotonic()

    def _hold(self) -> None:
        with connect(self._cluster) as connection:
            with connection.transaction():
                emit(connection, _HELD)
                time.sleep(self._plan.hold)
            self._committed[_HELD] = time.monotonic()

    def _kill(self, working: list[Future[None]]) -> None:
        dice = random.Random(f"{self._seed} killer")
        while wait(working, self._plan.kill_every).not_done:
            victim = dice.choice(self._streamers)
            victim.kill()
            victim.restart()
            self.kills += 1

    def _forget(self, gateways: list[Gateway]) -> None:
        dice = random.Random(f"{self._seed} gateways")
        while not self._over.wait(dice.uniform(0, 2 * self._plan.kill_every)):
            dice.choice(gateways).forget()


def problems(gateways: list[Gateway], committed: dict[int, float]) -> list[str]:
    """Say what is wrong with what was received."""
    found = []
    order: dict[str, int] = {}
    for number, gateway in enumerate(gateways):
        numbers = [n for n, _, _ in gateway.received]
        if gateway.gaps:
            found.append(f"gateway {number}: {gateway.gaps} fresh starts")
        if lost := committed.keys() - set(numbers):
            found.append(f"gateway {number}: {len(lost)} lost, {sorted(lost)[:5]} among them")
        if invented := set(numbers) - committed.keys():
            found.append(f"gateway {number}: {len(invented)} invented, {sorted(invented)[:5]} among them")
        ends = [first for first, _ in gateway.streams[1:]] + [len(numbers)]
        for (first, cursor), end in zip(gateway.streams, ends, strict=True):
            # Within a stream, and what its breaks were gone on from: nothing again, and nothing out of order.
            cursors = [cursor, *(c for _, c, _ in gateway.received[first:end])]
            if any(a.encode() >= b.encode() for a, b in itertools.pairwise(cursors)):
                found.append(f"gateway {number}: cursors do not grow")
        if any(order.setdefault(cursor, n) != n for n, cursor, _ in gateway.received):
            found.append(f"gateway {number}: another event at the same cursor")
    in_order = [n for _, n in sorted(order.items())]
    if len(set(in_order)) != len(in_order):
        found.append("an event at two cursors")
    latest: dict[int, int] = {}
    for n in in_order:
        if latest.get(n // 1_000_000, 0) >= n:
            found.append(f"{n} comes after what its writer wrote later")
        latest[n // 1_000_000] = n
    return found


def recovery(cluster: Cluster, addresses: list[str]) -> list[float]:
    """End the listeners' backends ten times; return the seconds until what is committed then has come."""
    gateway = Gateway(addresses, "recovery")
    took = []
    with connect(cluster) as connection:
        for number in range(10):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '%-push-listener'"
            )
            began = time.monotonic()
            emit(connection, number)
            while len(gateway.received) <= number and time.monotonic() < began + 30:
                time.sleep(0.001)
            took.append(time.monotonic() - began)
            time.sleep(0.5)
    gateway.close()
    return took


def bar(plan: Plan, seed: int) -> int:
    print(f"seed {seed}, {plan}", flush=True)
    random.seed(seed)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galaxy-bar-")))
        cluster = stack.enter_context(throw_away(KILLABLE))
        deploy(cluster)
        running = stack.enter_context(streamers(cluster, directory, plan.streamers))
        began = time.monotonic()
        one = Bar(cluster, running, plan, seed)
        gateways, committed = one.run()
        took = time.monotonic() - began
        for streamer in running:
            streamer.wait()
        after = recovery(cluster, [running[0].address])
    found = problems(gateways, committed)
    # The first time that anybody received it.
    delays = sorted(
        min(at for gateway in gateways for n, _, at in gateway.received if n == number) - committed[number]
        for number in list(committed)[:: max(1, len(committed) // 500)]
        if any(n == number for gateway in gateways for n, _, _ in gateway.received)
    )
    again = sum(len(gateway.received) - len({n for n, *_ in gateway.received}) for gateway in gateways)
    print(
        f"{len(committed)} events committed in {took:.0f} s, {len(gateways)} gateways, {one.kills} streamers killed,"
        f" {sum(len(gateway.streams) - 1 for gateway in gateways)} gateways come again, {again} events sent again to them;"
        f" commit to first receipt p50 {percentile(delays, 0.5) * 1000:.0f} ms, p99 {percentile(delays, 0.99) * 1000:.0f} ms;"
        f" after a listener's backend was ended an event took {max(after) * 1000:.0f} ms at most"
    )
    print("\n".join(found) or "nothing lost, nothing invented, nothing out of order, nothing twice in a stream")
    return 1 if found else 0


def backlog(count: int) -> int:
    """Read a backlog and print how much memory it took."""
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="galaxy-bar-")))
        cluster = stack.enter_context(throw_away(KILLABLE))
        deploy(cluster)
        (streamer,) = stack.enter_context(streamers(cluster, directory, 1))
        gateway = Gateway([streamer.address], "gateway")
        connection = stack.enter_context(connect(cluster))
        emit(connection, 1, 1000)
        while len(gateway.received) < 1000:
            time.sleep(0.01)
        gateway.close()
        cursor = gateway.received[-1][1]
        streamer.kill()
        for first in range(1001, count + 1001, 10_000):
            emit(connection, first, min(first + 9_999, count + 1000))
        streamer.restart()
        streamer.wait()
        time.sleep(1)
        before, began = streamer.memory(), time.monotonic()
        gateway = Gateway([streamer.address], "gateway", cursor)
        most, received = before, -1
        while len(gateway.received) < count and len(gateway.received) != received:
            received = len(gateway.received)
            for _ in range(300):
                most = max(most, streamer.memory())
                if len(gateway.received) >= count:
                    break
                time.sleep(0.1)
        took = time.monotonic() - began
        gateway.close()
    is_right = [n for n, *_ in gateway.received] == list(range(1001, count + 1001)) and not gateway.gaps
    print(
        f"{len(gateway.received)} of {count} events in {took:.0f} s, {'' if is_right else 'NOT '}as they should be;"
        f" the streamer's memory was {before / _MEBIBYTE:.0f} MiB and at most {most / _MEBIBYTE:.0f} MiB"
    )
    return 0 if is_right and most - before < 128 * _MEBIBYTE else 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.push_bar")
    parser.add_argument("--short", action="store_const", const=SHORT, default=LONG, dest="plan", help="some seconds")
    parser.add_argument("--backlog", type=int, help="so many events pending, instead")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    arguments = parser.parse_args()
    return backlog(arguments.backlog) if arguments.backlog else bar(arguments.plan, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
