"""
Moving bytes from a socket to a file, or to another socket, inside the kernel.

splice(2) wants a pipe between the two. One is enough for files: it is empty whenever
`Pipe.move` returns, so it belongs to nobody in between. A socket may take only a part:
then the pipe stays with that `Passage` until it has taken the rest, and other bodies
go through another one. (A user without privileges gets 64 pipes of 1 MiB; later ones
are small.)
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from kvd.native import compiled
from kvd.net.sockets import is_at_mark

PIPE_BYTES: Final = 1024 * 1024
"""
What a pipe is asked to hold; /proc/sys/fs/pipe-max-size allows that much.
"""

TURN_SECONDS: Final = 0.004
"""
What all bodies together are given of one turn of the reactor: others wait meanwhile.
How many bytes that is depends on where they go; it is judged by the last moves.
"""

MOST_BYTES: Final = 4 * 1024 * 1024
LEAST_BYTES: Final = 128 * 1024
"""
What each is given for one event at most, and at least. (``docs/design.rst`` has the
measurements.)
"""

MOST_SPARE: Final = 8
"""
How many empty pipes are kept for the next sockets that take only a part.
"""

_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


@dataclass(frozen=True, slots=True)
class Stopped:
    """
    Why no more can be moved from the socket to the file.
    """

    count: int
    """So many bytes have reached the file."""
    rest: bytes
    """These came from the socket after them, and the file did not take them in
    this way: they have to be written, which succeeds or says why not. If there are
    none, and the socket has not ended, what comes next has to be read."""
    ended: bool
    """The socket has ended or failed."""


@dataclass(frozen=True, slots=True)
class _Ends:
    """
    The two ends of a pipe.
    """

    out: int
    into: int
    size: int

    def close(self) -> None:
        """
        Let go of them, and of what the pipe holds.
        """
        os.close(self.out)
        os.close(self.into)


def _open_pipe() -> _Ends:
    """
    Raises:
        OSError: This process has no descriptor left, or the kernel no memory.
    """
    out, into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        try:
            size = fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except PermissionError:
            # This user has many already; then it stays as it was made.
            size = fcntl.fcntl(into, fcntl.F_GETPIPE_SZ)
    except BaseException:
        os.close(out)
        os.close(into)
        raise
    return _Ends(out, into, size)


class Passage:
    """
    The way of one body from a socket to another one.

    It lives as long as the body, so that a turn of the reactor makes nothing anew.
    """

    __slots__ = (
        "barred",
        "ended",
        "ends",
        "failed",
        "held",
        "rest",
        "source",
        "target",
    )

    def __init__(self, source: int, target: int) -> None:
        """
        Args:
            source: The descriptor of a socket that does not block.
            target: That of another one.
        """
        self.source = source
        self.target = target
        self.held = 0
        """So many bytes were taken from the source, and wait in a pipe."""
        self.ends: _Ends | None = None
        """That pipe; None: none waits."""
        self.rest = b""
        """These were taken, and wait for nothing: there was no pipe left for them."""
        self.ended = False
        """Whether the source has ended or failed."""
        self.failed = False
        """Whether the target has."""
        self.barred = False
        """Whether urgent data stand before the next bytes of the source. The kernel
        moves nothing past them, and the socket stays readable: it has to be read."""

    def drop(self) -> None:
        """
        Nobody wants what is held any more.
        """
        ends, self.ends, self.held = self.ends, None, 0
        if ends is not None:
            ends.close()


def _read(descriptor: int, count: int) -> bytes:
    """
    Read bytes that are in a pipe.
    """
    pieces = []
    while count:
        piece = os.read(descriptor, count)
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


class Mover(Protocol):
    """
    Moves bytes from a socket through a pipe to a file or another socket.
    """

    def __call__(
        self,
        source: int,
        pipe_in: int,
        pipe_out: int,
        pipe_bytes: int,
        target: int,
        limit: int,
        held: int,
        /,
    ) -> int | tuple[int, int, bool, bool]:
        """
        Empty the pipe, and move what is there, without waiting for more.

        Args:
            source: The socket.
            pipe_in: Where the pipe is filled.
            pipe_out: Where it is emptied.
            pipe_bytes: What it can hold.
            target: The file, or the other socket.
            limit: How many bytes are taken from the source at most.
            held: How many are in the pipe already. If they stay there, no more are
                taken.

        Returns:
            How many bytes have reached the target; or that, how many are left in the
            pipe because the target did not take them, whether the source has ended or
            failed, and whether the target has failed, if any of these is so.

        Raises:
            OSError: The source has failed, and nothing was moved.
        """


def move(
    source: int,
    pipe_in: int,
    pipe_out: int,
    pipe_bytes: int,
    target: int,
    limit: int,
    held: int,
) -> int | tuple[int, int, bool, bool]:
    """
    See `Mover`. What ``kvd/native/splice.c`` does too: with it, 40 MB to ``null:`` took
    a fifth less of CPU time.
    """
    taken = 0
    count, failed = _empty(pipe_out, target, held)
    left = held - count
    while taken < limit and not left:
        try:
            filled = os.splice(
                source, pipe_in, min(limit - taken, pipe_bytes), flags=_FLAGS
            )
        except BlockingIOError:
            break
        except OSError:
            if not count:
                raise
            # What came before it counts.
            return count, 0, True, False
        if not filled:
            return count, 0, True, False
        emptied, failed = _empty(pipe_out, target, filled)
        taken += filled
        count += emptied
        left = filled - emptied
    return (count, left, False, failed) if left else count


def _empty(pipe_out: int, target: int, filled: int) -> tuple[int, bool]:
    """
    Returns how many bytes were moved, and whether the target has failed.
    """
    emptied = 0
    while emptied < filled:
        try:
            written = os.splice(pipe_out, target, filled - emptied, flags=_FLAGS)
        except BlockingIOError:
            break
        except OSError:
            return emptied, True
        if not written:
            break
        emptied += written
    return emptied, False


_native = compiled("_splice")
fastest_mover: Final[Mover] = move if _native is None else _native.move
"""
The compiled one, where there is one.
"""


class Pipe:
    """
    A pipe for all moves of one process.
    """

    def __init__(
        self,
        mover: Mover = fastest_mover,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            mover: Moves.
            clock: Tells how long that took, in seconds.
        """
        self._mover = mover
        self._clock = clock
        # Seconds for each byte, as a moving average.
        self._pace = 0.0
        self._ends = _open_pipe()
        self._spare: list[_Ends] = []
        self._is_closed = False
        self.movers = 0
        """How many bodies go through it at present."""
        self._turn = -1
        self._spent_seconds = 0.0
        self._passed_over: set[object] = set()

    def move(self, source: int, target: int, limit: int) -> int | Stopped:
        """
        Move what is there, without waiting for more.

        Args:
            source: A non-blocking socket.
            target: A file, at the place that it is written to.
            limit: How many bytes at most; more than 0.

        Returns:
            How many bytes have reached the file, or why there will be no more.

        Raises:
            OSError: The socket has failed, and nothing was moved.
        """
        moved = self._move(source, target, limit, self._ends, 0)
        if isinstance(moved, int):
            if not moved and is_at_mark(source):
                return Stopped(0, b"", False)
            return moved
        count, left, ended, _ = moved
        return Stopped(count, self._take(left), ended)

    def pass_on(self, passage: Passage, limit: int) -> int:
        """
        Move what a passage holds to its target, and what is there after it, without
        waiting for more. What the target does not take is held.

        Args:
            passage: The way; it says what has become of it.
            limit: How many bytes are taken from its source at most.

        Returns:
            How many bytes the target has taken.

        Raises:
            OSError: The source has failed, and nothing was moved.
        """
        held = passage.held
        ends = passage.ends or self._ends
        moved = self._move(passage.source, passage.target, limit, ends, held)
        if isinstance(moved, int):
            count, left = moved, 0
            passage.barred = not moved and is_at_mark(passage.source)
        else:
            count, left, passage.ended, passage.failed = moved
        if left:
            if not held:
                self._hold(passage, left)
            else:
                passage.held = left
        elif held:
            self._let_go(passage)
        return count

    def _hold(self, passage: Passage, left: int) -> None:
        """
        Leave a passage the pipe with what is left in it.
        """
        try:
            other = self._spare.pop() if self._spare else _open_pipe()
        except OSError:
            passage.rest = self._take(left)
            return
        passage.ends, self._ends = self._ends, other
        passage.held = left

    def take_held(self, passage: Passage) -> bytes:
        """
        Read what a passage holds, for another way.
        """
        if passage.ends is None:
            return b""
        taken = _read(passage.ends.out, passage.held)
        self._let_go(passage)
        return taken

    def _let_go(self, passage: Passage) -> None:
        """
        A pipe that was held is empty.
        """
        ends, passage.ends, passage.held = passage.ends, None, 0
        assert ends is not None
        if not self._is_closed and ends.size > self._ends.size:
            ends, self._ends = self._ends, ends
        if self._is_closed or len(self._spare) == MOST_SPARE:
            ends.close()
        else:
            self._spare.append(ends)

    def _move(
        self, source: int, target: int, limit: int, ends: _Ends, held: int
    ) -> int | tuple[int, int, bool, bool]:
        """
        See `Mover`.
        """
        limit = min(limit, self.share())
        began = self._clock()
        moved = self._mover(source, ends.into, ends.out, ends.size, target, limit, held)
        seconds = self._clock() - began
        self._spent_seconds += seconds
        if isinstance(moved, int) and moved >= LEAST_BYTES:
            # A disk that stalls takes a hundred times as long: that counts at once, and
            # is forgotten after some twenty moves.
            self._pace += (seconds / moved - self._pace) / 4
        return moved

    def may_move(self, who: object, turn: int) -> bool:
        """
        Whether a body may be moved in a turn of the reactor; if not, it is asked about
        again in the next. A disk that stalls ends the turn of all, so that others wait
        for one move and not for one of each body. Who was passed over comes first then.

        Args:
            who: The body, by something that is its own; until `forget`.
            turn: A number of the reactor's present turn; 0 where nobody counts them,
                and then it may.
        """
        if not turn:
            return True
        if turn != self._turn:
            if not self._spent_seconds:
                # Nobody of them came: whatever they wait for, others need not.
                self._passed_over.clear()
            self._turn = turn
            self._spent_seconds = 0.0
        if self._spent_seconds > TURN_SECONDS:
            self._passed_over.add(who)
            return False
        if self._passed_over:
            if who not in self._passed_over:
                return False
            self._passed_over.discard(who)
        return True

    def forget(self, who: object) -> None:
        """
        A body is moved no longer.
        """
        self._passed_over.discard(who)

    def share(self) -> int:
        """
        How many bytes one of the movers gets at once.
        """
        share_seconds = TURN_SECONDS / max(1, self.movers)
        if share_seconds >= MOST_BYTES * self._pace:
            return MOST_BYTES
        return max(LEAST_BYTES, int(share_seconds / self._pace))

    def _take(self, count: int) -> bytes:
        """
        Read what the target refused, so that nobody else's gets it.
        """
        return _read(self._ends.out, count)

    def close(self) -> None:
        """
        Let go of it, but not of what connections hold.
        """
        self._is_closed = True
        for ends in (self._ends, *self._spare):
            ends.close()
