"""
Moving the body of a request from its socket to its file, or to the socket on which it
goes on, inside the kernel.

`kvd.net.splice` moves bytes. This module decides when, and how many have to arrive
before the worker wakes. As with the body of a reply (`kvd.http.relay`), one object
moves the whole body: it reads in place of the connection until no more can be moved.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST

from kvd.http.lifecycle import ConnectionLifecycle
from kvd.http.request import RequestHandler
from kvd.interfaces import IStreamedUpload
from kvd.net.splice import PIPE_BYTES, Passage, Pipe, Stopped

MOVE_FROM_BYTES: Final = 64 * 1024
"""
A body, or the rest of one, that is shorter is read and written: that is one read
then, and cheaper than two splices.
"""

FAST_BYTES: Final = 256 * 1024
"""
A client that sent this much for one event may be fast.
"""

LOW_WATER_BYTES: Final = 4 * 1024 * 1024
"""
The receive low-water mark for a fast client with a low round-trip time: the worker
wakes when this much has come, or the rest of the body. Waking for every 2 MiB cost half
as much again of CPU time per byte (40 MB to ``null:``). If a second brings nothing, the
worker takes what has come, and the rest of the body as it comes. A client with a longer
round-trip time would fill its window (``tcp_rmem``) and then wait for a round trip
until it hears that there is room again: with 20 ms, 1 Gbit/s and 6 MiB it sent 88 MB/s
instead of 122.
"""


def is_worth_moving(connection: ConnectionLifecycle, handler: RequestHandler) -> bool:
    """
    Whether the rest of a body is long enough, has a known length and is not encrypted,
    and its handler has a file or a socket for it.
    """
    if connection.transport.secure is not None:
        return False
    if connection.reader.movable < MOVE_FROM_BYTES:
        return False
    upload = handler.movable_to()
    if upload is None:
        return False
    if upload.fileno() is not None:
        return True
    streamed = IStreamedUpload(upload, None)
    return streamed is not None and streamed.socket() is not None


class BodyMover:
    """
    Moves one body, or the rest of it.

    It waits for the client, or for the socket on which the body goes on, never for
    both: what that socket does not take stays in a pipe, and no more is taken before
    that is empty.
    """

    def __init__(
        self, connection: ConnectionLifecycle, handler: RequestHandler, pipe: Pipe
    ) -> None:
        """
        Args:
            connection: Receives the body. It reads by this, until `stop`.
            handler: Of the request.
            pipe: Moves bodies; all of a process share it.
        """
        self._connection = connection
        self._handler = handler
        self._pipe = pipe
        self._transport = connection.transport
        self._reader = connection.reader
        self._row = connection.context.row
        self._moved = 0
        self._passage: Passage | None = None
        self._checked_moved = -1
        self._is_slow = False
        pipe.movers += 1
        self._transport.read_by(self._move)

    @property
    def holds(self) -> bool:
        """
        Whether bytes that were taken from the client wait for a socket. They count as
        moved when it has taken them.
        """
        return self.held > 0

    @property
    def held(self) -> int:
        """
        How many they are.
        """
        return 0 if self._passage is None else self._passage.held

    def check(self) -> None:
        """
        Called a few times a second: if the client has become slow, take what has
        arrived although it is less than the low-water mark. It is not, while its bytes
        wait for a socket.
        """
        if self._moved == self._checked_moved and not self.holds:
            self._is_slow = True
            self._transport.set_low_water_mark(1)
        self._checked_moved = self._moved

    def stop(self) -> None:
        """
        Move no more: the connection reads what arrives. What is held is dropped, but
        was received.
        """
        passage, self._passage = self._passage, None
        if passage is not None:
            if passage.held:
                self._connection.count_moved(passage.held)
            passage.drop()
        self._pipe.movers -= 1
        self._pipe.forget(self)
        self._transport.set_low_water_mark(1)
        self._connection.moves_no_more()

    def _move(self) -> Any:
        """
        Move what has arrived; called instead of `dataReceived`.
        """
        connection, handler = self._connection, self._handler
        upload = handler.movable_to() if connection.receives_for(handler) else None
        if upload is None:
            # The reply came early, or the connection waits for the store.
            return self._read_instead()
        file = upload.fileno()
        if file is not None:
            return self._write(file)
        streamed = IStreamedUpload(upload, None)
        descriptor = None if streamed is None else streamed.socket()
        if streamed is None or descriptor is None:
            return self._read_instead()
        return self._pass_on(streamed, descriptor)

    # -- to a file ------------------------------------------------------------

    def _write(self, file: int) -> Any:
        if not self._pipe.may_move(self, self._row.turn):
            # The socket stays readable, so the reactor calls again.
            return None
        left = self._reader.movable
        try:
            moved = self._pipe.move(self._transport.fileno(), file, left)
        except OSError:
            return CONNECTION_LOST
        if isinstance(moved, Stopped):
            self._took(moved.count)
            return self._stopped(moved)
        self._took(moved)
        if moved < left:
            mark = self._low_water_mark(moved)
            self._transport.set_low_water_mark(min(mark, left - moved))
        else:
            self.stop()
            self._connection.advance()
        return None

    def _stopped(self, stopped: Stopped) -> Any:
        result = self._give_way(stopped.rest, ended=stopped.ended)
        if stopped.rest and self._connection.receives_for(self._handler):
            # The file took them when they were written.
            self._connection.context.stop_moving()
        return result

    # -- to a socket ----------------------------------------------------------

    def _pass_on(self, upload: IStreamedUpload, descriptor: int) -> Any:
        if upload.queued:
            self._await_room(upload)
            return None
        assert not self.holds
        if not self._pipe.may_move(self, self._row.turn):
            return None
        left = self._reader.movable
        passage = self._passage
        if passage is None or passage.target != descriptor:
            passage = self._passage = Passage(self._transport.fileno(), descriptor)
        try:
            count = self._pipe.pass_on(passage, min(left, upload.movable))
        except OSError:
            return CONNECTION_LOST
        self._took(count)
        upload.moved(count)
        held = passage.held
        # The mark of a file's: more than the pipe takes at once would only wait.
        mark = min(self._low_water_mark(count + held), PIPE_BYTES)
        self._transport.set_low_water_mark(max(1, min(mark, left - count - held)))
        if passage.rest or passage.ended or passage.barred:
            rest, passage.rest = passage.rest, b""
            return self._give_way(rest, ended=passage.ended)
        if held:
            self._await_room(upload)
        return None

    def _await_room(self, upload: IStreamedUpload) -> None:
        """
        Go on when the socket takes more.
        """
        connection = self._connection

        def has_room(_: None) -> None:
            if self.holds:
                self._send_held(upload)

        def let_go(_: None) -> None:
            if self.holds and not connection.waits_for_store:
                # The request was refused: its bytes are skipped, as they come.
                self._read_held()

        connection.pause_input()
        room = upload.room()
        self._handler.when(room, has_room)
        room.addCallback(let_go)
        # It may have failed already.
        connection.advance()

    def _send_held(self, upload: IStreamedUpload) -> None:
        passage, descriptor = self._passage, upload.socket()
        if descriptor is None:
            self._read_held()
            return
        assert passage is not None
        assert passage.target == descriptor
        # If it has failed, the upload learns that from the reactor.
        count = self._pipe.pass_on(passage, 0)
        self._took(count)
        upload.moved(count)
        if self.holds:
            self._await_room(upload)

    # -- what cannot be moved -------------------------------------------------

    def _read_instead(self) -> Any:
        """
        Move no more, but read.
        """
        self._read_held()
        return self._transport.doRead()

    def _read_held(self) -> None:
        """
        Move no more, and have the connection take what is held, if anything is, as if
        it came now.
        """
        passage = self._passage
        held = b"" if passage is None else self._pipe.take_held(passage)
        self.stop()
        if held:
            self._connection.dataReceived(held)

    def _give_way(self, rest: bytes, *, ended: bool) -> Any:
        """
        Nothing more can be moved: the connection reads, and takes first what was left
        in the pipe.
        """
        if rest:
            self.stop()
            self._connection.dataReceived(rest)
        if ended:
            return CONNECTION_DONE
        return None if rest else self._read_instead()

    # -- counts, and when to wake ---------------------------------------------

    def _took(self, count: int) -> None:
        """
        The file or the socket has taken so many bytes.
        """
        self._moved += count
        self._reader.moved(count)
        self._handler.received += count
        self._connection.count_moved(count)

    def _low_water_mark(self, moved: int) -> int:
        """
        How many bytes have to arrive for the next event.
        """
        if self._is_slow:
            return 1
        if moved >= FAST_BYTES and self._transport.has_low_round_trip():
            return LOW_WATER_BYTES
        return self._transport.low_water_mark
