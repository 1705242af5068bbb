"""
What a connection sends: at once where the socket takes it, else when it does.

Twisted's own transport queues every write until the reactor's next turn, and ends at
the first write error. But the kernel still has what the client sent before it left,
even after a reset (the receive queue outlives it), and that may be whole requests. So a
write error ends only the writing: whatever is written afterwards is dropped, and the
connection ends when all that had come has been read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet import tcp

from kvd.net.sockets import bytes_held, is_near, unheard_bytes

LOW_ROUND_TRIP_MICROSECONDS: Final = 100
"""
The round-trip time of a client on this machine, or next to it.
"""

LOW_ROUND_TRIP_SEND_BUFFER: Final = 192 * 1024
"""
How much of a large file the kernel takes at once for a client with a low round-trip
time; it doubles the number (socket(7)). By default it takes 4 MiB, which leave the
processor's cache before the client reads them: 0.6 times the rate, and 1.5 times the
processor time on both sides (40 MB to 8 clients on the same machine). A buffer has to
hold what is under way in a round trip; twice this in 100 microseconds is 3.9 GB/s.
"""

LARGE_FILE_BYTES: Final = 704 * 1024
"""
A smaller part of a file is sent through the buffer as it is. The kernel takes all of it
in one call, and the worker does not wake up again for the rest (512 KiB to 16 clients:
33 instead of 70 microseconds of processor time). For 768 KiB to 4 clients it would be
153 instead of 80.
"""

_ROUND_TRIP_LOOKUPS: Final = 16
"""
How often to look up the round-trip time of a client, if it was not low.
"""


class SendingConnection(tcp.Connection):
    """
    The half of `kvd.net.transport.ServerTransport` that sends.
    """

    bytes_sent = 0
    peer_left = False

    _round_trip_lookups = _ROUND_TRIP_LOOKUPS
    _low_round_trip = False
    _fitted = False
    _after_flush: Callable[[], None] | None = None
    _most_unsent: int | None = None
    _asked_to_write = False
    _flushes = False

    @property
    def queued(self) -> bool:
        """
        Whether bytes wait for the socket.
        """
        return bool(self._tempDataLen or self.dataBuffer)

    @property
    def bytes_delivered(self) -> int:
        """
        How many bytes the peer's kernel has acknowledged. Over a Unix socket, a number
        that grows as the peer reads.
        """
        if not self.connected:
            return self.bytes_sent
        return self.bytes_sent - bytes_held(self.socket)

    def unheard_bytes(self) -> int:
        """
        How many bytes the peer may read before this kernel hears of it.
        """
        return unheard_bytes(self.socket) if self.connected else 0

    def is_delivered(self) -> bool:
        """
        Whether the peer, or its kernel, has everything that was written.
        """
        return self.peer_left or not (self.queued or bytes_held(self.socket))

    def write(self, data: bytes) -> None:
        """
        Send at once what the socket takes, queue the rest.
        """
        if self.peer_left:
            return
        if self.queued or self.TLS or not self.connected:
            super().write(data)
            return
        try:
            sent = self.socket.send(data)
        except ConnectionError:
            self.peer_left = True
            return
        except OSError:
            # Full, or an error that the reactor finds too when it tries.
            sent = 0
        self.bytes_sent += sent
        if sent < len(data):
            super().write(data[sent:])

    def writeSomeData(self, data: bytes) -> Any:
        """
        See `tcp.Connection.writeSomeData`; counts.
        """
        sent = super().writeSomeData(data)
        if isinstance(sent, int):
            self.bytes_sent += sent
            return sent
        self.lose_peer()
        return len(data)

    def lose_peer(self) -> None:
        """
        Writing has failed.
        """
        self.peer_left = True
        self._tempDataBuffer, self._tempDataLen = [], 0
        # If the peer is still there, after some other error, both see the end: it
        # would wait for the reply, and this process for its next request.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def send_file(self, descriptor: int, offset: int, count: int) -> int | None:
        """
        Let the kernel send a part of a file (sendfile(2)), as much of it as the
        socket takes now.

        Args:
            descriptor: Of a regular file.
            offset: Where the part begins.
            count: How many bytes at most.

        Returns:
            How many bytes were sent; 0 if others are queued before them, or if
            the socket takes none now; None if the file ends here.

        Raises:
            OSError: The file cannot be read.
        """
        if self.queued or not self.connected:
            return 0
        if count >= LARGE_FILE_BYTES and not self._fitted:
            self.fit_buffer()
        try:
            sent = os.sendfile(self.socket.fileno(), descriptor, offset, count)
        except BlockingIOError:
            return 0
        except ConnectionError:
            self.peer_left = True
            return 0
        self.bytes_sent += sent
        return sent or None

    def has_low_round_trip(self) -> bool:
        """
        Whether the peer is on this machine or next to it. If it is, it stays so; if
        not, this looks again a few times, as the first round trip may have met a busy
        moment. Never over Unix sockets, whose buffers do not grow.
        """
        if self._round_trip_lookups and not self._low_round_trip:
            self._round_trip_lookups -= 1
            try:
                self._low_round_trip = is_near(self.socket, LOW_ROUND_TRIP_MICROSECONDS)
            except OSError:
                # A Unix socket; or the peer is gone.
                self._round_trip_lookups = 0
        return self._low_round_trip

    def fit_buffer(self) -> bool:
        """
        Have the kernel take little of a large body at once, if the peer has a low
        round-trip time.

        Returns:
            Whether that is decided; False: look again.
        """
        if self._fitted or not self.has_low_round_trip():
            return self._fitted or not self._round_trip_lookups
        self._fitted = True
        try:
            self.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, LOW_ROUND_TRIP_SEND_BUFFER
            )
        except OSError:
            # The peer is gone: the next send fails.
            pass
        return True

    def limit_unsent(self, count: int | None) -> None:
        """
        Limit how many bytes the kernel takes beyond those that are on their way to the
        client (``TCP_NOTSENT_LOWAT``): what one that reads nothing costs. `after_flush`
        calls back at half of it. Over Unix sockets, whose buffers do not grow, it has
        no effect.

        Args:
            count: None: as many as its buffer has room for.
        """
        if count == self._most_unsent or not self.connected:
            return
        self._most_unsent = count
        if self.socket.family != socket.AF_UNIX:
            # 0: as net.ipv4.tcp_notsent_lowat says.
            self.socket.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, count or 0
            )

    def after_flush(self, callback: Callable[[], None]) -> None:
        """
        Call back once, from a later turn of the reactor, when nothing is queued and
        the socket takes more; never if the connection is lost or closed before.
        """
        self._after_flush = callback
        if self.peer_left:
            self._flush_later()
        elif self._flushes:
            # The reactor watches for it still.
            self._asked_to_write = True
        else:
            self.startWriting()

    @property
    def waits_for_peer(self) -> bool:
        """
        Whether `after_flush` will call back.
        """
        return self._after_flush is not None

    def _flush_later(self) -> None:
        # Not when the socket takes more: to the reactor, one that was reset is lost.
        reactor: Any = self.reactor
        reactor.callLater(0, self._flushed)

    def _flushed(self) -> None:
        callback, self._after_flush = self._after_flush, None
        if callback is not None and not self._aborting:
            callback()

    def doWrite(self) -> Any:
        """
        See `FileDescriptor.doWrite`; calls back after the last queued byte.
        """
        callback = self._after_flush
        if callback is None:
            return super().doWrite()
        is_watched = True
        if self._tempDataLen or self.dataBuffer:
            result = super().doWrite()
            if self.queued:
                return result
            is_watched = False
        # Usually there is more to send, and nothing changes for the reactor.
        self._asked_to_write, self._flushes = False, is_watched
        self._after_flush = None
        try:
            callback()
        finally:
            self._flushes = False
        if not self._asked_to_write and self.connected:
            self.stopWriting()
        return None

    def startWriting(self) -> None:
        """
        See `FileDescriptor.startWriting`.
        """
        self._asked_to_write = True
        super().startWriting()

    def _drop_queue(self) -> None:
        self.dataBuffer, self.offset = b"", 0
        self._tempDataBuffer, self._tempDataLen = [], 0
