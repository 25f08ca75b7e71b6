"""Streamers, gateways and writers for the measurements of the push stream."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import psycopg

from bench.servers import settings, spawn_module, stop
from dev.cluster import Cluster, free_port
from dev.push_client import PushClient, decode_payload

DATABASE = "galaxy"

_EMIT = """
    SELECT count(push_client_event(gen_random_uuid(), NULL, 'bench', jsonb_build_object('n', n), gen_random_uuid(), 'request'))
      FROM generate_series(%s::bigint, %s::bigint) AS n
"""


def deploy(cluster: Cluster) -> None:
    cluster.create_database(DATABASE)
    cluster.sqitch(DATABASE, "deploy")


def connect(cluster: Cluster, **parameters: Any) -> psycopg.Connection[Any]:
    return cluster.connect(DATABASE, options="-csearch_path=backend", **parameters)


def emit(connection: psycopg.Connection[Any], first: int, last: int | None = None) -> None:
    """Make an event for each number."""
    connection.execute(_EMIT, [first, first if last is None else last])


class Streamer:
    """`python -m app push`, which keeps its address when it is killed and started again."""

    def __init__(self, cluster: Cluster, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._cluster = cluster
        self._directory = directory
        self._log = directory / f"streamer-{self.address.rpartition(':')[2]}.log"
        self.process = self._spawn()

    def _spawn(self) -> subprocess.Popen[bytes]:
        given = settings(self._cluster, DATABASE, self._directory, BACKEND_GRPC_PUSH_LISTEN_ADDR=self.address)
        return spawn_module(["app", "push"], given, self._log)

    def wait(self) -> None:
        with grpc.insecure_channel(self.address) as channel:
            grpc.channel_ready_future(channel).result(60)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.process = self._spawn()

    def memory(self) -> int:
        """The bytes of memory that it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@contextlib.contextmanager
def streamers(cluster: Cluster, directory: Path, count: int) -> Iterator[list[Streamer]]:
    """So many of them, ready to be subscribed to."""
    started: list[Streamer] = []
    try:
        started += (Streamer(cluster, directory) for _ in range(count))
        for streamer in started:
            streamer.wait()
        yield started
    finally:
        stop([streamer.process for streamer in started])


class Gateway:
    """Receives in a thread of its own; `received` has for each event its number, its cursor and when it came.

    `streams` has where in it each of its streams began: `forget` lets it come again with an older cursor, as a gateway
    does that has crashed.
    """

    def __init__(self, addresses: list[str], name: str, cursor: str = "") -> None:
        self.received: list[tuple[int, str, float]] = []
        self.streams: list[tuple[int, str]] = []
        self.gaps = 0
        self._name = name
        self._target = f"ipv4:{','.join(random.sample(addresses, len(addresses)))}"
        self._ended = threading.Event()
        self._client = self._connect(cursor)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _connect(self, cursor: str) -> PushClient:
        client = PushClient(self._target, self._name, cursor=cursor)
        client.connect()
        self.streams.append((len(self.received), client.cursor))
        return client

    def _run(self) -> None:
        while not self._ended.is_set():
            client = self._client
            for event in client:
                told = decode_payload(event.client_event.kind, event.client_event.payload)
                assert told is not None
                self.received.append((told["n"], event.cursor, time.monotonic()))
            self.gaps += client.gaps
            if not self._ended.is_set():
                back = random.randint(0, 50)
                self._client = self._connect(self.received[-1 - back][1] if len(self.received) > back else client.cursor)

    def forget(self) -> None:
        self._client.close()

    def close(self) -> None:
        self._ended.set()
        self._client.close()
        self._thread.join(30)
