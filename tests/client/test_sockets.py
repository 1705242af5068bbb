"""
Tests of `kvd.client.sockets`: how long a caller waits for bytes that it has the kernel
move.
"""

from __future__ import annotations

import socket
from unittest import mock

from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from kvd.client.sockets import (
    LATE_SECONDS,
    LEAST_BYTES,
    MOST_BYTES,
    SHORT_SECONDS,
    BodySocket,
)
from tests.stepped import SteppedReactor

MANY = 10_000_000
SILENT_SECONDS = 30.0
ETHERNET_BYTES = 1460
"""
The longest segment there.
"""


class WatchTests(SynchronousTestCase):
    """
    The caller wakes for many bytes at once where they come fast.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.near, self.far = self.reactor.tcp_pair(segment_bytes=ETHERNET_BYTES)
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.near.setblocking(False)
        self.body = BodySocket(self.near, self.reactor)
        self.addCleanup(self.body.leave)
        self.left = 0
        """How many bytes are to come after those that are taken next."""
        self.taken: list[int] = []
        """How many came at each time."""
        self.silent: list[bool] = []
        """Whether it was watched when it was found to be silent."""

    @property
    def mark(self) -> int:
        """
        The receive low-water mark.
        """
        return self.near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    @property
    def is_watched(self) -> bool:
        """
        Whether the reactor watches it.
        """
        return any(each is self.body for each in self.reactor.getReaders())

    def watch(self, count: int = MANY, left: int = 0) -> None:
        """
        Have bytes taken.
        """
        self.left = left
        self.body.watch(
            count,
            self.take,
            SILENT_SECONDS,
            lambda: self.silent.append(self.is_watched),
        )

    def take(self) -> int:
        """
        Take what has come.
        """
        count = 0
        try:
            while piece := self.near.recv(MANY):
                count += len(piece)
        except BlockingIOError:
            pass
        self.taken.append(count)
        return self.left

    def come(self, count: int, seconds: float = 0.0) -> None:
        """
        So many bytes come at once, after some time.
        """
        self.reactor.advance(seconds)
        self.far.sendall(bytes(count))
        self.reactor.segments.wait()
        self.reactor.settle()
        assert count == self.taken[-1]

    def test_a_byte_is_enough_where_no_more_are_expected(self) -> None:
        """
        As where the connection may read again.
        """
        self.watch(1)
        self.reactor.settle()
        assert [] == self.taken
        self.far.sendall(b"x")
        self.reactor.settle()

        assert [1] == self.taken
        assert 1 == self.mark

    def test_nobody_watches_what_nobody_waits_for(self) -> None:
        """
        From the first byte on that comes then: if it is waited for before, nothing
        changes for the reactor.
        """
        self.watch(1)
        self.come(1)
        with mock.patch.object(self.reactor, "addReader") as added:
            self.watch(1)
        assert not added.called
        self.come(1)
        self.far.sendall(b"x")
        self.reactor.settle()
        assert not self.is_watched
        self.watch(1)
        self.reactor.settle()

        assert [1, 1, 1] == self.taken

    def test_a_few_bytes_are_waited_for_a_moment(self) -> None:
        """
        They may be all that come.
        """
        self.watch()
        self.far.sendall(b"x")
        self.reactor.settle()
        assert [] == self.taken
        self.reactor.advance(LATE_SECONDS)

        assert [1] == self.taken

    def test_whatever_comes_after_that_is_enough(self) -> None:
        """
        And at the next time the least is waited for again.
        """
        self.watch(left=MANY)
        self.come(LEAST_BYTES)
        assert 2 * LEAST_BYTES == self.mark
        self.reactor.advance(LATE_SECONDS)
        assert 1 == len(self.taken)
        self.come(1)

        assert LEAST_BYTES == self.mark
        self.far.sendall(b"x")
        self.reactor.settle()
        assert 2 == len(self.taken)
        self.reactor.advance(LATE_SECONDS)
        assert [LEAST_BYTES, 1, 1] == self.taken

    def test_each_wait_has_its_own_moment(self) -> None:
        """
        One timer serves for all, and none of them ends early by it.
        """
        self.watch(left=MANY)
        self.come(LEAST_BYTES, LATE_SECONDS / 2)
        self.far.sendall(b"x")
        self.reactor.advance(LATE_SECONDS * 3 / 4)
        assert [LEAST_BYTES] == self.taken
        assert 1 == len(self.reactor.getDelayedCalls())
        self.reactor.advance(LATE_SECONDS / 4)

        assert [LEAST_BYTES, 1] == self.taken

    def test_more_are_waited_for_the_faster_they_come(self) -> None:
        """
        But never more than are to come, and not more than a limit.
        """
        expected = LEAST_BYTES
        self.watch(left=MANY)
        while expected < MOST_BYTES:
            assert expected == self.mark
            self.come(expected)
            expected *= 2
        self.come(MOST_BYTES)
        assert MOST_BYTES == self.mark
        self.left = 100
        self.come(MOST_BYTES)
        assert 100 == self.mark
        self.left = 0
        self.come(100)
        assert 100 == self.mark

    def test_not_more_are_waited_for_where_they_take_their_time(self) -> None:
        """
        Nor less.
        """
        self.watch(left=MANY)
        self.come(LEAST_BYTES)
        for _ in range(3):
            self.come(2 * LEAST_BYTES, 2 * SHORT_SECONDS)
            assert 2 * LEAST_BYTES == self.mark

    def test_the_end_is_enough(self) -> None:
        """
        However many bytes were to come.
        """
        self.watch()
        self.far.close()
        self.reactor.settle()

        assert [0] == self.taken

    def test_a_loss_is_the_end_of_no_wait_that_goes_on(self) -> None:
        """
        The reactor watches no more then: what is left is taken all the same.
        """
        self.watch(left=MANY)
        self.reactor.removeReader(self.body)
        self.body.connectionLost(Failure(CONNECTION_LOST))
        assert [0] == self.taken
        assert self.is_watched
        self.left = 0
        self.reactor.removeReader(self.body)
        self.body.connectionLost(Failure(CONNECTION_LOST))

        self.body.connectionLost(Failure(CONNECTION_LOST))
        assert [0, 0] == self.taken
        assert [] == [each for each in self.reactor.getReaders() if each is self.body]

    def test_silence(self) -> None:
        """
        It is found once nothing has come for too long, and not before.
        """
        self.watch(left=MANY)
        for _ in range(3):
            self.come(LEAST_BYTES, SILENT_SECONDS - 1)
        self.reactor.advance(SILENT_SECONDS - 1)
        assert [] == self.silent
        self.reactor.advance(1)

        assert [False] == self.silent
        assert [] == self.reactor.getDelayedCalls()

    def test_silence_where_a_byte_is_enough(self) -> None:
        """
        After as long; and it is not silence while nothing is waited for.
        """
        self.watch(1)
        self.come(1, SILENT_SECONDS - 1)
        self.reactor.advance(10 * SILENT_SECONDS)
        assert [] == self.silent
        self.watch(1)
        self.reactor.advance(SILENT_SECONDS - 1)
        assert [] == self.silent
        self.reactor.advance(1)

        assert [False] == self.silent

    def test_many_are_waited_for_after_one_was(self) -> None:
        """
        The timer that was set for the first comes earlier then.
        """
        self.watch(1, left=MANY)
        self.come(1)
        self.far.sendall(b"x")
        self.reactor.advance(LATE_SECONDS)

        assert [1, 1] == self.taken

    def test_who_takes_may_wait_for_something_else(self) -> None:
        """
        What was begun last counts.
        """

        def leave() -> int:
            self.body.leave()
            self.watch(1, left=7)
            return 0

        self.body.watch(MANY, leave, SILENT_SECONDS, lambda: None)
        self.far.sendall(bytes(LEAST_BYTES))
        self.reactor.settle()

        assert [LEAST_BYTES] == self.taken
        assert 7 == self.mark

    def test_the_connection_reads_on_behind_what_was_taken(self) -> None:
        """
        One byte wakes it; and nobody else waits for that.
        """
        skipped: list[tuple[int, int, bool]] = []
        self.body = BodySocket(
            self.near,
            self.reactor,
            skip=lambda count: skipped.append((count, self.mark, self.is_watched)),
        )
        self.watch(left=MANY)
        self.come(LEAST_BYTES)
        assert 2 * LEAST_BYTES == self.mark
        self.body.skip(LEAST_BYTES)
        self.far.sendall(b"x")
        self.reactor.settle()

        assert [(LEAST_BYTES, 1, False)] == skipped
        assert [LEAST_BYTES] == self.taken
        assert [] == self.reactor.getDelayedCalls()

    def test_nothing_is_left_of_a_wait_that_is_given_up(self) -> None:
        """
        No timer, and nobody who watches.
        """
        self.watch()
        self.body.leave()
        self.body.leave()
        self.far.sendall(bytes(LEAST_BYTES))
        self.reactor.settle()

        assert [] == self.taken
        assert [] == self.reactor.getDelayedCalls()
        assert not self.is_watched
