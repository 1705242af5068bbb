"""
The daemon's end of the control socket.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import unix
from twisted.internet.address import UNIXAddress
from twisted.web.http import Request
from twisted.web.resource import Resource
from twisted.web.server import Site

from kvd.accepting import Acceptor


class StatusResource(Resource):
    """
    ``GET /status``.
    """

    isLeaf = True

    def __init__(self, status: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._status = status

    def render_GET(self, request: Request) -> bytes:
        request.setHeader("Content-Type", "application/json")
        return json.dumps(self._status()).encode("ascii") + b"\n"


class _QuietSite(Site):
    def log(self, request: Request) -> None:
        # Who asks for the status twenty times a second fills no log.
        pass


class ControlSite:
    """
    Answers on a control socket.
    """

    def __init__(
        self,
        listener: socket.socket,
        status: Callable[[], dict[str, Any]],
        reactor: Any,
    ) -> None:
        """
        Args:
            listener: Listening and non-blocking; owned by this.
            status: What ``/status`` answers.
            reactor: Watches the socket.
        """
        root = Resource()
        root.putChild(b"status", StatusResource(status))
        self._site = _QuietSite(root, reactor=reactor)
        self._reactor = reactor
        # Not adoptStreamPort: it makes the socket's file everybody's.
        self._acceptor = Acceptor(listener, self._accepted, reactor)
        self._acceptor.start()

    def _accepted(self, connection: socket.socket, peer: Any) -> None:
        protocol = self._site.buildProtocol(UNIXAddress(None))
        no_port: Any = None
        transport = unix.Server(connection, protocol, peer, no_port, 0, self._reactor)
        protocol.makeConnection(transport)

    def close(self) -> None:
        """
        Answer nobody new.
        """
        self._acceptor.close()
