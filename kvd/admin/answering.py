"""
Serves a twisted.web site on a listening socket, with bounds.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any, Final

from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.web import http
from twisted.web.http import HTTPChannel
from twisted.web.server import Request, Site

from kvd.net.factory import ServerFactory
from kvd.net.port import Port

MAX_CONNECTIONS: Final = 256
"""
The supervisor needs most of its descriptors for other things.
"""

MAX_LENGTH_BYTES: Final = 100
"""
The longest value of ``Content-Length``.
"""

MAX_BODY_BYTES: Final = 64 * 1024
"""
The largest body of a request; valid ones are short.
"""


class BoundedRequest(Request):
    """
    A request whose body has at most `MAX_BODY_BYTES`. Twisted would read and keep a
    body of any size; here a longer one ends the connection, before or while it arrives.
    """

    _body_bytes = 0
    _is_refused = False

    def gotLength(self, length: int | None) -> None:
        """
        See `twisted.web.http.Request.gotLength`.
        """
        is_long = length is not None and length > MAX_BODY_BYTES
        # For a long body, Twisted would create a file.
        super().gotLength(0 if is_long else length)
        if is_long:
            self._refuse_body()

    def handleContentChunk(self, data: bytes) -> None:
        """
        See `twisted.web.http.Request.handleContentChunk`.
        """
        self._body_bytes += len(data)
        if self._is_refused:
            return
        if self._body_bytes > MAX_BODY_BYTES:
            self._refuse_body()
        else:
            self.keep(data)

    def keep(self, data: bytes) -> None:
        """
        Keep a chunk of the body.
        """
        super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """
        See `twisted.web.http.Request.requestReceived`.
        """
        if not self._is_refused:
            super().requestReceived(command, path, version)

    def _refuse_body(self) -> None:
        self._is_refused = True
        # Otherwise the channel would ask for the body.
        self.requestHeaders.removeHeader(b"Expect")
        transport = self.channel.transport
        assert transport is not None
        transport.write(
            b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        self.channel.loseConnection()


class _Channel(HTTPChannel):
    """
    Refuses a ``Content-Length`` with more digits than Python converts: Twisted would
    log a traceback for each.
    """

    _is_refused = False

    def headerReceived(self, line: bytes) -> bool:
        """
        See `HTTPChannel.headerReceived`.
        """
        name, _, value = line.partition(b":")
        if name.lower() != b"content-length" or len(value) <= MAX_LENGTH_BYTES:
            return bool(super().headerReceived(line))
        self._is_refused = True
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        self.loseConnection()
        return False

    def lineReceived(self, line: bytes) -> None:
        """
        See `HTTPChannel.lineReceived`.
        """
        if not self._is_refused:
            super().lineReceived(line)


class QuietSite(Site):
    """
    A site without an access log: a client that asks for the status twenty times a
    second would fill it.
    """

    noisy = False
    # Without HTTP/2, for which Twisted puts another protocol in between.
    protocol: Any = _Channel

    def log(self, request: http.Request) -> None:
        pass


class _Connection(ProtocolWrapper):
    """
    Reports to its factory when a reply is written.
    """

    factory: _Bounded

    def write(self, data: bytes) -> None:
        self.factory.answered(self)
        super().write(data)

    def writeSequence(self, data: Sequence[bytes]) -> None:
        self.factory.answered(self)
        super().writeSequence(data)


class _Bounded(ServerFactory, WrappingFactory):
    """
    Accepts at most `MAX_CONNECTIONS`. A further connection replaces the one that was
    opened or answered longest ago: it is idle, or sends no request.
    """

    protocol = _Connection
    batch_size = 16

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        # In the order of their last replies.
        self._open: dict[_Connection, None] = {}

    def registerProtocol(self, p: _Connection) -> None:
        super().registerProtocol(p)
        if len(self._open) >= MAX_CONNECTIONS:
            first = next(iter(self._open))
            # Its protocol is notified in a later turn of the reactor.
            del self._open[first]
            first.abortConnection()
        self._open[p] = None

    def unregisterProtocol(self, p: _Connection) -> None:
        super().unregisterProtocol(p)
        self._open.pop(p, None)

    def answered(self, connection: _Connection) -> None:
        """
        Note that a part of a reply is written to a connection.
        """
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None


class Answering:
    """
    Serves a site on one socket.
    """

    def __init__(self, listener: socket.socket, site: Site, reactor: Any) -> None:
        """
        Args:
            listener: Listening and non-blocking; this object closes it.
            site: The site to serve.
            reactor: Adopts the socket (`kvd.net.reactor`).
        """
        with listener:
            self._port: Port = reactor.adoptStreamPort(
                listener.fileno(), listener.family, _Bounded(site)
            )

    def pause(self) -> None:
        """
        Leave connections in the queue until `resume`.
        """
        self._port.pauseProducing()

    def resume(self) -> None:
        """
        Accept again.
        """
        self._port.resumeProducing()

    def close(self) -> None:
        """
        Accept no further connection.
        """
        self._port.stopListening()
