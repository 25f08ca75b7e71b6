"""Gateways that cost as little as they can: `python -m bench.gateways ADDRESS COUNT`.

One thread reads all their connections and only notes when which bytes came; what they were is found out afterwards. So a
measurement of the push stream is of the streamer, and not of who reads it. Says `ready` when all have subscribed. Given a number
of events on standard input, waits until each gateway has had so many, and answers with JSON: a pair for each event that came to
each gateway, of its number and when it came, in seconds of the monotonic clock. Pings are only answered then, and the server may
send all that it likes at once: good for some seconds, not for a service.
"""

from __future__ import annotations

import argparse
import json
import selectors
import socket
import struct
import sys
import time

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived
from h2.settings import SettingCodes

from proto.push.v1 import push_pb2

_PATH = f"/{push_pb2.DESCRIPTOR.services_by_name['Push'].full_name}/SubscribePushBatch"
_WINDOW = 2**31 - 1
_STREAM = 1
_PREFIX = struct.Struct(">BI")  # gRPC's, before each message: whether it is compressed, and its length

# Seconds after which what has not come is missing, and without anything after which there is time to look.
_PATIENCE = 60.0
_QUIET = 0.1


class Gateway:
    """A stream of its own on a connection of its own; `received` has when each event came, by its number."""

    def __init__(self, address: str, name: str) -> None:
        self.received: dict[int, float] = {}
        self._noted: list[tuple[float, bytes]] = []
        self._message = b""
        self._http = H2Connection(H2Configuration(client_side=True))
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._subscribe(address, push_pb2.GatewaySubscribeRequest(gateway_client_id=name).SerializeToString())
        self.socket.setblocking(False)

    def _subscribe(self, authority: str, request: bytes) -> None:
        self._http.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = _WINDOW
        self._http.local_settings.acknowledge()
        self._http.initiate_connection()
        self._http.increment_flow_control_window(_WINDOW - 65535)
        asked = {":method": "POST", ":scheme": "http", ":path": _PATH, ":authority": authority}
        asked |= {"te": "trailers", "content-type": "application/grpc"}
        self._http.send_headers(_STREAM, list(asked.items()))
        self._http.send_data(_STREAM, _PREFIX.pack(0, len(request)) + request, end_stream=True)
        self.socket.sendall(self._http.data_to_send())
        # The initial metadata comes at once, and says that the stream has begun.
        head: set[tuple[bytes | str, bytes | str]] = set()
        while not head:
            if not (data := self.socket.recv(65536)):
                raise RuntimeError("whoever is there does not speak gRPC")
            for event in self._http.receive_data(data):
                if isinstance(event, ResponseReceived):
                    head = set(event.headers)
            self.socket.sendall(self._http.data_to_send())
        if any(name in (b"grpc-status", "grpc-status") for name, _ in head):
            raise RuntimeError(f"subscribing was refused: {head}")

    def note(self) -> None:
        """Note what has come, and when. Raises RuntimeError where the stream has ended."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise RuntimeError("the stream has ended")
        self._noted.append((time.monotonic(), data))

    def look(self) -> None:
        """Find out what has been noted."""
        for at, data in self._noted:
            for event in self._http.receive_data(data):
                if isinstance(event, DataReceived):
                    self._message += event.data
                    self._take(at)
        self._noted.clear()
        self.socket.sendall(self._http.data_to_send())

    def _take(self, at: float) -> None:
        while len(self._message) >= _PREFIX.size:
            end = _PREFIX.size + _PREFIX.unpack_from(self._message)[1]
            if len(self._message) < end:
                return
            batch = push_pb2.PushEventBatch.FromString(self._message[_PREFIX.size : end])
            self._message = self._message[end:]
            for event in batch.events:
                number = json.loads(event.client_event.payload)["n"]
                if number in self.received:
                    raise RuntimeError(f"event {number} came twice")
                self.received[number] = at


def main(address: str, count: int) -> None:
    gateways = [Gateway(address, f"gateway-{number}") for number in range(count)]
    selector = selectors.DefaultSelector()
    for gateway in gateways:
        selector.register(gateway.socket, selectors.EVENT_READ, gateway)
    selector.register(sys.stdin, selectors.EVENT_READ)
    print("ready", flush=True)
    events, until = None, float("inf")
    while events is None or any(len(gateway.received) < events for gateway in gateways):
        if time.monotonic() > until:
            raise RuntimeError("not all that was committed has come")
        ready = selector.select(_QUIET)
        for key, _ in ready:
            if key.data is not None:
                key.data.note()
            else:
                selector.unregister(sys.stdin)
                events, until = int(sys.stdin.readline()), time.monotonic() + _PATIENCE
        # What comes while we look would be noted too late.
        if events is not None and not ready:
            for gateway in gateways:
                gateway.look()
    print(json.dumps([each for gateway in gateways for each in gateway.received.items()]), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.gateways", description="Be so many gateways of a streamer.")
    parser.add_argument("address", help="host:port")
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    if options.count < 0:
        parser.error("count: not less than 0")
    main(options.address, options.count)
