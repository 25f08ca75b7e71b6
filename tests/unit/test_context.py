"""Where a request comes from, and its id."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest

from app.context import Network, request_id, source_address

TRUSTED: tuple[Network, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("10.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)


def environ(peer: str, forwarded: str | None = None) -> dict[str, Any]:
    return {"REMOTE_ADDR": peer} | ({} if forwarded is None else {"HTTP_X_FORWARDED_FOR": forwarded})


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "192.0.2.1", "203.0.113.9"),  # nobody whose word counts
        ("127.0.0.1", None, "127.0.0.1"),
        ("127.0.0.1", "", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "  192.0.2.1  ", "192.0.2.1"),
        ("127.0.0.1", "198.51.100.1, 192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1, 10.1.2.3", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1,10.1.2.3,127.0.0.1", "192.0.2.1"),
        ("127.0.0.1", "10.1.2.3, 10.1.2.4", "10.1.2.3"),  # trusted all the way
        ("127.0.0.1", "nonsense", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.1, nonsense, 10.0.0.1", "10.0.0.1"),
        ("127.0.0.1", "192.0.2.1,,10.0.0.1", "10.0.0.1"),
        ("::1", "2001:db8::1", "2001:db8::1"),
        ("::1", "2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "::ffff:192.0.2.1", "192.0.2.1"),
        ("127.0.0.1", "2001:db8::1%eth0", "2001:db8::1"),
        ("127.0.0.1", "0192.0.2.1", "127.0.0.1"),
        ("127.0.0.1", "203.0.113.9, 192.0.2.5:4711", "192.0.2.5"),
        ("127.0.0.1", "[2001:db8::1]", "2001:db8::1"),
        ("127.0.0.1", "192.0.2.1, [2001:db8::1]:443", "2001:db8::1"),
        ("127.0.0.1", "[2001:db8::1%eth0]:443", "2001:db8::1"),
        ("127.0.0.1", "[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1, 10.0.0.1:80", "192.0.2.1"),
        ("127.0.0.1", "192.0.2.1:", "127.0.0.1"),
        ("127.0.0.1", "192.0.2.1:x", "127.0.0.1"),
        ("127.0.0.1", "[]:80", "127.0.0.1"),
        ("127.0.0.1", "[2001:db8::1", "127.0.0.1"),
        ("", "192.0.2.1", None),
        ("", None, None),
        ("@", None, None),
    ],
)
def test_the_first_untrusted_from_the_right(peer: str, forwarded: str | None, expected: str | None) -> None:
    assert source_address(environ(peer, forwarded), TRUSTED) == expected


def test_without_trusted_proxies_the_peer_counts() -> None:
    assert source_address(environ("127.0.0.1", "192.0.2.1"), ()) == "127.0.0.1"


def test_a_long_list_of_hops_is_read_from_its_end() -> None:
    hops = ", ".join(["192.0.2.1"] * 500 + ["203.0.113.1"])
    assert source_address(environ("127.0.0.1", hops), TRUSTED) == "203.0.113.1"


@pytest.mark.parametrize("given", ["abcdefgh", "A-b_c.9-", "x" * 128, "........"])
def test_a_good_id_is_kept(given: str) -> None:
    assert request_id(given) == given


@pytest.mark.parametrize(
    "given", [None, "", "short", "x" * 129, "with space", "new\nline1", "abcdefgh\n", "ümlautümlaut", "a/b/c/d/e"]
)
def test_a_bad_id_is_replaced(given: str | None) -> None:
    made = request_id(given)
    assert made != given
    assert re.fullmatch("[0-9a-f]{32}", made)


def test_made_ids_differ() -> None:
    assert len({request_id(None) for _ in range(1000)}) == 1000
