"""
How many connections wait at a listening socket.

Of a listening socket the kernel tells in ``TCP_INFO`` not what the fields are named
for, but its queue: ``tcpi_unacked`` connections wait to be accepted, and
``tcpi_sacked`` may (``tcp_get_info`` in ``net/ipv4/tcp.c``). Asking takes less than a
microsecond.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import Final

_FIELDS: Final = struct.Struct("=24xII")
"""
The beginning of ``struct tcp_info`` up to both fields.
"""


@dataclass(frozen=True, slots=True)
class AcceptQueue:
    """
    The queue of a listening socket at a moment.
    """

    waiting: int
    """Connections that nobody has accepted yet."""
    limit: int
    """So many may wait."""


def accept_queue(listener: socket.socket) -> AcceptQueue | None:
    """
    Look at the queue of a socket that listens; None where the kernel does not tell,
    as for Unix sockets.
    """
    try:
        told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _FIELDS.size)
    except OSError:
        # Unix sockets have no such option.
        return None
    return AcceptQueue(*_FIELDS.unpack(told)) if len(told) == _FIELDS.size else None
