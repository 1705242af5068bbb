"""
Tests for `kvd.admin.hosts`.
"""

from __future__ import annotations

import pytest

from kvd.admin.hosts import is_meant
from kvd.settings import TCPAddress, UNIXAddress

LOOPBACK = TCPAddress("127.0.0.1", 8081)


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "localhost:8081", "LocalHost:9", "localhost.:8081"),
        *("127.0.0.1", "127.0.0.1:8081", "127.1.2.3:1", "[::1]", "[::1]:8081", None),
    ],
)
def test_this_machine_is_meant(host: str | None) -> None:
    """
    By any of its own names, through any forwarded port, and by who says nothing.
    """
    assert is_meant(LOOPBACK, host)
    assert is_meant(TCPAddress("::1", 8081), host)


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8081", "localhost.evil.example", "", "::1"),
        *("127.0.0.1.evil.example", "127.0.0.1:8081:1", "evil@localhost", "10.0.0.1"),
        *("notlocalhost", "localhost:80a", "[::1", "127.0.0.1\n"),
    ],
)
def test_names_that_anybody_may_have_lead_here_are_not(host: str) -> None:
    """
    A page of theirs would read what this machine alone should.
    """
    assert not is_meant(LOOPBACK, host)


def test_who_was_let_in_may_use_any_name() -> None:
    """
    A public address has names that kvd does not know, and no page gets to a Unix
    socket.
    """
    assert is_meant(TCPAddress("0.0.0.0", 8081), "metrics.example")
    assert is_meant(UNIXAddress("/run/kvd.status"), "kvd")
