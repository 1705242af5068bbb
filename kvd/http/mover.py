"""
Moving the body of a request from its socket to its file, or to the socket on which it
goes on, inside the kernel.

`kvd.net.splice` moves bytes. This module decides when, and how many have to arrive
before the worker wakes.
"""

from __future__ import annotations

from typing import Final

from kvd.http.wire.reader import RequestReader
from kvd.interfaces import IStreamedUpload
from kvd.net.splice import PIPE_BYTES, Passage, Pipe, Stopped
from kvd.net.transport import ServerTransport

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


def is_worth_moving(reader: RequestReader) -> bool:
    """
    Whether the rest of a body is long enough, and none of it has been read.
    """
    return reader.movable >= MOVE_FROM_BYTES


class BodyMover:
    """
    Moves one body, or the rest of it.
    """

    def __init__(
        self, pipe: Pipe, transport: ServerTransport, reader: RequestReader
    ) -> None:
        """
        Args:
            pipe: Moves bodies; all of a process share it.
            transport: Receives the body.
            reader: Knows the length of the body, and counts what was moved.
        """
        self._pipe = pipe
        self._transport = transport
        self._reader = reader
        self._moved = 0
        self._passage: Passage | None = None
        self._checked_moved = -1
        self._is_slow = False
        pipe.movers += 1

    def move(self, target: int, turn: int) -> int | Stopped:
        """
        Move what has arrived, up to this body's share of this turn of the reactor.

        Args:
            target: A descriptor of the file.
            turn: See `Pipe.may_move`.

        Returns:
            How many bytes were moved, or why no more can be.

        Raises:
            OSError: The socket has failed.
        """
        if not self._pipe.may_move(self, turn):
            # The socket stays readable, so the reactor calls again.
            return 0
        left = self._reader.movable
        moved = self._pipe.move(self._transport.fileno(), target, left)
        if isinstance(moved, Stopped):
            self._reader.moved(moved.count)
            return moved
        self._reader.moved(moved)
        self._moved += moved
        if moved < left:
            self._transport.set_low_water_mark(
                min(self._low_water_mark(moved), left - moved)
            )
        return moved

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

    def pass_on(
        self, upload: IStreamedUpload, descriptor: int, turn: int
    ) -> int | Stopped:
        """
        Move what has arrived to the socket of an upload, which has nothing queued. What
        it does not take is held; then no more may be moved before `send_held`.

        Args:
            upload: Is told what its socket has taken.
            descriptor: Of that socket.
            turn: See `Pipe.may_move`.

        Returns:
            See `move`.

        Raises:
            OSError: The client's socket has failed.
        """
        assert not self.holds
        if not self._pipe.may_move(self, turn):
            return 0
        left = self._reader.movable
        passage = self._passage
        if passage is None or passage.target != descriptor:
            passage = self._passage = Passage(self._transport.fileno(), descriptor)
        count = self._pipe.pass_on(passage, min(left, upload.movable))
        self._took(upload, count)
        held = passage.held
        # The mark of a file's: more than the pipe takes at once would only wait.
        mark = min(self._low_water_mark(count + held), PIPE_BYTES)
        self._transport.set_low_water_mark(max(1, min(mark, left - count - held)))
        if passage.rest or passage.ended or passage.barred:
            rest, passage.rest = passage.rest, b""
            return Stopped(count, rest, passage.ended)
        return count

    def send_held(self, upload: IStreamedUpload, descriptor: int) -> int:
        """
        Move what is held, as far as the socket takes it.

        Returns:
            How many bytes were moved.
        """
        passage = self._passage
        assert passage is not None
        assert passage.target == descriptor
        # If it has failed, the upload learns that from the reactor.
        count = self._pipe.pass_on(passage, 0)
        self._took(upload, count)
        return count

    def take_held(self) -> bytes:
        """
        What is held, to be written; no bytes if nothing is.
        """
        return b"" if self._passage is None else self._pipe.take_held(self._passage)

    def _took(self, upload: IStreamedUpload, count: int) -> None:
        self._reader.moved(count)
        upload.moved(count)
        self._moved += count

    def _low_water_mark(self, moved: int) -> int:
        """
        How many bytes have to arrive for the next event.
        """
        if self._is_slow:
            return 1
        if moved >= FAST_BYTES and self._transport.has_low_round_trip():
            return LOW_WATER_BYTES
        return self._transport.low_water_mark

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

    def stop(self) -> int:
        """
        Move no more; what arrives is read as usual. What is held is dropped.

        Returns:
            How many bytes were.
        """
        passage, self._passage = self._passage, None
        dropped = 0
        if passage is not None:
            dropped = passage.held
            passage.drop()
        self._pipe.movers -= 1
        self._pipe.forget(self)
        self._transport.set_low_water_mark(1)
        return dropped
