"""
What is underway over TCP between sockets of one process, as the kernel knows it.

Over loopback, too, a segment may arrive a while after it was sent: on a busy machine,
or where the link is slow. A test that went on when nothing more comes would go on too
early then, so it waits until nothing is underway. Both ends of a connection tell that
together: how many segments one has sent, and the other has got. So nobody waits for
bytes that the kernel has dropped or holds back until there is room. Where one end is
closed, they cannot tell: then nothing may change for a while.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from kvd.net.sockets import bytes_unread, is_at_mark
from tests.patience import PATIENCE_SECONDS

INTERNET: Final = (socket.AF_INET, socket.AF_INET6)

STUCK_SECONDS: Final = 0.1
"""
Where it is unknown whether anything is underway, and for so long nothing has changed,
nothing is.
"""

SEGMENT_SECONDS: Final = 0.0001

ESTABLISHED: Final = 1
"""
Of ``linux/tcp.h``: neither end has said that it sends no more.
"""

_UNCOUNTED: Final = 1
"""
Segments that one end has got, and the other did not count: the answer to the first one,
from an end that was accepted.
"""

_INFO: Final = struct.Struct("B 127x Q II I 52x QQ")
"""
Of ``struct tcp_info`` there: the state, how many bytes were received, how many segments
were sent and have come, and how many bytes have not been sent, were sent, and were sent
once more.
"""

Names = tuple[Any, Any]
"""
The addresses of this end of a connection, and of the other one.
"""


class TcpEnd(NamedTuple):
    """
    What one end of a connection over TCP knows of it; all in bytes, if nothing else is
    said.
    """

    state: int
    received: int
    is_read: bool
    """Whether all that has come was read, so that there is room for more."""
    segments_sent: int
    segments_received: int
    """Also those that were dropped."""
    sent: int
    unsent: int

    @classmethod
    def of(cls, connection: socket.socket) -> TcpEnd:
        """
        Ask the kernel.
        """
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        state, received, out, came, unsent, sent, once_more = _INFO.unpack(info)
        # Nothing says how much has come behind urgent data that were not passed over.
        is_read = not bytes_unread(connection) and not is_at_mark(connection.fileno())
        return cls(state, received, is_read, out, came, sent - once_more, unsent)


class Underway(NamedTuple):
    """
    What has not arrived yet at one end of a connection.
    """

    expected: int
    """So many bytes will, for there is room."""
    possible: int
    """So many segments may. For a closed other end, that is its last one."""
    received: int
    """So many bytes have."""


class Segments:
    """
    Knows what is underway between the sockets that were noted.
    """

    def __init__(self) -> None:
        self._names: WeakKeyDictionary[socket.socket, Names] = WeakKeyDictionary()
        self._known: set[Names] = set()
        """Those of all ends, also where they are closed."""
        self._stuck: Mapping[Names, Underway] = {}

    def note(self, connection: object) -> None:
        """
        Something may arrive here, or at the other end.
        """
        if not isinstance(connection, socket.socket):
            return
        if connection.family not in INTERNET or connection in self._names:
            return
        # If it is not connected yet, it is noted again when something waits for it.
        with suppress(OSError):
            names = connection.getsockname(), connection.getpeername()
            self._names[connection] = names
            self._known.add(names)

    def wait(self) -> bool:
        """
        Wait until no segment is underway, or one is stuck. Returns whether one was.
        """
        waited, before, since = False, self._stuck, time.monotonic()
        while True:
            underway = self._underway()
            moving = [
                each
                for names, each in underway.items()
                if self._stuck.get(names) != each
            ]
            if not moving:
                break
            now = time.monotonic()
            if underway != before:
                before, since = underway, now
            elif since + STUCK_SECONDS < now and not any(
                each.expected for each in moving
            ):
                break
            assert now < since + PATIENCE_SECONDS
            waited = True
            time.sleep(SEGMENT_SECONDS)
        self._stuck = underway
        return waited

    def _underway(self) -> Mapping[Names, Underway]:
        ends: dict[Names, TcpEnd] = {}
        for each, names in self._names.items():
            # Where it is closed.
            with suppress(OSError):
                ends[names] = TcpEnd.of(each)
        found = {}
        for (here, there), end in ends.items():
            expected = possible = 0
            other = ends.get((there, here))
            if other is not None:
                possible = end.segments_sent - other.segments_received
                possible += other.segments_sent - end.segments_received + _UNCOUNTED
                if end.is_read:
                    expected = other.unsent + max(0, other.sent - end.received)
            elif end.state == ESTABLISHED and (there, here) in self._known:
                possible = 1
            if expected or possible:
                found[here, there] = Underway(expected, possible, end.received)
        return found
