"""Where a request comes from and under what id it runs."""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{8,128}")

# As some proxies write addresses: [2001:db8::1], [2001:db8::1]:443, 192.0.2.1:4711.
_IN_BRACKETS_OR_WITH_PORT = re.compile(r"\[([0-9A-Fa-f:.%\w-]+)\](?::[0-9]{1,5})?|([0-9.]+):[0-9]{1,5}", re.ASCII)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def request_id(given: str | None) -> str:
    """Return the caller's request id if it is well-formed, else a new one."""
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given
    return secrets.token_hex(16)


def source_address(environ: Mapping[str, Any], trusted: Sequence[Network]) -> str | None:
    """Return the first untrusted address, from the right, of X-Forwarded-For; without it, or from an untrusted peer, the peer's.

    None where the peer has no address (a Unix socket).
    """
    peer = _address(environ.get("REMOTE_ADDR", ""))
    if peer is None or not _is_trusted(peer, trusted):
        return str(peer) if peer else None
    address = peer
    for hop in reversed(environ.get("HTTP_X_FORWARDED_FOR", "").split(",")):
        parsed = _address(hop.strip())
        if parsed is None:
            break
        address = parsed
        if not _is_trusted(parsed, trusted):
            break
    return str(address)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if match := _IN_BRACKETS_OR_WITH_PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        # Without the zone of a link-local address: it means something on its own machine only.
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        return address.ipv4_mapped
    return address


def _is_trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted if network.version == address.version)
