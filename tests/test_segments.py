"""
Tests of `tests.segments`: what is underway over TCP.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.segments import Segments
from tests.stepped import tcp_pair

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def segments() -> Segments:
    """
    Knows both ends.
    """
    return Segments()


@pytest.fixture
def ends(segments: Segments) -> Iterator[Ends]:
    """
    Of a connection; the second takes little.
    """
    near, far = tcp_pair(window=4096)
    with near, far:
        for end in (near, far):
            end.setblocking(False)
            segments.note(end)
        yield near, far


def fill(end: socket.socket) -> int:
    """
    Send until no more is taken. Returns how many bytes were.
    """
    count = 0
    while True:
        try:
            count += end.send(bytes(100_000))
        except BlockingIOError:
            return count


def test_nothing_is_underway_at_rest(segments: Segments, ends: Ends) -> None:
    """
    Not after the handshake, nor when what was sent has come, read or not.
    """
    near, far = ends
    assert not segments.wait()
    near.send(b"there")
    far.send(b"back")
    segments.wait()
    assert not segments.wait()
    assert (b"back", b"there") == (near.recv(10), far.recv(10))
    segments.wait()

    assert not segments.wait()


def test_what_there_is_no_room_for_is_not_underway(
    segments: Segments, ends: Ends
) -> None:
    """
    Until the other end is read: then all of it comes.
    """
    near, far = ends
    left = fill(near)
    segments.wait()
    assert not segments.wait()
    while left:
        # What there is room for has come, after each wait.
        left -= len(far.recv(100_000))
        segments.wait()

    with pytest.raises(BlockingIOError):
        far.recv(1)


def test_what_is_behind_urgent_data_is_not_awaited(
    segments: Segments, ends: Ends
) -> None:
    """
    The kernel does not say that it has come, before they were passed over.
    """
    near, far = ends
    near.send(b"!", socket.MSG_OOB)
    fill(near)
    segments.wait()

    assert not segments.wait()
    assert 0 < len(far.recv(100_000))


def test_the_end_of_a_connection_is_underway(segments: Segments, ends: Ends) -> None:
    """
    Although the end that is closed says nothing any more.
    """
    near, far = ends
    near.send(b"last")
    near.close()
    segments.wait()

    assert not segments.wait()
    assert (b"last", b"") == (far.recv(10), far.recv(10))
