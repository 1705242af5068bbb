"""
The socket below the body of a reply, for a caller that has the kernel move the rest.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

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

    def __init__(
        self,
        connection: socket.socket,
        reactor: Any,
        skip: Callable[[int], object] = lambda count: None,
    ) -> None:
        """
        Args:
            connection: The socket; its connection closes it.
            reactor: Watches it, and knows the time.
            skip: Tells the connection that so many bytes have been taken.
        """
        self._connection = connection
        self._reactor = reactor
        self._skip = skip
        self._take: Callable[[], int] | None = None
        self._silent: Callable[[], object] | None = None
        self._silent_seconds = 0.0
        self._is_watched = False
        """Whether the reactor watches it: until something comes that nobody waits for,
        since mostly it is waited for again before that."""
        self._timer: IDelayedCall | None = None
        self._due = 0.0
        """When the timer looks whether something has come. It is set anew when it does,
        not each time that something comes."""
        self._began = 0.0
        """When the present wait began."""
        self._wanted = LEAST_BYTES
        self._mark = 1

    def watch(
        self,
        count: int,
        take: Callable[[], int],
        silent_seconds: float,
        silent: Callable[[], object],
    ) -> None:
        """
        Have bytes taken whenever some, or the end, have come.

        Args:
            count: How many are to come. If there are many and they come fast, some of
                them are waited for, but not for long.
            take: Takes what has come, and returns how many bytes are to come then; 0:
                nothing is waited for any more.
            silent_seconds: The longest wait.
            silent: Called after that, when nothing is waited for any more.
        """
        self._take = take
        self._silent, self._silent_seconds = silent, silent_seconds
        self._wait(count)
        if not self._is_watched:
            self._is_watched = True
            self._reactor.addReader(self)

    def _wait(self, count: int) -> None:
        mark = count if count < self._wanted else self._wanted
        if mark != self._mark:
            self._set_mark(mark)
        now = self._began = self._reactor.seconds()
        longest = self._silent_seconds if mark == 1 else LATE_SECONDS
        if self._timer is None:
            self._set_timer(now, longest)
        elif now + longest < self._due:
            self._timer.cancel()
            self._set_timer(now, longest)

    def _set_timer(self, now: float, seconds: float) -> None:
        self._due = now + seconds
        self._timer = self._reactor.callLater(seconds, self._look)

    def _set_mark(self, mark: int) -> None:
        self._mark = mark
        # One that has failed is readable without it.
        with suppress(OSError):
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)

    def _look(self) -> None:
        """
        The wait has lasted long, if it is still the one that the timer was set for.
        """
        self._timer = None
        if self._take is None:
            return
        now = self._reactor.seconds()
        if self._mark > 1 and now >= self._began + LATE_SECONDS:
            self._wanted = LEAST_BYTES
            # If something has come, the reactor reports it now.
            self._set_mark(1)
        longest = self._silent_seconds if self._mark == 1 else LATE_SECONDS
        if now < self._began + longest:
            self._set_timer(now, self._began + longest - now)
            return
        silent = self._silent
        assert silent is not None
        self.leave()
        silent()

    def leave(self) -> None:
        """
        Wait no more. Due before the connection is closed.
        """
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        self._take = self._silent = None
        self._unwatch()

    def skip(self, count: int) -> None:
        """
        Wait no more: the connection reads on behind the bytes that were taken.

        Args:
            count: How many those are. Not all that were to come: by the last one the
                connection learns of the end.
        """
        self.leave()
        # Or it would wait for many bytes too.
        if self._mark > 1:
            self._set_mark(1)
        self._skip(count)

    def _unwatch(self) -> None:
        if self._is_watched:
            self._is_watched = False
            self._reactor.removeReader(self)

    def fileno(self) -> int:
        return self._connection.fileno()

    def logPrefix(self) -> str:
        return "body"

    def doRead(self) -> None:
        take = self._take
        if take is None:
            self._unwatch()
            return
        if self._mark > 1 and self._reactor.seconds() - self._began < SHORT_SECONDS:
            self._wanted = min(2 * self._wanted, MOST_BYTES)
        count = take()
        if self._take is not take:
            # It has left, and may wait for something else.
            return
        if count:
            self._wait(count)
        else:
            self._take = self._silent = None

    def connectionLost(self, reason: Failure) -> None:
        # The reactor watches no more. Whoever takes the next bytes finds out.
        self._is_watched = False
        self.doRead()
        if self._take is not None and not self._is_watched:
            self._is_watched = True
            self._reactor.addReader(self)


def socket_of(transport: Any) -> BodySocket | None:
    """
    The socket below what `twisted.web.client` gives to the reader of a body; None over
    TLS, where its bytes are not those of the body.

    Args:
        transport: Of the reader of a body whose length is known, and which has not
            ended: a chunked body has other bytes than its socket.
    """
    connection = getattr(transport, "_producer", None)
    if not isinstance(connection, Connection) or connection.TLS:
        return None
    protocol: Any = connection.protocol
    # That of an endpoint has the agent's.
    protocol = getattr(protocol, "_wrappedProtocol", protocol)
    decoder = protocol._parser.bodyDecoder

    def skip(count: int) -> None:
        decoder.contentLength -= count

    return BodySocket(connection.socket, connection.reactor, skip)
