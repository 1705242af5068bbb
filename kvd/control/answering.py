"""
A listening socket and a twisted.web site, put together.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import unix
from twisted.internet.address import UNIXAddress
from twisted.protocols.policies import WrappingFactory
from twisted.web.http import Request
from twisted.web.server import Site

from kvd.accepting import Acceptor

MAX_CONNECTIONS: Final = 256
"""
The supervisor needs its descriptors for other things than being asked how it is.
"""


class QuietSite(Site):
    """
    A site without a log: who asks for the status twenty times a second fills none.
    """

    noisy = False

    def log(self, request: Request) -> None:
        pass


class _Bounded(WrappingFactory):
    """
    Turns away whoever comes when `MAX_CONNECTIONS` are open.
    """

    noisy = False

    def buildProtocol(self, addr: Any) -> Any:
        if len(self.protocols) >= MAX_CONNECTIONS:
            return None
        return super().buildProtocol(addr)


class Answering:
    """
    Answers at one socket.
    """

    def __init__(self, listener: socket.socket, site: Site, reactor: Any) -> None:
        """
        Args:
            listener: Listening and non-blocking; owned by this.
            site: Answers.
            reactor: Watches the socket.
        """
        self._factory = _Bounded(site)
        self._reactor = reactor
        self._end: Callable[[], object]
        if listener.family == socket.AF_UNIX:
            # Not adoptStreamPort: it makes the socket's file everybody's.
            acceptor = Acceptor(listener, self._accepted, reactor)
            acceptor.start()
            self._end = acceptor.close
            return
        with listener:
            port = reactor.adoptStreamPort(
                listener.fileno(), listener.family, self._factory
            )
        self._end = port.stopListening

    def _accepted(self, connection: socket.socket, peer: Any) -> None:
        protocol = self._factory.buildProtocol(UNIXAddress(None))
        if protocol is None:
            connection.close()
            return
        no_port: Any = None
        transport = unix.Server(connection, protocol, peer, no_port, 0, self._reactor)
        protocol.makeConnection(transport)

    def close(self) -> None:
        """
        Answer nobody new.
        """
        self._end()
