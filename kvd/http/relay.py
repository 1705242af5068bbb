"""
Moving the body of a reply from the socket on which it comes to the client's, inside the
kernel.

What a turn of the reactor costs here is not its system calls alone: engine and client
fill the processor's caches between two turns, so each function and each object that a
turn needs comes from memory. So one object moves the whole body, and those whose bytes
they are hear of them once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable

from kvd.errors import StoreFault
from kvd.http.pieces import Pieces
from kvd.http.source import Stream
from kvd.net.splice import Passage, Pipe
from kvd.net.transport import ServerTransport


class Relay:
    """
    Moves one body, or the rest of it.

    It waits for the source or for the client, never for both: what the client's socket
    does not take stays in a pipe, and no more is taken before that is empty.
    """

    def __init__(
        self,
        transport: ServerTransport,
        pipe: Pipe,
        pieces: Pieces,
        stream: Stream,
        over: Callable[[Relay, StoreFault | None], object],
    ) -> None:
        """
        Args:
            transport: The client's; nothing is queued there.
            pipe: Moves bodies; all of a process share it.
            pieces: How much is moved at a time.
            stream: Where the body comes from.
            over: Called with this and with what has gone wrong, if anything has,
                when there is no more to do after `begin` has returned.
        """
        self.stream = stream
        self.taken = 0
        """How many bytes were taken from the source."""
        self._transport = transport
        self._pipe = pipe
        self._pieces = pieces
        self._over = over
        self._passage = Passage(stream.descriptor, transport.fileno())
        self._begun = self._is_over = False
        self._fits = False

    @property
    def ended(self) -> bool:
        """
        Whether the source has ended or failed, or no more can be moved from it.
        """
        return self._passage.ended or self._passage.barred

    def begin(self) -> bool:
        """
        Begin to move. Returns whether there is no more to do.
        """
        self._go_on()
        self._begun = True
        return self._is_over

    def _go_on(self) -> None:
        """
        The client's socket takes more.
        """
        left = self._take()
        if left:
            self.stream.watch(left, self._take, self._end)

    def _take(self) -> int:
        """
        Move what has come. Returns how many bytes are to be waited for; 0 if none is,
        or not now.
        """
        transport, passage = self._transport, self._passage
        if transport.peer_left:
            self._end()
            return 0
        if not self._fits:
            self._fits = transport.fit_buffer()
        left = self.stream.count - self.taken
        held = passage.held
        try:
            sent = self._pipe.pass_on(passage, min(left, self._pieces.bytes))
        except OSError:
            passage.ended = True
            sent = 0
        transport.bytes_sent += sent
        taken = sent + passage.held - held
        self.taken += taken
        if passage.held:
            self._await_client()
            return 0
        if passage.rest:
            rest, passage.rest = passage.rest, b""
            self.taken += len(rest)
            transport.write(rest)
            if transport.queued:
                self._await_client()
                return 0
        left = self.stream.count - self.taken
        if left and not (passage.ended or passage.barred):
            return left
        self._end()
        return 0

    def _await_client(self) -> None:
        """
        Go on when the client's socket takes more.
        """
        transport, pieces = self._transport, self._pieces
        if self._passage.failed:
            transport.lose_peer()
            self._end()
            return
        pieces.measure()
        transport.limit_unsent(pieces.most_unsent)
        transport.after_flush(self._go_on)

    def client_left(self) -> None:
        """
        Nobody reads what is moved.
        """
        if not self._is_over:
            self._end()

    def _end(self, error: StoreFault | None = None) -> None:
        self.stop()
        if self._begun:
            self._over(self, error)

    def stop(self) -> None:
        """
        Move no more. The source is left by whoever knows it.
        """
        self._is_over = True
        self._passage.drop()
