"""
Tests of `kvd.client.sockets`: how long a caller waits for bytes that it has the kernel
move.
"""

from __future__ import annotations

import socket

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from kvd.client.sockets import (
    LATE_SECONDS,
    LEAST_BYTES,
    MOST_BYTES,
    SHORT_SECONDS,
    BodySocket,
)
from tests.stepped import SteppedReactor, tcp_pair

MANY = 10_000_000


class WaitTests(SynchronousTestCase):
    """
    The caller wakes for many bytes at once where they come fast.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.near, self.far = tcp_pair()
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.near.setblocking(False)
        self.body = BodySocket(self.near, self.reactor)

    @property
    def mark(self) -> int:
        """
        The receive low-water mark.
        """
        return self.near.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT)

    def come(self, count: int, seconds: float = 0.0) -> None:
        """
        Wait for many bytes; so many come after some time, and are taken.
        """
        waiting = self.body.wait(MANY)
        self.reactor.advance(seconds)
        self.far.sendall(bytes(count))
        self.reactor.settle()
        self.successResultOf(waiting)
        while count:
            count -= len(self.near.recv(count))

    def test_a_byte_is_enough_where_no_more_are_expected(self) -> None:
        """
        As where the connection may read again.
        """
        waiting = self.body.wait()
        self.assertNoResult(waiting)
        self.far.sendall(b"x")
        self.reactor.settle()

        self.successResultOf(waiting)
        assert 1 == self.mark

    def test_a_few_bytes_are_waited_for_a_moment(self) -> None:
        """
        They may be all that come.
        """
        waiting = self.body.wait(MANY)
        self.far.sendall(b"x")
        self.reactor.settle()
        self.assertNoResult(waiting)
        self.reactor.advance(LATE_SECONDS)

        self.successResultOf(waiting)

    def test_whatever_comes_after_that_is_enough(self) -> None:
        """
        And at the next time the least is waited for again.
        """
        self.come(LEAST_BYTES)
        waiting = self.body.wait(MANY)
        assert 2 * LEAST_BYTES == self.mark
        self.reactor.advance(LATE_SECONDS)
        self.assertNoResult(waiting)
        self.far.sendall(b"x")
        self.reactor.settle()

        self.successResultOf(waiting)
        again = self.body.wait(MANY)
        assert LEAST_BYTES == self.mark
        self.body.leave()
        self.failureResultOf(again, CancelledError)

    def test_more_are_waited_for_the_faster_they_come(self) -> None:
        """
        But never more than are to come, and not more than a limit.
        """
        expected = LEAST_BYTES
        while expected < MOST_BYTES:
            self.come(expected)
            assert expected == self.mark
            expected *= 2
        self.come(MOST_BYTES)
        self.come(MOST_BYTES)
        assert MOST_BYTES == self.mark
        waiting = self.body.wait(100)
        assert 100 == self.mark
        self.far.sendall(bytes(100))
        self.reactor.settle()

        self.successResultOf(waiting)

    def test_not_more_are_waited_for_where_they_take_their_time(self) -> None:
        """
        Nor less.
        """
        self.come(LEAST_BYTES)
        for _ in range(3):
            self.come(2 * LEAST_BYTES, 2 * SHORT_SECONDS)
            assert 2 * LEAST_BYTES == self.mark

    def test_the_end_is_enough(self) -> None:
        """
        However many bytes were to come.
        """
        waiting = self.body.wait(MANY)
        self.far.close()
        self.reactor.settle()

        self.successResultOf(waiting)
        assert b"" == self.near.recv(1)

    def test_nothing_is_left_of_a_wait_that_is_given_up(self) -> None:
        """
        No timer, and nobody who watches.
        """
        waiting = self.body.wait(MANY)
        self.body.leave()
        self.body.leave()

        self.failureResultOf(waiting, CancelledError)
        assert [] == self.reactor.getDelayedCalls()
        assert [] == [each for each in self.reactor.getReaders() if each is self.body]
