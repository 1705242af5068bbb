"""
Tests for `kvd.client.receiving`.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import ResponseDone

from kvd.client import receiving
from kvd.client.errors import BrokenOff
from kvd.client.receiving import Receiver
from kvd.client.timeouts import Timeout

DONE = Failure(ResponseDone())


class ReceiverTests(SynchronousTestCase):
    """
    A body comes piece by piece.
    """

    def make(self, length: int | None) -> tuple[Receiver, Clock]:
        """
        A receiver of a body, and the time.
        """
        clock = Clock()
        receiver = Receiver(Timeout(clock, 10.0), 100, length)
        receiver.makeConnection(StringTransport())
        return receiver, clock

    def take(self, receiver: Receiver) -> Deferred[bytes]:
        """
        Ask for the next bytes.
        """
        return Deferred.fromCoroutine(receiver.take())

    def test_the_last_bytes_come_with_the_end(self) -> None:
        """
        Who has taken them knows that the connection serves the next request, and waits
        for nothing.
        """
        receiver, clock = self.make(10)
        first = self.take(receiver)
        receiver.dataReceived(b"hello")
        assert b"hello" == self.successResultOf(first)

        last = self.take(receiver)
        receiver.dataReceived(b"world")
        self.assertNoResult(last)
        receiver.connectionLost(DONE)
        assert b"world" == self.successResultOf(last)
        end = self.take(receiver)
        assert b"" == self.successResultOf(end)
        assert [] == clock.getDelayedCalls()

    def test_an_end_that_is_not_known_comes_later(self) -> None:
        """
        All bytes are given at once, also the last.
        """
        receiver, _ = self.make(None)
        for piece in (b"hello", b"world"):
            taken = self.take(receiver)
            receiver.dataReceived(piece)
            assert piece == self.successResultOf(taken)
        end = self.take(receiver)
        self.assertNoResult(end)
        receiver.connectionLost(DONE)
        assert b"" == self.successResultOf(end)

    def test_only_a_body_of_known_length_is_left_to_the_caller(self) -> None:
        """
        A chunked one is not, for its socket has other bytes too.
        """
        body = object()
        self.patch(receiving, "socket_of", lambda _: body)
        for length, expected in ((10, body), (None, None)):
            receiver, _ = self.make(length)
            assert expected is receiver.detach()
            assert length == receiver.missing_bytes

    def test_what_came_before_it_broke_off_is_given(self) -> None:
        """
        Then it says that something is missing.
        """
        receiver, _ = self.make(10)
        receiver.dataReceived(b"hello")
        receiver.connectionLost(Failure(ConnectionLost()))
        assert b"hello" == self.successResultOf(self.take(receiver))

        error = self.failureResultOf(self.take(receiver))
        assert isinstance(error.value, BrokenOff)
