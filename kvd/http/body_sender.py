"""
Sending the body of a reply, piece by piece, as the client takes it.

The kernel sends what is in a file, and moves on what comes over a connection
(`kvd.http.relay`). Everything else is read and written. The next piece is taken when
the client's socket has taken the one before, so a body needs no more memory than that.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from kvd.errors import StoreFault
from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.relay import Relay
from kvd.http.source import FilePart, Source, Stream
from kvd.http.wire.replies import LAST_CHUNK, chunk


class BodySender:
    """
    Sends one body, or the rest of it.
    """

    _relay: Relay | None = None
    """Moves what comes over a connection, while it does."""

    def __init__(
        self,
        connection: ConnectionLifecycle,
        source: Source,
        over: Callable[[BaseException | None], None],
        *,
        in_chunks: bool = False,
        sent: int = 0,
    ) -> None:
        """
        Args:
            connection: That of the client.
            source: Where the body comes from.
            over: Called when the whole body is written, or with what has gone wrong.
                `close` is still to be called then.
            in_chunks: Whether the body is chunked.
            sent: How many bytes were sent before.
        """
        self._connection = connection
        self._context = connection.context
        self._source = source
        self._over = over
        self._in_chunks = in_chunks
        self.sent = sent
        """How many bytes of the body the connection has taken."""

    def go_on(self) -> None:
        """
        Send the next piece, and all that follow it.
        """
        source = self._source
        try:
            if self._connection.transport.peer_left:
                self._over(None)
            elif self._in_chunks:
                # The kernel would put nothing around them.
                self._read(source)
            elif (part := source.file()) is not None:
                self._read_ahead(part)
            elif (stream := source.stream()) is not None and self._can_pass_on():
                self._pass_on(stream)
            else:
                self._read(source)
        except Exception as error:
            self._over(error)

    def close(self) -> None:
        """
        Send no more.
        """
        self._end_relay()
        self._source.close()

    # -- what is read and written ---------------------------------------------

    def _read(self, source: Source) -> None:
        data = source.next_chunk()
        if isinstance(data, Deferred):
            self._connection.when_answered(
                data, self._write, self._over, for_client=True
            )
        else:
            self._write(data)

    def _write(self, data: bytes) -> None:
        connection = self._connection
        if data:
            self.sent += len(data)
            connection.transport.write(chunk(data) if self._in_chunks else data)
            connection.when_taken(self.go_on)
            return
        if self._in_chunks:
            connection.transport.write(LAST_CHUNK)
        self._over(None)

    # -- what is in a file ----------------------------------------------------

    def _read_ahead(self, part: FilePart) -> None:
        """
        Send a part once it is in memory: until then, sending it would block.
        """
        context = self._context
        count = min(part.count, context.pieces.bytes)
        try:
            read = context.readahead(part.descriptor, part.offset, count)
        except OSError as error:
            raise _unreadable(error) from error
        if read is None:
            self._send_part(part, count)
        else:

            def is_read(_: None) -> None:
                self._send_part(part, count)

            self._connection.when_answered(read, is_read, self._over)

    def _send_part(self, part: FilePart, count: int) -> None:
        connection, source = self._connection, self._source
        try:
            sent = connection.transport.send_file(part.descriptor, part.offset, count)
        except OSError as error:
            if not source.lose_file():
                raise _unreadable(error) from error
            self.go_on()
            return
        if sent is None:
            if not source.lose_file():
                raise StoreFault("a value was cut short while it was sent")
            self.go_on()
            return
        source.sent(sent)
        self.sent += sent
        if sent == part.count and not source.has_more():
            self._over(None)
        else:
            connection.when_taken(self.go_on)

    # -- what comes over a connection -----------------------------------------

    def _can_pass_on(self) -> bool:
        """
        Whether the kernel can move a body from another socket to the client's.
        """
        transport = self._connection.transport
        return self._context.pipe is not None and transport.is_plain_tcp

    def _pass_on(self, stream: Stream) -> None:
        connection, context = self._connection, self._context
        assert context.pipe is not None
        transport = connection.transport
        if transport.queued:
            connection.when_taken(self.go_on)
            return
        relay = self._relay = Relay(
            transport, context.pipe, context.pieces, stream, self._relayed
        )
        connection.relay(relay.client_left)
        if relay.begin():
            # The caller goes on by itself.
            connection.relayed()
            self._passed_on(relay)

    def _relayed(self, relay: Relay, error: StoreFault | None) -> None:
        connection = self._connection
        if not connection.relayed():
            return
        try:
            if error is None:
                self._passed_on(relay)
            else:
                self._over(error)
        except Exception as failure:
            self._over(failure)
        connection.advance()

    def _passed_on(self, relay: Relay) -> None:
        stream = relay.stream
        self._end_relay()
        stream.taken(relay.taken, relay.ended)
        self.go_on()

    def _end_relay(self) -> None:
        relay, self._relay = self._relay, None
        if relay is not None:
            relay.stop()
            self.sent += relay.taken


def _unreadable(error: OSError) -> StoreFault:
    return StoreFault(f"a value cannot be read: {error.strerror}")
