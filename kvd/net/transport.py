"""
The server's end of a connection, and the one place where it is made.

Twisted's own transport leaves everything to the next turn of the reactor: it has a new
connection watched before it reads, queues every write, and closes when the socket is
writable. This one does each at once where it can: the first read, since the request of
a new connection has mostly come with it; a reply, if nothing is queued before it; and
the close after it. So a request with a connection of its own needs no epoll_ctl(2).
`kvd.net.sending` has the half that sends.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IReactorFDSet
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.net.sending import SendingConnection
from kvd.net.sockets import (
    address_of,
    bytes_unread,
    close_both_ways,
    is_drained,
    name_of,
)

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

_CLOSED: Final = Failure(ConnectionDone())


class ServerTransport(SendingConnection):
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

    peer_expires: float | None = None
    """When the client's certificate expires, in seconds since the epoch; None: it has
    shown none, or over a plain connection."""

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
        self.low_water_mark = 1
        self._read_by: Callable[[], Any] | None = None
        self._in_read = self._closes = False
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

    def has_expired(self) -> bool:
        """
        Whether the certificate that the client has shown is valid no more.
        """
        return self.peer_expires is not None and time.time() >= self.peer_expires

    @property
    def is_plain_tcp(self) -> bool:
        """
        Whether the bytes that are sent are those on the socket, and that is TCP's.
        """
        return self.secure is None and self.socket.family != socket.AF_UNIX

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
        if self._closes or self._writeDisconnected:
            # Nothing is left to wait for: this half is closed, as the other one is now.
            self.stopWriting()
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

    def is_drained(self) -> bool:
        """
        Whether nothing is lost if both halves are closed now; see the function.
        """
        return not self.queued and is_drained(self.socket)

    def most_unread(self) -> int:
        """
        How many bytes at most have come that nobody read: those of the records, over
        TLS.
        """
        return bytes_unread(self.socket)

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
