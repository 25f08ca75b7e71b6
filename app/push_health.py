"""How the streamer beside us is: its own word, by gRPC's health protocol. Imported in a worker only, after the fork."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_SERVICE = "galaxy.backend.push.v1.Push"
_TIMEOUT = 1.0

# A connection of its own each time, so that one that failed does not make us wait until it is tried again.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


def check(path: str) -> str:
    """Ask the streamer at a Unix socket; ok or failed. Raises grpc.RpcError when it cannot be asked."""
    with grpc.insecure_channel(f"unix:{path}", options=_OPTIONS) as channel:
        request = health_pb2.HealthCheckRequest(service=_SERVICE)
        answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=_TIMEOUT)
    return "ok" if answer.status == health_pb2.HealthCheckResponse.SERVING else "failed"
