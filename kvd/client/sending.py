"""
Sending the body of a PUT.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

from kvd.client.sources import ISource

_INFO: Final = struct.Struct("120xQ")
"""
The part of `tcp_info` in ``linux/tcp.h`` up to ``tcpi_bytes_acked``, which it unpacks.
"""


@implementer(IBodyProducer)
class Body:
    """
    Gives the pieces of a source to a connection, whenever it has room.

    For files, `twisted.web.client.FileBodyProducer` would do too, but it waits for the
    reactor after every 64 KiB, whether there is room or not.
    """

    def __init__(self, source: ISource) -> None:
        self.length = UNKNOWN_LENGTH if source.length is None else source.length
        self.failure: Failure | None = None
        """Why the source ended early; the agent wraps and hides it."""
        self._source = source
        self._consumer: IConsumer | None = None
        self._room: Deferred[None] | None = None
        self._paused = False
        self._sending: Deferred[None] | None = None
        self._stopped = False
        self._waits_for_source = False
        self._given_bytes = 0
        self.queued = True
        """Whether the connection may have bytes that its socket has not taken: the head
        of the request, before all others."""

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        finished: Deferred[None] = Deferred()

        def failed(failure: Failure) -> None:
            # After stopProducing the Deferred must not fire.
            if not self._stopped:
                self.failure = failure
                finished.errback(failure)

        self._consumer = consumer
        self._sending = Deferred.fromCoroutine(self._send(consumer))
        self._sending.addCallbacks(finished.callback, failed)
        return finished

    async def _send(self, consumer: IConsumer) -> None:
        while True:
            piece = self._source.next_piece()
            if isinstance(piece, Deferred):
                self._waits_for_source = True
                piece = await piece
                self._waits_for_source = False
            if not piece:
                return
            self._given_bytes += len(piece)
            self.queued = True
            consumer.write(piece)
            if self._paused:
                self._room = Deferred()
                await self._room

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        # Called when everything has been sent.
        self._paused = self.queued = False
        room, self._room = self._room, None
        if room is not None:
            room.callback(None)

    def stopProducing(self) -> None:
        self._stopped = True
        if self._sending is not None:
            self._sending.cancel()

    def socket(self) -> int | None:
        """
        The descriptor of the connection's socket, to which the caller may have the
        kernel move the next bytes while the source gives none and nothing is `queued`;
        report to `moved` what it took. None if there is no connection yet, or it takes
        no more, or if the bytes on it are not those of the body.
        """
        connection = self._connection()
        if self._stopped or connection is None or not connection.connected:
            return None
        return connection.fileno()

    def moved(self, count: int) -> None:
        """
        The socket has taken so many bytes of the body.
        """
        consumer: Any = self._consumer
        # It compares what is written with the length that the head says.
        consumer._length -= count
        self._given_bytes += count

    def room(self) -> Deferred[None]:
        """
        Wait until nothing is queued and the socket takes more. Never, if the connection
        is lost.
        """
        connection = self._connection()
        assert connection is not None
        assert self._room is None
        # As if it had taken too much: it calls `resumeProducing`.
        connection.producerPaused = True
        connection.startWriting()
        self._waits_for_source = False
        room = self._room = Deferred()

        def is_there(_: None) -> None:
            self._waits_for_source = True

        return room.addCallback(is_there)

    def _connection(self) -> Connection | None:
        connection = getattr(self._consumer, "_consumer", None)
        if not isinstance(connection, Connection) or connection.TLS:
            return None
        return connection

    def progress(self) -> object:
        """
        Another value whenever a byte has moved, and always while the source is waited
        for.

        Bytes may take long to go through a slow network after the connection took them,
        so those that the other end has acknowledged count.
        """
        if self._waits_for_source:
            return object()
        return self._given_bytes, *map(_acknowledged_bytes, self._transports())

    def abandon(self) -> None:
        """
        Stop reading the source, which can be closed or rewound after this, and abort
        the connection of a request that is not sent completely.

        An agent that has its reply still goes on sending. It reports an early end as an
        error, and does not close the connection before the end.
        """
        if self._sending is None or self._sending.called:
            return
        self.stopProducing()
        for transport in self._transports():
            transport.abortConnection()

    def _transports(self) -> Iterator[Any]:
        # The connection can be reached only through these names of the agent's: the
        # first with a chunked body, the second with a length.
        for name in ("transport", "_consumer"):
            transport = getattr(self._consumer, name, None)
            if transport is not None:
                yield transport


def _acknowledged_bytes(transport: Any) -> int:
    connection = getattr(transport, "socket", None)
    if connection is None:
        return 0
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size)
        acknowledged: int = _INFO.unpack(info)[0]
    except (OSError, struct.error):
        # It is closed, or the kernel is too old to count this.
        return 0
    return acknowledged
