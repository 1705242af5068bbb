"""
The socket below the body of a reply, for a caller that has the kernel move the rest.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IReadDescriptor)
class BodySocket:
    """
    A socket that its connection has stopped reading.
    """

    def __init__(self, descriptor: int, reactor: IReactorFDSet) -> None:
        """
        Args:
            descriptor: Of the socket; the connection closes it.
            reactor: Watches it in `wait`.
        """
        self._descriptor = descriptor
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None

    def wait(self) -> Deferred[None]:
        """
        Wait until bytes, or the end, have come. May be cancelled.
        """
        waiting: Deferred[None] = Deferred(lambda _: self._unwatch())
        self._waiting = waiting
        self._reactor.addReader(self)
        return waiting

    def leave(self) -> None:
        """
        Cancel a wait. Due before the connection is closed or read again.
        """
        if self._waiting is not None:
            self._waiting.cancel()

    def _unwatch(self) -> None:
        self._waiting = None
        self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "body"

    def doRead(self) -> None:
        waiting = self._waiting
        if waiting is not None:
            self._unwatch()
            waiting.callback(None)

    def connectionLost(self, reason: Failure) -> None:
        # The next read finds out.
        self.doRead()


def socket_of(transport: Any) -> BodySocket | None:
    """
    The socket below what `twisted.web.client` gives to the reader of a body; None if
    its bytes are not those of the body, as over TLS.
    """
    connection = getattr(transport, "_producer", None)
    if not isinstance(connection, Connection) or connection.TLS:
        return None
    return BodySocket(connection.fileno(), connection.reactor)
