"""
Tests for `kvd.ipc.channel`.
"""

import errno
import os
import socket
from collections.abc import Callable
from tempfile import TemporaryFile
from typing import IO, Any
from unittest import mock

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.ipc import channel
from kvd.ipc.channel import Channel
from kvd.ipc.messages import (
    BadMessage,
    Listen,
    LogLine,
    Message,
    Ready,
    encode,
    receive,
    send,
)
from tests.stepped import SteppedReactor


def descriptors_of(file: IO[Any]) -> list[int]:
    """
    The descriptors of this process that refer to a file.

    Others may be closed meanwhile: what earlier tests left, by the garbage collector.
    """
    wanted = os.fstat(file.fileno())
    found: list[int] = []
    for name in os.listdir("/proc/self/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:
            # The one that listed them, or one that was closed meanwhile.
            continue
        if os.path.samestat(wanted, status):
            found.append(int(name))
    return found


class ChannelTests(SynchronousTestCase):
    """
    `Channel` is one end of a control socket.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        near, self.far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(self.far.close)
        self.received: list[tuple[Message, list[int]]] = []
        self.losses = 0
        self.channel = Channel(near, self.receive, self.lose, self.reactor)
        self.addCleanup(self.channel.close)

    def receive(self, message: Message, descriptors: list[int]) -> None:
        """
        Remember a message.
        """
        for descriptor in descriptors:
            os.close(descriptor)
        self.received.append((message, descriptors))

    def lose(self) -> None:
        """
        Count.
        """
        self.losses += 1

    def test_messages_are_heard_in_order(self) -> None:
        """
        Several in one turn.
        """
        messages: list[Message] = [Ready(), LogLine("info", "a"), LogLine("info", "b")]
        for message in messages:
            send(self.far, message)
        self.reactor.settle()

        assert messages == [message for message, _ in self.received]

    def test_descriptors_are_heard_too(self) -> None:
        """
        The receiver's own.
        """
        with open(os.devnull) as file:
            send(self.far, Listen("0/0"), [file.fileno()])
        self.reactor.settle()

        assert 1 == len(self.received[0][1])

    def test_what_the_socket_does_not_take_follows(self) -> None:
        """
        In order, with the descriptors as they were when it was sent.
        """
        self.far.setblocking(False)
        count = 2000
        for number in range(count):
            self.channel.send(LogLine("info", str(number)))
        with open(os.devnull) as file:
            self.channel.send(Listen("last"), [file.fileno()])
        texts = []
        last = None
        while last is None:
            try:
                came = receive(self.far)
            except BlockingIOError:
                self.reactor.settle()
                continue
            assert came is not None
            message, descriptors = came
            if isinstance(message, LogLine):
                texts.append(message.text)
            else:
                last = descriptors
        for descriptor in last:
            os.close(descriptor)

        assert [str(number) for number in range(count)] == texts
        assert 1 == len(last)

    def test_the_other_sides_end_is_reported_once(self) -> None:
        """
        And sending goes on to mean nothing.
        """
        self.far.close()
        self.channel.send(Ready())
        self.reactor.settle()
        self.channel.send(Ready())

        assert 1 == self.losses

    def test_what_was_sent_before_the_end_is_heard(self) -> None:
        """
        Last words count.
        """
        send(self.far, Ready())
        self.far.close()
        self.reactor.settle()

        assert [Ready()] == [message for message, _ in self.received]
        assert 1 == self.losses

    def test_our_own_close_is_no_loss(self) -> None:
        """
        The other side notices.
        """
        self.channel.close()
        self.channel.close()
        self.reactor.settle()

        assert 0 == self.losses
        assert receive(self.far) is None

    def test_nonsense_ends_it(self) -> None:
        """
        With a traceback: a mistake of ours.
        """
        self.far.send(b"nonsense")
        self.reactor.settle()

        assert 1 == self.losses
        assert 1 == len(self.flushLoggedErrors())

    def test_what_somebody_else_has_read_is_dealt_with_alike(self) -> None:
        """
        Nonsense ends the channel, and so does a mistake in dealing with a message: a
        process that has lost one is not to be relied on.
        """
        self.channel.came(encode(Ready(5)), [], 0)
        assert [(Ready(5), [])] == self.received
        self.channel.came(encode(LogLine("info", "text")), [], 0)
        assert 0 == self.losses

        self.patch(self.channel, "_received", lambda *_: 1 / 0)
        self.channel.came(encode(Ready(5)), [], 0)
        assert 1 == self.losses
        (failure,) = self.flushLoggedErrors(ZeroDivisionError)
        assert "division" in failure.getErrorMessage()

    def test_nonsense_that_somebody_else_has_read_ends_it(self) -> None:
        """
        As above.
        """
        self.channel.came(b"?", [], 0)
        assert 1 == self.losses
        assert 1 == len(self.flushLoggedErrors(BadMessage))

    def test_a_peer_that_takes_nothing_is_given_up(self) -> None:
        """
        The queue is bounded, and its descriptors are closed. That is reported in its
        own turn, not amid what somebody sends.
        """
        self.patch(channel, "MAX_QUEUED", 10)
        with TemporaryFile() as file:
            for _ in range(2000):
                self.channel.send(Listen("0/0"), [file.fileno()])
            assert 0 == self.losses
            self.reactor.settle()
            self.far.close()

            assert 1 == self.losses
            assert [file.fileno()] == descriptors_of(file)
        assert -1 == self.channel.fileno()

    def test_a_peer_that_takes_nothing_is_given_up_if_nothing_can_be_kept_either(
        self,
    ) -> None:
        """
        Out of descriptors, what was to be sent cannot wait.
        """
        while self.channel.offer(Ready()):
            pass
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with TemporaryFile() as file:
            descriptors = [file.fileno()] * 2
            copy = os.dup(file.fileno())
            with mock.patch("os.dup", side_effect=[copy, short]):
                self.channel.send(Listen("0/0"), descriptors)
            assert [file.fileno()] == descriptors_of(file)

        self.reactor.settle()
        assert 1 == self.losses

    def assert_given_up(self, send: Callable[[], object]) -> None:
        """
        If sending fails in an unexpected way, the channel ends, and the log says why.
        """
        broken = OSError(errno.EIO, os.strerror(errno.EIO))
        with (
            mock.patch("kvd.ipc.channel.send", side_effect=broken) as sending,
            capturedLogs() as events,
        ):
            send()
            self.reactor.settle()

        assert 1 == sending.call_count
        assert ["Input/output error"] == [event["why"] for event in events]
        assert 1 == self.losses

    def test_a_socket_that_fails_is_given_up(self) -> None:
        """
        A message that is lost does not count as sent.
        """
        self.assert_given_up(lambda: self.channel.send(Ready()))

    def test_a_socket_that_fails_later_is_given_up(self) -> None:
        """
        Also when it sends what waits.
        """
        taken = 0
        while self.channel.offer(Ready()):
            taken += 1
        for _ in range(2):
            self.channel.send(Ready())
        self.assert_given_up(lambda: [receive(self.far) for _ in range(taken)])

    def test_what_can_never_be_sent_is_reported(self) -> None:
        """
        With a traceback: a mistake of ours. What comes after it is sent.
        """
        self.channel.send(LogLine("info", "x" * 70_000))
        with open(os.devnull) as file:
            closed = os.dup(file.fileno())
        os.close(closed)
        self.channel.send(Listen("0/0"), [closed])
        self.channel.send(Ready())

        assert 2 == len(self.flushLoggedErrors(BadMessage, OSError))
        assert (Ready(), []) == receive(self.far)
