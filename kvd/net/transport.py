"""
The server's end of a connection, and the one place where it is made.

Twisted's own transport leaves everything to the next turn of the reactor: it has a new
connection watched before it reads, queues every write, and closes when the socket is
writable. This one does each at once where it can: the first read, since the request of
a new connection has mostly come with it; a reply, if nothing is queued before it; and
the close after it. So a request with a connection of its own needs no epoll_ctl(2).

Twisted's transport also ends at the first write error. But the kernel still has what
the client sent before it left, even after a reset (the receive queue outlives it), and
that may be whole requests. So a write error ends only the writing: whatever is written
afterwards is dropped, and the connection ends when all that had come has been read.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet import tcp
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.net.sockets import (
    address_of,
    bytes_held,
    close_both_ways,
    is_settled,
    min_round_trip,
    name_of,
    unheard_bytes,
)
from kvd.net.splice import Pipe, Stopped

if TYPE_CHECKING:
    from kvd.net.secure_socket import SecureSocket

HEAD_BYTES: Final = 64 * 1024
"""
What one read takes, where a head is expected.
"""

BODY_BYTES: Final = 256 * 1024
"""
What one read takes of a body: each costs a system call and a walk through the
protocol, and 64 KiB cost two and a half times the CPU per byte of 1 MiB. It is returned
to the allocator as soon as the chunk is written.
"""

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

_ASKS: Final = 16
"""
How often to look up the round-trip time of a client, if it was not low.
"""

_CLOSED: Final = Failure(ConnectionDone())


class ServerTransport(tcp.Connection):
    """
    An accepted connection, over TCP or a Unix socket.

    Beyond `tcp.Connection`, it promises:

    - `write` sends at once if nothing is queued;
    - `loseConnection` closes at the end of a read that it is called in, if nothing
      is queued;
    - `after_flush` calls back when the kernel has taken everything written, so that
      a sender holds one chunk at a time;
    - `low_water_mark` is the receive low-water mark, in bytes (``SO_RCVLOWAT``);
    - `peer_left` says whether the peer reads no more: what is written then is
      dropped, as if the kernel had taken it, and what it had sent is still read;
    - `bytes_sent` grows with every byte that the kernel took;
    - `bytes_delivered` grows with every byte that the peer's kernel acknowledged,
      which distinguishes a slow reader from a dead one.
    """

    bufferSize = HEAD_BYTES

    needs_handshake = False
    """Whether a handshake comes before everything else (`kvd.net.tls_transport`)."""

    is_shaking = False
    """Whether it has begun and is not complete."""

    secure: SecureSocket | None = None
    """What encrypts and decrypts, once a handshake is complete; None over a plain
    connection, where the kernel may move bytes between the socket and files."""

    peer_user: str | None = None
    """The user that the client's certificate names; None: it has shown none, or over a
    plain connection."""

    proxy_name: str | None = None
    """The proxy that has made the connection for the client, for a log; None: the
    client has made it."""

    _log = Logger()

    def __init__(
        self,
        connection: socket.socket,
        protocol: Protocol,
        peer: Any,
        reactor: IReactorFDSet,
    ) -> None:
        super().__init__(connection, protocol, reactor)
        self.client = peer
        self.connected = 1
        self.bytes_sent = 0
        self.peer_left = False
        self.low_water_mark = 1
        self._asks = _ASKS
        self._low_round_trip = self._fitted = False
        self._read_by: Callable[[], Any] | None = None
        self._after_flush: Callable[[], None] | None = None
        self._most_unsent: int | None = None
        self._in_read = self._closes = self._asked_to_write = False
        self._unwatched = False
        # Before `begin` ends: whether the reactor is to watch for input afterwards.
        self._will_read: bool | None = True

    def begin(self, first: Callable[[], Any] | None = None) -> None:
        """
        Read what has come already. The reactor watches the connection only if it stays.

        Args:
            first: Called in place of the first read, if something has read before.
        """
        try:
            self._read_with(first or self._read_by or self.read)
        except Exception:
            self._log.failure("a connection failed at its first bytes")
            self.connectionLost(Failure())
        if self._closes and self.connected:
            self._close()
            return
        # Whatever else was read here, an end or an error, is read again.
        will_read, self._will_read = self._will_read, None
        if will_read:
            self.startReading()

    def read_again(self) -> None:
        """
        Read as if the reactor had reported input, while it does not watch for it; it
        does so afterwards.
        """
        self._will_read = True
        self.begin()

    def handshake(self) -> bool:
        """
        See `kvd.net.tls_transport.TLSTransport.handshake`.
        """
        return True

    def startReading(self) -> None:
        """
        See `FileDescriptor.startReading`.
        """
        if self._will_read is not None:
            self._will_read = True
            return
        try:
            super().startReading()
        except OSError as error:
            self._be_unwatched(error)

    def startWriting(self) -> None:
        """
        See `FileDescriptor.startWriting`.
        """
        self._asked_to_write = True
        try:
            super().startWriting()
        except OSError as error:
            self._be_unwatched(error)

    def _be_unwatched(self, error: OSError) -> None:
        """
        The kernel watches no more (epoll_ctl(2): ENOSPC, ENOMEM), so the connection can
        neither go on nor wait: it ends in the reactor's next turn.
        """
        if self._unwatched:
            return
        self._unwatched = True
        self._log.warn(
            "a connection ends, since the kernel watches no more of them: {error}",
            error=error.strerror,
        )

        def end() -> None:
            if self.connected:
                unwatched = getattr(self.protocol, "unwatched", None)
                if unwatched is not None:
                    unwatched()
                self.connectionLost(Failure(error))

        reactor: Any = self.reactor
        reactor.callLater(0, end)

    def stopReading(self) -> None:
        """
        See `FileDescriptor.stopReading`.
        """
        if self._will_read is None:
            super().stopReading()
        else:
            self._will_read = False

    def logPrefix(self) -> str:
        """
        See `ILoggingContext`.
        """
        return "kvd"

    def getHost(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """
        See `ITransport.getHost`.
        """
        return address_of(self.socket.getsockname())

    def getPeer(self) -> IPv4Address | IPv6Address | UNIXAddress:
        """
        See `ITransport.getPeer`.
        """
        return address_of(self.client)

    def setTcpNoDelay(self, enabled: bool) -> None:
        """
        See `ITCPTransport.setTcpNoDelay`. A Unix socket never delays.
        """
        if self.socket.family != socket.AF_UNIX:
            super().setTcpNoDelay(enabled)

    def is_forwarded_for(self, client: Any) -> None:
        """
        The peer is a proxy, and this is its client.

        Args:
            client: As ``accept`` would say of it.
        """
        self.proxy_name = self.peer_name
        self.client = client

    @property
    def peer_name(self) -> str:
        """
        The client for a log: its address and port, or ``unix``.
        """
        return name_of(self.client)

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

    def write(self, data: bytes) -> None:
        """
        Send at once what the socket takes, queue the rest.
        """
        if self.peer_left:
            return
        if self._tempDataLen or self.dataBuffer or self.TLS or not self.connected:
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
        self.peer_left = True
        self._tempDataBuffer, self._tempDataLen = [], 0
        # If the peer is still there, after some other error, both see the end: it
        # would wait for the reply, and this process for its next request.
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        return len(data)

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
        if count >= LARGE_FILE_BYTES and not self._fitted and self.has_low_round_trip():
            self._fit_buffer()
        try:
            sent = os.sendfile(self.socket.fileno(), descriptor, offset, count)
        except BlockingIOError:
            return 0
        except ConnectionError:
            self.peer_left = True
            return 0
        self.bytes_sent += sent
        return sent or None

    @property
    def is_plain_tcp(self) -> bool:
        """
        Whether the bytes that are sent are those on the socket, and that is TCP's.
        """
        return self.secure is None and self.socket.family != socket.AF_UNIX

    def pass_on(self, pipe: Pipe, source: int, count: int) -> tuple[int, bool]:
        """
        Let the kernel move bytes from another socket to this one (splice(2)); those
        that this one does not take now are queued.

        Args:
            pipe: Moves them.
            source: The descriptor of the other socket, which does not block.
            count: How many bytes at most.

        Returns:
            How many bytes were taken from the other socket; 0 if others are queued
            before them, or if none have come. Whether that socket has ended or failed.
        """
        if self.queued or not self.connected:
            return 0, False
        if not self._fitted and self.has_low_round_trip():
            self._fit_buffer()
        try:
            moved = pipe.move(source, self.socket.fileno(), count)
        except OSError:
            return 0, True
        if not isinstance(moved, Stopped):
            self.bytes_sent += moved
            return moved, False
        self.bytes_sent += moved.count
        if moved.rest:
            self.write(moved.rest)
        return moved.count + len(moved.rest), moved.ended

    def has_low_round_trip(self) -> bool:
        """
        Whether the peer is on this machine or next to it. If it is, it stays so; if
        not, this looks again a few times, as the first round trip may have met a busy
        moment. Never over Unix sockets, whose buffers do not grow.
        """
        if self._asks and not self._low_round_trip:
            self._asks -= 1
            try:
                self._low_round_trip = (
                    min_round_trip(self.socket) <= LOW_ROUND_TRIP_MICROSECONDS
                )
            except OSError:
                # A Unix socket; or the peer is gone.
                self._asks = 0
        return self._low_round_trip

    def _fit_buffer(self) -> None:
        """
        Have the kernel take little of a file at once.
        """
        self._fitted = True
        try:
            self.socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDBUF, LOW_ROUND_TRIP_SEND_BUFFER
            )
        except OSError:
            # The peer is gone: the next send fails.
            pass

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
        else:
            self.startWriting()

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
        if self._after_flush is None:
            return super().doWrite()
        if self.queued:
            result = super().doWrite()
            if self.queued:
                return result
        # Usually there is more to send, and nothing changes for the reactor.
        self._asked_to_write = False
        callback, self._after_flush = self._after_flush, None
        callback()
        if not self._asked_to_write and self.connected:
            self.stopWriting()
        return None

    def read_by(self, reader: Callable[[], Any] | None) -> None:
        """
        Have `reader` called when there is input, in place of the protocol's
        `dataReceived`; it answers as `IReadDescriptor.doRead` does. None: the protocol
        reads again.
        """
        self._read_by = reader

    def set_low_water_mark(self, count: int) -> None:
        """
        Set the receive low-water mark (``SO_RCVLOWAT``, socket(7), tcp(7)): the reactor
        wakes for input when this many bytes have come, at the end of the stream, or
        when the kernel has no room for more. At first 1; over a Unix socket it has no
        effect.
        """
        if count != self.low_water_mark and self.connected:
            self.low_water_mark = count
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def doRead(self) -> Any:
        """
        See `tcp.Connection.doRead`.
        """
        return self._read_with(self._read_by or self.read)

    def read(self) -> Any:
        """
        Read for the protocol's `dataReceived`. A reader may call it.
        """
        return super().doRead()

    def _read_with(self, reader: Callable[[], Any]) -> Any:
        self._in_read = True
        try:
            result = reader()
        finally:
            self._in_read = False
        if self._closes:
            return CONNECTION_DONE
        if result is CONNECTION_LOST:
            # All that had come was read before. The reader sees an end, as of a peer
            # that sends no more.
            self.peer_left = True
            self._drop_queue()
            return CONNECTION_DONE
        return result

    def _drop_queue(self) -> None:
        self.dataBuffer, self.offset = b"", 0
        self._tempDataBuffer, self._tempDataLen = [], 0

    def loseWriteConnection(self) -> None:
        """
        Close our half after what was written has gone out.
        """
        self._after_flush = None
        if self.queued or not self.connected:
            super().loseWriteConnection()
            return
        self._writeDisconnecting = self._writeDisconnected = True
        self._closeWriteConnection()

    def loseConnection(self) -> None:
        """
        Close after what was written has gone out.
        """
        self._after_flush = None
        if self._in_read and self.connected and not self.queued:
            self._closes = True
        else:
            super().loseConnection()

    def readConnectionLost(self, reason: Failure) -> None:
        """
        See `tcp.Connection.readConnectionLost`; also called when a read has ended
        the connection by itself.
        """
        if self._closes:
            self._close()
        else:
            super().readConnectionLost(reason)

    def connectionLost(self, reason: Failure) -> None:
        """
        See `tcp.Connection.connectionLost`. If the reactor reports the loss while
        nothing reads, what had come is read first.
        """
        lost = type(reason.value) is ConnectionLost
        if self.peer_left or self.disconnecting or not lost:
            self._after_flush = None
            super().connectionLost(reason)
            return
        self.peer_left = True
        self._drop_queue()
        if self._after_flush is not None:
            # What waits for it goes on, and reads.
            self._flush_later()
        else:
            self.startReading()

    def _close(self) -> None:
        """
        What `connectionLost` does, for a connection that the reactor watches no more
        and that has nothing queued: a third of the time.
        """
        self.connected, self.disconnected = 0, 1
        protocol, sock = self.protocol, self.socket
        # As the base class does: so it knows that this has happened.
        del self.protocol, self.socket, self.fileno
        close_both_ways(sock)
        protocol.connectionLost(_CLOSED)

    def is_settled(self) -> bool:
        """
        Whether nothing is lost if both halves are closed now; see the function.
        """
        return not self.queued and is_settled(self.socket)

    def is_delivered(self) -> bool:
        """
        Whether the peer, or its kernel, has everything that was written.
        """
        return self.peer_left or not (self.queued or bytes_held(self.socket))

    def has_input(self) -> bool:
        """
        Whether bytes (or the end of the stream) have come that nobody read.
        """
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True


MakeTransport = Callable[[socket.socket, Protocol, Any, IReactorFDSet], ServerTransport]
"""
As `ServerTransport` is made.
"""


def serve_connection(
    connection: socket.socket,
    peer: Any,
    protocol: Protocol,
    reactor: IReactorFDSet,
    first: Callable[[], Any] | None = None,
    make_transport: MakeTransport = ServerTransport,
) -> ServerTransport:
    """
    Join an accepted socket to a protocol, whoever accepted it.

    Args:
        connection: The socket; the transport owns it from here on.
        peer: What ``accept`` said of the other end.
        protocol: Serves it; its ``makeConnection`` is called, and if bytes have come
            already, its ``dataReceived``.
        reactor: Watches it.
        first: See `ServerTransport.begin`.
        make_transport: Makes the transport.
    """
    transport = make_transport(connection, protocol, peer, reactor)
    protocol.makeConnection(transport)
    transport.begin(first)
    return transport
