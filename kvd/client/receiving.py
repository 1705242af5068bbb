"""
Receiving the body of a reply.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.iweb import IResponse

from kvd.client.errors import BrokenOff, NotKvd, TimedOut
from kvd.client.sockets import BodySocket, socket_of
from kvd.client.timeouts import Silence, Timeout

HELD_BYTES: Final = 256 * 1024
MAX_LINE_BYTES: Final = 64 * 1024
DRAINED_BYTES: Final = 64 * 1024
"""
A body that is not longer costs less than a new connection.
"""


class Receiver(Protocol):
    """
    Holds the next bytes of a body for a caller that takes them piece by piece. While
    it holds enough, the connection is not read.
    """

    def __init__(
        self, timeout: Timeout, enough_bytes: int, length: int | None = None
    ) -> None:
        """
        Args:
            timeout: Of each wait for more.
            enough_bytes: While it holds so much, the connection is not read.
            length: That of the body; None: it is unknown.
        """
        self._timeout = timeout
        self._enough_bytes = enough_bytes
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._missing_bytes = length
        self._paused = False
        self._end: Failure | None = None
        self._socket: BodySocket | None = None
        self._taker: Deferred[None] | None = None

    async def take(self) -> bytes:
        """
        All bytes that are held, or the next that arrive; none at the end. If the wait
        is cancelled, the connection is closed.

        Raises:
            BrokenOff: The connection ended before the body did.
            TimedOut: No byte arrived; the connection has been closed.
        """
        if not self._held and self._end is None:
            self._resume()
            self._taker = Deferred()
            try:
                await self._timeout.wait_for(self._taker)
            except CancelledError:
                # Nobody else may know of this connection.
                self.stop()
                raise
            except Silence as error:
                self.stop()
                raise TimedOut(
                    "The server stopped in the middle of the reply: no byte arrived"
                    f" for {self._timeout.seconds:g} seconds."
                ) from error
        held = self.take_held()
        if held:
            return held
        assert self._end is not None
        if self._end.check(ResponseDone):
            return b""
        raise BrokenOff(
            "The connection ended in the middle of the reply."
        ) from self._end.value

    def take_held(self) -> bytes:
        """
        All bytes that are held, if any.
        """
        held, self._held, self._held_bytes = self._held, [], 0
        # The next come while the caller is busy with these.
        self._resume()
        return held[0] if len(held) == 1 else b"".join(held)

    def detach(self) -> BodySocket | None:
        """
        Stop reading, so that the caller can take the next bytes from the socket: none,
        and `take`, or some, and `skip` them, or `stop`.

        Returns:
            None if the socket has other bytes than the body, or if some are held. If
            not, `missing_bytes` is known.
        """
        if self._held or self._end is not None:
            return None
        if self._missing_bytes is None:
            # A chunked body, or one that is decoded on its way here.
            return None
        socket = socket_of(self.transport)
        if socket is not None and not self._paused:
            self._paused = True
            cast(IPushProducer, self.transport).pauseProducing()
        self._socket = socket
        return socket

    @property
    def missing_bytes(self) -> int | None:
        """
        How much of the body is still to come; None: it is unknown.
        """
        return self._missing_bytes

    def skip(self, count: int) -> None:
        """
        The caller has taken bytes from the socket that was detached.

        Args:
            count: See `BodySocket.skip`.
        """
        assert self._socket is not None
        self._socket.skip(count)
        if self._missing_bytes is not None:
            self._missing_bytes -= count

    def stop(self) -> None:
        """
        Close the connection. Does nothing after the end.
        """
        if self._end is None and self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._held.append(data)
        self._held_bytes += len(data)
        if self._missing_bytes is not None:
            self._missing_bytes -= len(data)
            if not self._missing_bytes:
                # The end follows at once. Who takes the last bytes then finds the
                # connection free for the next request.
                return
        self._wake()
        if self._held_bytes >= self._enough_bytes and not self._paused:
            self._paused = True
            cast(IPushProducer, self.transport).pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end = reason
        self._wake()

    def _resume(self) -> None:
        if self._paused and self._end is None:
            self._paused = False
            cast(IPushProducer, self.transport).resumeProducing()

    def _wake(self) -> None:
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.callback(None)


def receive(
    response: IResponse, timeout: Timeout, enough_bytes: int = HELD_BYTES
) -> Receiver:
    """
    Start receiving the body of a reply.

    Args:
        response: The reply.
        timeout: See `Receiver`.
        enough_bytes: See `Receiver`.
    """
    length = response.length
    known = length if isinstance(length, int) else None
    receiver = Receiver(timeout, enough_bytes, known)
    response.deliverBody(receiver)
    return receiver


class _Unread(Protocol):
    """
    Ignores a body.
    """

    ended = False

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended = True


def discard(response: IResponse) -> None:
    """
    Ignore the body of a reply.
    """
    reader = _Unread()
    response.deliverBody(reader)
    # After a body that has arrived whole, the connection serves the next request.
    if not reader.ended and reader.transport is not None:
        reader.transport.loseConnection()


def drain(response: IResponse, timeout: Timeout) -> None:
    """
    Ignore the body of a reply, but keep the connection if it is short. Where many
    requests are underway `discard` will not do: of a body that comes with the head,
    it closes the connection, which has a next request by then.

    Args:
        response: The reply.
        timeout: Of each wait for more.
    """
    receiver = receive(response, timeout)
    Deferred.fromCoroutine(_drain(receiver))


async def _drain(receiver: Receiver) -> None:
    left = DRAINED_BYTES
    try:
        while piece := await receiver.take():
            left -= len(piece)
            if left < 0:
                receiver.stop()
                return
    except (BrokenOff, TimedOut):
        # Nobody wants it, and the connection is closed.
        pass


async def lines(receiver: Receiver) -> AsyncIterator[bytes]:
    """
    The lines of a body, without their ends.
    """
    rest = b""
    while piece := await receiver.take():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            raise NotKvd("What answered is not kvd: a listing has no line so long.")
    if rest:
        yield rest
