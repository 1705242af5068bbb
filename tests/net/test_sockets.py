"""
Tests for `kvd.net.sockets`, compiled and not.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from kvd.net.sockets import (
    bytes_held,
    is_drained,
    is_drained_in_python,
    is_near,
    is_near_in_python,
)
from tests.patience import PATIENCE_SECONDS
from tests.stepped import tcp_pair

Pair = tuple[socket.socket, socket.socket]

NAMES = ["compiled", "Python"]
DRAINED = pytest.mark.parametrize("form", [is_drained, is_drained_in_python], ids=NAMES)
NEAR = pytest.mark.parametrize("form", [is_near, is_near_in_python], ids=NAMES)


@pytest.fixture(params=["TCP", "Unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """
    The ends of a connection.
    """
    near, far = tcp_pair() if request.param == "TCP" else socket.socketpair()
    with near, far:
        yield near, far


def test_what_is_compiled_is_used() -> None:
    """
    Otherwise nothing is compared here.
    """
    assert is_drained is not is_drained_in_python
    assert is_near is not is_near_in_python


@DRAINED
def test_a_connection_with_nothing_unread_is_drained(
    form: Callable[[socket.socket], bool], pair: Pair
) -> None:
    """
    Until something comes, and when it has been read; also when the peer has ended.
    """
    near, far = pair
    assert form(near)
    far.sendall(b"request")
    assert select.select([near], [], [], PATIENCE_SECONDS)[0]
    assert not form(near)
    assert b"req" == near.recv(3)
    assert not form(near)
    assert b"uest" == near.recv(100)
    assert form(near)
    far.shutdown(socket.SHUT_WR)
    assert b"" == near.recv(100)
    assert form(near)


@DRAINED
def test_what_is_on_its_way_over_tcp_could_be_lost(
    form: Callable[[socket.socket], bool], pair: Pair
) -> None:
    """
    The peer's kernel takes no more. Over a Unix socket, it is with the peer already.
    """
    near, _ = pair
    near.setblocking(False)
    with suppress(BlockingIOError):
        while near.send(bytes(1 << 20)):
            pass
    assert bytes_held(near)
    assert (near.family == socket.AF_UNIX) == form(near)


@DRAINED
def test_what_is_no_connection_is_not_drained(
    form: Callable[[socket.socket], bool],
) -> None:
    """
    Nothing is known of what is no connection.
    """
    with open("/dev/null") as null:
        assert not form(null)  # type: ignore[arg-type]
    with socket.socket() as listener:
        listener.listen()
        assert not form(listener)


@NEAR
def test_a_client_is_near_if_its_round_trip_was_low(
    form: Callable[[socket.socket, int], bool],
) -> None:
    """
    The kernel shows the last round trips, too, from which the least one differs by
    little here.
    """
    near, far = tcp_pair()
    with near, far:
        info = near.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 72)
        (smoothed,) = struct.unpack("=68xI", info)
        assert form(near, smoothed)
        assert form(near, 1 << 40)
        assert not form(near, 0)
        assert not form(near, -1)


@NEAR
def test_only_over_tcp_a_round_trip_is_known(
    form: Callable[[socket.socket, int], bool],
) -> None:
    """
    And of a connection that is open.
    """
    near, far = socket.socketpair()
    with near, far:
        with pytest.raises(OSError, match=os.strerror(errno.EOPNOTSUPP)):
            form(near, 1 << 40)
        near.close()
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            form(near, 1 << 40)
