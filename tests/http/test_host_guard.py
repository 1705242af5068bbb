"""
Tests for `kvd.http.host_guard`.
"""

from __future__ import annotations

from typing import Any

import pytest

from kvd.errors import Misdirected
from kvd.http.host_guard import HostGuard
from kvd.model.requests import Request
from kvd.settings import ANY_HOST, Address, TCPAddress, UNIXAddress

LOOPBACK = TCPAddress("127.0.0.1", 8080)
LOOPBACK_6 = TCPAddress("::1", 8080)
PUBLIC = TCPAddress("192.0.2.1", 8080)
ALL = TCPAddress("0.0.0.0", 8081)
UNIX = UNIXAddress("/run/kvd.socket")


def get(host: bytes | None) -> Request:
    """
    A request for a host.
    """
    return Request("GET", b"/k", 1, {}, None, False, True, False, host)


def is_answered(
    request: Request, local: Any, *addresses: Address, allowed: tuple[str, ...] = ()
) -> bool:
    """
    Whether a guard lets it pass.
    """
    try:
        HostGuard(addresses, allowed).check(request, local)
    except Misdirected:
        return False
    return True


@pytest.mark.parametrize(
    "host",
    [
        *(b"localhost", b"localhost:8081", b"LocalHost:9", b"localhost.:8081"),
        *(b"127.0.0.1", b"127.0.0.1:8081", b"127.1.2.3:1", b"[::1]", b"[::1]:8081"),
        *(b"localhost:", None),
    ],
)
def test_this_machine_is_meant(host: bytes | None) -> None:
    """
    By any of its own names, through any forwarded port, and by who says nothing.
    """
    assert HostGuard([LOOPBACK]).knows(host)
    assert HostGuard([LOOPBACK_6]).knows(host)


@pytest.mark.parametrize(
    "host",
    [
        *(
            b"evil.example",
            b"evil.example:8081",
            b"localhost.evil.example",
            b"",
            b"::1",
        ),
        *(b"127.0.0.1.evil.example", b"127.0.0.1:8081:1", b"evil@localhost", b":80"),
        *(b"notlocalhost", b"localhost:80a", b"[::1", b"127.0.0.1\n", b"10.0.0.1"),
        *(
            b"localhost..",
            b".localhost",
            b"localhost, evil",
            b"[::2]",
            b"kvd.example.org",
        ),
        *(b"x.kvd.example", b"\xff", b"*"),
    ],
)
def test_names_that_anybody_may_have_lead_here_are_not(host: bytes) -> None:
    """
    A page of theirs would read and write what this machine alone should.
    """
    for guard in (
        HostGuard([LOOPBACK]),
        HostGuard([UNIX, LOOPBACK_6], ["kvd.example"]),
    ):
        assert not guard.knows(host)


@pytest.mark.parametrize(
    "host", [b"kvd.example", b"KVD.example:443", b"kvd.example.", b"[2001:DB8::1]:80"]
)
def test_names_that_are_allowed_are_answered(host: bytes) -> None:
    """
    However they are written, with any port.
    """
    allowed = ("kvd.example", "[2001:db8::1]")

    assert HostGuard([LOOPBACK], allowed).knows(host)
    assert not HostGuard([LOOPBACK]).knows(host)
    assert HostGuard([LOOPBACK], [ANY_HOST]).knows(host)


def test_a_client_that_was_let_in_may_use_any_name() -> None:
    """
    A public address has names that kvd does not know, and no page gets to a Unix
    socket.
    """
    for address in (PUBLIC, ALL, UNIX):
        assert HostGuard([address]).knows(b"metrics.example")
    assert HostGuard().knows(b"metrics.example")


def test_each_address_has_its_own_answer() -> None:
    """
    As the connection came in at one of them, and no other.
    """
    evil = get(b"evil.example")
    addresses = (LOOPBACK, LOOPBACK_6, PUBLIC, ALL, UNIX)
    for local, expected in (
        (("127.0.0.1", 8080), False),
        (("::1", 8080, 0, 0), False),
        (("192.0.2.1", 8080), True),
        # Reached through the address of all, which is everybody's.
        (("127.0.0.1", 8081), True),
        ("/run/kvd.socket", True),
        ("", True),
        (b"\0abstract", True),
    ):
        assert (local, expected) == (local, is_answered(evil, local, *addresses))
        assert is_answered(get(b"localhost:8080"), local, *addresses)
        assert is_answered(evil, local, *addresses, allowed=("evil.example",))


def test_the_refusal_says_what_would_be_right() -> None:
    """
    To whoever asks, and to whoever started kvd.
    """
    with pytest.raises(
        Misdirected, match=r"evil\.example.* localhost .*--allowed-host"
    ):
        HostGuard([LOOPBACK]).check(get(b"evil.example"), ("127.0.0.1", 8080))
