"""
A listening socket and a twisted.web site, put together.
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
The supervisor needs its descriptors for other things than being asked how it is.
"""

MAX_LENGTH_BYTES: Final = 100
"""
Of the value of a ``Content-Length``.
"""

MAX_BODY_BYTES: Final = 64 * 1024
"""
Of a request: what is said here is short, and most of what is not is refused.
"""


class BoundedRequest(Request):
    """
    A request whose body is no longer than `MAX_BODY_BYTES`: Twisted would read any, and
    keep it. For a longer one the connection ends, before or while it comes.
    """

    _body_bytes = 0
    _is_refused = False

    def gotLength(self, length: int | None) -> None:
        """
        See `twisted.web.http.Request.gotLength`.
        """
        is_long = length is not None and length > MAX_BODY_BYTES
        # For a long one it would make a file.
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
        A piece of the body.
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
        # Else the channel would ask for the body.
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
    Refuses a length of so many digits that Python makes no number of it: Twisted would
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
    A site without a log: who asks for the status twenty times a second fills none.
    """

    noisy = False
    # No HTTP/2, for which Twisted has another in between.
    protocol: Any = _Channel

    def log(self, request: http.Request) -> None:
        pass


class _Connection(ProtocolWrapper):
    """
    Tells when it is answered.
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
    Whoever comes when `MAX_CONNECTIONS` are open takes the place of the one that has
    waited longest since it came or was answered: that is idle, or sends no request.
    """

    protocol = _Connection
    batch_size = 16

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        # In the order of their last answers.
        self._open: dict[_Connection, None] = {}

    def registerProtocol(self, p: _Connection) -> None:
        super().registerProtocol(p)
        if len(self._open) >= MAX_CONNECTIONS:
            first = next(iter(self._open))
            # It is told a turn of the reactor later.
            del self._open[first]
            first.abortConnection()
        self._open[p] = None

    def unregisterProtocol(self, p: _Connection) -> None:
        super().unregisterProtocol(p)
        self._open.pop(p, None)

    def answered(self, connection: _Connection) -> None:
        """
        A part of a reply is on its way.
        """
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None


class Answering:
    """
    Answers at one socket.
    """

    def __init__(self, listener: socket.socket, site: Site, reactor: Any) -> None:
        """
        Args:
            listener: Listening and non-blocking; owned by this.
            site: Answers.
            reactor: Adopts the socket, in kvd's way (`kvd.net.reactor`).
        """
        with listener:
            self._port: Port = reactor.adoptStreamPort(
                listener.fileno(), listener.family, _Bounded(site)
            )

    def close(self) -> None:
        """
        Answer nobody new.
        """
        self._port.stopListening()
