"""
The socket below the body of a reply, for a caller that has the kernel move the rest.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from zope.interface import implementer

LEAST_BYTES: Final = 32 * 1024
MOST_BYTES: Final = 512 * 1024
"""
Between these is the receive low-water mark (``SO_RCVLOWAT``): the caller wakes when so
much has come. Swift sends 64 KiB at a time, and each of them woke the caller: 40 MB
took a worker of kvd 40 ms of processor time, and 24 with marks up to this.
"""

SHORT_SECONDS: Final = 0.002
"""
What came within this time comes fast: the mark is doubled.
"""

LATE_SECONDS: Final = 0.02
"""
After this time the caller wakes for whatever has come, and the mark is the least again.
"""


@implementer(IReadDescriptor)
class BodySocket:
    """
    A socket that its connection has stopped reading.
    """

    def __init__(self, connection: socket.socket, reactor: Any) -> None:
        """
        Args:
            connection: The socket; its connection closes it.
            reactor: Watches it in `wait`, and knows the time.
        """
        self._connection = connection
        self._reactor = reactor
        self._waiting: Deferred[None] | None = None
        self._late: IDelayedCall | None = None
        self._began = 0.0
        self._wanted = LEAST_BYTES
        self._mark = 1

    def wait(self, count: int = 1) -> Deferred[None]:
        """
        Wait until bytes, or the end, have come. May be cancelled.

        Args:
            count: How many are to come. If there are many and they come fast, some of
                them are waited for, but not for long. Not to be read by the connection
                afterwards: it would wait for them too.
        """
        self._set_mark(max(1, min(count, self._wanted)))
        if self._mark > 1:
            self._began = self._reactor.seconds()
            self._late = self._reactor.callLater(LATE_SECONDS, self._is_late)
        waiting: Deferred[None] = Deferred(lambda _: self._unwatch())
        self._waiting = waiting
        self._reactor.addReader(self)
        return waiting

    def _set_mark(self, mark: int) -> None:
        if mark == self._mark:
            return
        self._mark = mark
        # One that has failed is readable without it.
        with suppress(OSError):
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)

    def _is_late(self) -> None:
        self._late = None
        self._wanted = LEAST_BYTES
        # If something has come, the reactor reports it now.
        self._set_mark(1)

    def leave(self) -> None:
        """
        Cancel a wait. Due before the connection is closed or read again.
        """
        if self._waiting is not None:
            self._waiting.cancel()

    def _unwatch(self) -> None:
        self._waiting = None
        self._reactor.removeReader(self)
        late, self._late = self._late, None
        if late is not None:
            late.cancel()
            if self._reactor.seconds() - self._began < SHORT_SECONDS:
                self._wanted = min(2 * self._wanted, MOST_BYTES)

    def fileno(self) -> int:
        return self._connection.fileno()

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
    return BodySocket(connection.socket, connection.reactor)
