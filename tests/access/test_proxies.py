"""
Tests for `kvd.access.proxies`.
"""

from __future__ import annotations

import random
from typing import Any, Final

import pytest
from twisted.logger import capturedLogs

from kvd.access.proxies import Proxies

PROXY: Final = ("10.0.0.1", 4711)
CLIENT: Final = ("203.0.113.9", 4711)
TRUSTED: Final = "10.0.0.0/8", "2001:db8:1::/48", "unix"


def proxies(field: str = "x-forwarded-for") -> Proxies:
    """
    Some that are trusted.
    """
    return Proxies(TRUSTED, field)


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        (PROXY, True),
        (CLIENT, False),
        (("::ffff:10.0.0.1", 1, 0, 0), True),
        (("2001:db8:1::9", 1, 0, 0), True),
        (("2001:db8:2::9", 1, 0, 0), False),
        (("fe80::1%eth0", 1, 0, 2), False),
        ("", True),
        (b"", True),
        (("", 0), False),
    ],
)
def test_networks_are_trusted(peer: Any, expected: bool) -> None:
    """
    Also those that IPv6 stands for, and Unix sockets.
    """
    known = proxies()
    assert expected is known.trusts(peer)
    assert expected is known.trusts(peer)
    assert Proxies(["10.0.0.0/8"], "forwarded").trusts("") is False


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"203.0.113.9", ("203.0.113.9", None)),
        (b"203.0.113.9:80", ("203.0.113.9", 80)),
        (b"2001:db8::9", ("2001:db8::9", None, 0, 0)),
        (b"[2001:db8::9]", ("2001:db8::9", None, 0, 0)),
        (b"[2001:DB8::9]:80", ("2001:db8::9", 80, 0, 0)),
        (b"::ffff:203.0.113.9", ("203.0.113.9", None)),
        # The last one is what the proxy has seen; the first one, what a client says.
        (b"192.0.2.1, 203.0.113.9", ("203.0.113.9", None)),
        (b"192.0.2.1, 203.0.113.9,10.0.0.2 , 10.0.0.3", ("203.0.113.9", None)),
        (b"10.0.0.2, 10.0.0.3", ("10.0.0.2", None)),
        # What cannot be read is nobody's address, and hides what stands before it.
        (b"", PROXY),
        (b"unknown", PROXY),
        (b"203.0.113.9, unknown", PROXY),
        (b"203.0.113.9, ", PROXY),
        (b"203.0.113.9, 10.0.0.2, _hidden", PROXY),
        (b"203.0.113.9, _hidden, 10.0.0.2", ("10.0.0.2", None)),
        (b"203.0.113.9.1", PROXY),
        (b"203.0.113.999", PROXY),
        (b"fe80::1%eth0", PROXY),
        (b"1.2.3.4:", PROXY),
        (b"\xff\xff", PROXY),
        (b'"203.0.113.9"', PROXY),
    ],
)
def test_the_client_in_x_forwarded_for(value: bytes, expected: Any) -> None:
    """
    It is the last one that no trusted proxy is.
    """
    assert expected == proxies().client_of(PROXY, {b"x-forwarded-for": value})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"for=203.0.113.9", ("203.0.113.9", None)),
        (b'For="[2001:db8::9]:80"', ("2001:db8::9", 80, 0, 0)),
        (b'for="203.0.113.9:80";proto=http;by=10.0.0.1', ("203.0.113.9", 80)),
        (b'proto=http; for="203.0.113.9:_abc"', ("203.0.113.9", None)),
        (b'for="203\\.0.113.9"', ("203.0.113.9", None)),
        # Without the quotes that it should have.
        (b"for=[2001:db8::9]:80", ("2001:db8::9", 80, 0, 0)),
        (b"for=192.0.2.1, for=203.0.113.9", ("203.0.113.9", None)),
        (b"for=192.0.2.1, for=203.0.113.9,for=10.0.0.2", ("203.0.113.9", None)),
        (b'for="a, for=192.0.2.1", for=203.0.113.9', ("203.0.113.9", None)),
        (b'for="a;\\", for=192.0.2.1", for=203.0.113.9', ("203.0.113.9", None)),
        (b"", PROXY),
        (b"for=unknown", PROXY),
        (b"for=203.0.113.9, proto=http", PROXY),
        (b"203.0.113.9", PROXY),
        # An open quote takes in what the proxy has written.
        (b'for="192.0.2.1, for=203.0.113.9', PROXY),
        (b'for="192.0.2.1" x, for=203.0.113.9', PROXY),
    ],
)
def test_the_client_in_forwarded(value: bytes, expected: Any) -> None:
    """
    As RFC 7239 has it.
    """
    assert expected == proxies("forwarded").client_of(PROXY, {b"forwarded": value})


def test_only_the_chosen_field_counts() -> None:
    """
    A proxy passes on the other one as its client has sent it.
    """
    fields = {b"x-forwarded-for": b"192.0.2.1", b"forwarded": b"for=203.0.113.9"}

    assert ("192.0.2.1", None) == proxies().client_of(PROXY, fields)
    assert ("203.0.113.9", None) == proxies("forwarded").client_of(PROXY, fields)


def test_a_field_from_others_is_ignored_and_said_once() -> None:
    """
    Else every client could choose its address, and fill the log.
    """
    known = proxies()
    with capturedLogs() as events:
        for _ in range(3):
            assert CLIENT is known.client_of(CLIENT, {b"x-forwarded-for": b"1.2.3.4"})
            assert CLIENT is known.client_of(CLIENT, {})
            assert PROXY is known.client_of(PROXY, {b"forwarded": b"for=1.2.3.4"})

    assert ["203.0.113.9"] == [event["host"] for event in events]


@pytest.mark.parametrize("field", ["x-forwarded-for", "forwarded"])
def test_any_bytes_give_an_address_or_none(field: str) -> None:
    """
    Quickly, however long they are.
    """
    seed = random.randrange(2**32)
    print("seed", seed)
    source = random.Random(seed)
    pieces = [
        b"for=",
        b'"',
        b"\\",
        b",",
        b";",
        b"10.0.0.1",
        b"[",
        b"]",
        b":",
        b" ",
        b"\t",
    ]
    pieces += [b"2001:db8:1::1", b"unknown", b"=", b"\xff", b"1"]
    known = proxies(field)
    for count in [*range(40)] * 20 + [8000]:
        value = b"".join(source.choices(pieces, k=count))
        client = known.client_of(PROXY, {field.encode(): value})
        assert client is PROXY or len(client) in (2, 4)
