"""
A connected socket: the names of its ends, what the kernel knows of its bytes, and its
close.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable
from fcntl import ioctl
from termios import FIONREAD, TIOCOUTQ
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from kvd.native import compiled

_SIOCATMARK: Final = 0x8905
"""
As <asm-generic/sockios.h> has it; no module of Python does.
"""

UNHEARD_SEGMENTS: Final = 4
"""
How many segments the peer may read before the sender hears of it: two or less make room
for the next, and those on the way have other lengths (up to 129,584 bytes were seen
where segments had 47,616).
"""

UNHEARD_UNIX_BYTES: Final = 80 * 1024
"""
A Unix socket holds pieces of up to 66,304 bytes, each until all of it has been read.
"""

_MIN_ROUND_TRIP: Final = struct.Struct("=148xI")
"""
``tcpi_min_rtt`` of ``struct tcp_info``, Linux 4.6.
"""

_SEGMENT: Final = struct.Struct("=16xI")
"""
``tcpi_snd_mss`` of it.
"""

_INT: Final = struct.Struct("=i")


def address_of(end: Any) -> IPv4Address | IPv6Address | UNIXAddress:
    """
    The address of one end of a connection.

    Args:
        end: As Python's socket module writes it.
    """
    if not isinstance(end, tuple):
        return UNIXAddress(end or None)
    kind = IPv4Address if len(end) == 2 else IPv6Address
    return kind("TCP", *end)


def peer_of(connection: socket.socket) -> Any:
    """
    The other end of a connection, as ``accept`` would return it.
    """
    try:
        return connection.getpeername()
    except OSError:
        # It was reset; what it had sent can still be read.
        return ("", 0)


def name_of(peer: Any) -> str:
    """
    A peer for a log, as ``accept`` said of it: its address and port, or ``unix``. The
    port is None if it is not known.
    """
    if not isinstance(peer, tuple):
        return "unix"
    host, port = peer[:2]
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def is_near_in_python(connection: socket.socket, microseconds: int, /) -> bool:
    """
    See `is_near`. Without a C compiler, this does what ``kvd/native/file.c`` does.
    """
    info = connection.getsockopt(
        socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_ROUND_TRIP.size
    )
    # The kernel says a very great number if there was none.
    (least,) = _MIN_ROUND_TRIP.unpack(info)
    return int(least) <= microseconds


def unheard_bytes(connection: socket.socket) -> int:
    """
    How many bytes the peer may read before this kernel hears of it.

    A kernel announces what its program has read only when there is room for some
    segments (RFC 9293 section 3.8.6.2), and on the same machine they have up to 64 KiB.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGMENT.size)
    except OSError:
        return UNHEARD_UNIX_BYTES
    return UNHEARD_SEGMENTS * int(_SEGMENT.unpack(info)[0])


def is_drained_in_python(connection: socket.socket, /) -> bool:
    """
    See `is_drained`. Without a C compiler, this does what ``kvd/native/serve.c`` does.
    """
    try:
        if bytes_unread(connection):
            return False
        return not bytes_held(connection) or connection.family == socket.AF_UNIX
    except OSError:
        return False


_native = compiled("_fast_path")
is_near: Callable[[socket.socket, int], bool] = (
    is_near_in_python if _native is None else _native.is_near
)
"""
Whether the least round-trip time of a connection in the last minutes
(``tcp_min_rtt_wlen`` of the kernel's ip-sysctl) was low.

Args:
    connection: The connection.
    microseconds: What is low, at most.

Raises:
    OSError: It is none over TCP, or has been closed.
"""
is_drained: Callable[[socket.socket], bool] = (
    is_drained_in_python if _native is None else _native.is_drained
)
"""
Whether nothing is lost if a connection is closed now: nothing that came is unread, and
the peer's kernel has all that was sent. Else the close is, or the peer's next bytes
make it, a reset, which overtakes what is still on its way.

Over a Unix socket, what was sent is with the peer at once. False where the kernel does
not say it.
"""


def bytes_unread(connection: socket.socket) -> int:
    """
    How many bytes have come that nobody has read (``SIOCINQ``, tcp(7), unix(7)).
    """
    return _asked(connection, FIONREAD)


def is_at_mark(descriptor: int) -> bool:
    """
    Whether urgent data are what comes next on a socket (``SIOCATMARK``, tcp(7)). A read
    passes over them; splice(2) moves neither them nor what is behind them.
    """
    return bool(_asked(descriptor, _SIOCATMARK))


def has_ended(connection: socket.socket) -> bool:
    """
    Whether the peer sends no more, also behind bytes that nobody has read.
    """
    poller = select.poll()
    poller.register(connection, select.POLLRDHUP)
    return bool(poller.poll(0))


def was_reset(connection: socket.socket) -> bool:
    """
    Whether the peer neither sends nor reads any more, also behind bytes that nobody has
    read.
    """
    poller = select.poll()
    # Errors are always reported.
    poller.register(connection, 0)
    return any(event & select.POLLERR for _, event in poller.poll(0))


def bytes_held(connection: socket.socket) -> int:
    """
    How many bytes that were sent the kernel still has (``SIOCOUTQ``, tcp(7), unix(7)).
    """
    return _asked(connection, TIOCOUTQ)


def _asked(connection: socket.socket | int, what: int) -> int:
    (count,) = _INT.unpack(ioctl(connection, what, bytes(_INT.size)))
    return int(count)


def close_both_ways(connection: socket.socket) -> None:
    """
    Close a connection even if another process has a descriptor of it, such as the one
    that handed it over.
    """
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The peer was faster.
        pass
    connection.close()
