"""
Tests for `kvd.net.port`.
"""

import errno
import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.net.factory import ServerFactory
from kvd.net.port import (
    GATE_LIMIT_SECONDS,
    MAX_BATCH,
    MAX_PEER_ERRORS,
    SERVED_PART,
    Port,
)
from tests.stepped import SteppedReactor


class FailingListener(socket.socket):
    """
    A listening socket whose next attempts to accept fail.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.failures: list[int] = []

    def _accept(self) -> tuple[int, Any]:
        if self.failures:
            number = self.failures.pop(0)
            raise OSError(number, errno.errorcode[number])
        accept: Callable[[], tuple[int, Any]] = super()._accept  # type: ignore[misc]
        return accept()


class Taking(ServerFactory):
    """
    Takes connections as they are.
    """

    def __init__(
        self,
        takes: Callable[[socket.socket, Any], object],
        share: Callable[[int], int] | None,
        gate: Callable[[int], bool] | None,
    ) -> None:
        self.takes = takes
        self.gate = gate
        if share is not None:
            self.batch_size = None
            self.share = share  # type: ignore[assignment]  # the test's own

    def take(self, connection: socket.socket, peer: Any) -> bool:
        self.takes(connection, peer)
        return True


class PortTests(SynchronousTestCase):
    """
    `Port` takes connections from a socket that others may hold too.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.listener = FailingListener()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen(16)
        self.listener.setblocking(False)
        # What the supervisor keeps.
        self.held = self.listener.dup()
        self.addCleanup(self.held.close)
        self.accepted: list[socket.socket] = []
        self.port = self.make(self.listener)

    def make(
        self,
        listener: socket.socket | None = None,
        share: Callable[[int], int] | None = None,
        gate: Callable[[int], bool] | None = None,
    ) -> Port:
        """
        A port that is paused.
        """
        factory = Taking(lambda *accepted: self.take(*accepted), share, gate)
        port = Port(listener or self.held.dup(), factory, self.reactor)
        port.startListening()
        port.pauseProducing()
        self.addCleanup(port.stopListening)
        return port

    def take(self, connection: socket.socket, peer: Any) -> None:
        """
        Keep an accepted connection.
        """
        self.addCleanup(connection.close)
        self.accepted.append(connection)

    def connect(self, count: int = 1) -> None:
        """
        Some clients come.
        """
        for _ in range(count):
            self.addCleanup(socket.create_connection(self.held.getsockname()).close)

    def test_connections_are_accepted_one_per_turn(self) -> None:
        """
        Others on the same socket get their share of a burst.
        """
        self.port.resumeProducing()
        self.connect(3)
        self.reactor.settle(1)
        assert 1 == len(self.accepted)

        self.reactor.settle()
        assert 3 == len(self.accepted)

    def test_a_factory_may_take_the_descriptor(self) -> None:
        """
        No socket is made of it then; if the factory fails with one, it is closed.
        """
        taken: list[int] = []
        stay: list[int] = []

        def every_second(
            listener: Any, count: int, stays: int
        ) -> tuple[int, int, int, Any]:
            descriptor, peer = listener._accept()
            if len(taken) == len(stay):
                taken.append(descriptor)
                return 1, 0, -1, None
            stay.append(descriptor)
            return 1, 1, descriptor, peer

        self.patch(self.port.factory, "accept", every_second)
        self.port.resumeProducing()
        self.connect(4)
        self.reactor.settle()
        assert 2 == len(taken)
        assert stay == [connection.fileno() for connection in self.accepted]
        assert {(socket.AF_INET, socket.SOCK_STREAM)} == {
            (connection.family, connection.type) for connection in self.accepted
        }
        for descriptor in taken:
            os.close(descriptor)

        def wrong(connection: socket.socket, peer: Any) -> None:
            taken.append(connection.fileno())
            raise ZeroDivisionError

        self.patch(self.port.factory, "takes", wrong)
        self.connect(2)
        self.reactor.settle()
        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))
        assert 2 == len(self.accepted)
        with self.assertRaises(OSError):  # noqa: PT027  # trial runs it too
            os.fstat(taken[-1])

    def test_several_are_taken_in_a_turn_where_that_is_meant(self) -> None:
        """
        As many as it was asked to, and none when it is paused meanwhile.
        """
        port = self.make(share=lambda waiting: 3)
        port.resumeProducing()
        self.connect(5)
        self.reactor.settle(1)
        assert 3 == len(self.accepted)

        self.reactor.settle()
        assert 5 == len(self.accepted)

        def only_one(connection: socket.socket, peer: object) -> None:
            self.take(connection, peer)
            port.pauseProducing()

        self.patch(port.factory, "takes", only_one)
        self.connect(2)
        self.reactor.settle()
        assert 6 == len(self.accepted)

    def test_a_part_of_those_that_wait_is_taken_in_a_turn(self) -> None:
        """
        However many they are: else who waits in a long queue would wait for ever more
        turns of those who are in.
        """
        queues: list[int] = []

        def half(waiting: int) -> int:
            queues.append(waiting)
            return waiting // 2

        port = self.make(share=half)
        self.connect(16)
        port.resumeProducing()
        self.reactor.settle(1)
        assert 8 == len(self.accepted)

        self.reactor.settle()
        assert 16 == len(self.accepted)
        assert [16, 8, 4, 2, 1] == queues[:5]

    def test_a_turn_ends_however_many_wait(self) -> None:
        """
        Those who are in want to be served, too.
        """
        port = self.make(share=lambda waiting: 10**6)
        attempts: list[int] = []

        def accept_some(count: int, stays: int) -> tuple[int, int, bool]:
            attempts.append(count)
            return 1, 1, True

        self.patch(port, "accept_some", accept_some)
        self.connect()
        port.resumeProducing()
        port.doRead()

        assert list(range(MAX_BATCH, 0, -1)) == attempts

    def test_a_gate_learns_how_many_wait(self) -> None:
        """
        At that moment: others take theirs meanwhile.
        """
        queues: list[int] = []

        def may(waiting: int) -> bool:
            queues.append(waiting)
            if len(queues) == 2:
                self.held.accept()[0].close()
            return True

        port = self.make(share=lambda waiting: waiting, gate=may)
        self.connect(5)
        port.resumeProducing()
        self.reactor.settle()

        assert [5, 4, 2, 1] == queues
        assert 4 == len(self.accepted)

    def test_those_that_do_not_stay_bring_fewer_questions(self) -> None:
        """
        They make this process no busier; but others may have less to do meanwhile.
        """
        told: list[int] = []

        def may(waiting: int) -> bool:
            told.append(waiting)
            return True

        port = self.make(share=lambda waiting: 2 * SERVED_PART + 2, gate=may)
        counts: list[int] = []

        def serve_all(
            listener: socket.socket, count: int, stays: int
        ) -> tuple[int, int, int, Any]:
            counts.append(count)
            return count, 0, -1, None

        self.patch(port.factory, "accept", serve_all)
        self.connect()
        port.resumeProducing()
        port.doRead()

        assert [1, 1, 1] == told
        assert [SERVED_PART, SERVED_PART, 2] == counts

    def test_of_many_a_part_is_taken_between_two_questions(self) -> None:
        """
        And no more than was to be taken in all.
        """
        queues: list[int] = []

        def may(waiting: int) -> bool:
            queues.append(waiting)
            return True

        listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.addCleanup(listener.close)
        listener.setblocking(False)
        port = self.make(listener.dup(), share=lambda waiting: 66, gate=may)
        for _ in range(70):
            self.addCleanup(socket.create_connection(listener.getsockname()).close)
        port.resumeProducing()
        self.reactor.settle(1)

        assert 64 == len(self.accepted)
        assert list(range(70, 6, -4)) == queues

    def test_a_port_that_comes_too_late_does_not_ask(self) -> None:
        """
        Another was faster, and nothing waits any more: what the gate would say of
        nothing does not keep the next one out.
        """
        asked: list[int] = []

        def may(waiting: int) -> bool:
            asked.append(waiting)
            return False

        port = self.make(gate=may)
        port.doRead()

        assert [] == asked
        assert [] == self.reactor.getDelayedCalls()

    def test_a_mistake_with_one_connection_is_not_the_others(self) -> None:
        """
        It is closed; the next is accepted.
        """
        takers = [lambda connection, peer: 1 // 0, self.take]
        self.patch(
            self.port.factory, "takes", lambda *accepted: takers.pop(0)(*accepted)
        )
        self.port.resumeProducing()
        first = socket.create_connection(self.held.getsockname())
        self.addCleanup(first.close)
        self.connect()
        self.reactor.settle()

        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))
        assert b"" == first.recv(1)
        assert 1 == len(self.accepted)

    def test_a_gate_is_asked_before_each(self) -> None:
        """
        While it is closed, connections are left to others; it is asked again a
        moment later, not all the time.
        """
        asked: list[bool] = []
        is_open = False

        def may(waiting: int) -> bool:
            asked.append(is_open)
            return is_open

        port = self.make(share=lambda waiting: 3, gate=may)
        port.resumeProducing()
        self.connect(2)
        self.reactor.settle()
        assert [False] == asked
        self.reactor.advance(0.01)
        assert [False, False] == asked

        is_open = True
        self.reactor.advance(0.01)
        assert 2 == len(self.accepted)

    def test_a_gate_is_passed_in_the_end(self) -> None:
        """
        What it goes by may be old. The next connection waits anew.
        """
        port = self.make(gate=lambda waiting: False)
        port.resumeProducing()
        for accepted in (1, 2):
            self.connect()
            self.reactor.settle()
            self.reactor.advance(GATE_LIMIT_SECONDS)
            assert accepted - 1 == len(self.accepted)
            self.reactor.advance(0.01)
            assert accepted == len(self.accepted)

    def test_a_client_that_was_let_in_waits_no_more(self) -> None:
        """
        The next one waits anew.
        """
        answers = [False, True, False]
        port = self.make(gate=lambda waiting: answers.pop())
        port.resumeProducing()
        self.connect()
        self.reactor.settle()
        self.reactor.advance(GATE_LIMIT_SECONDS)
        assert 1 == len(self.accepted)

        self.reactor.advance(GATE_LIMIT_SECONDS)
        self.connect()
        self.reactor.settle()
        assert [] == answers
        assert 1 == len(self.accepted)

    def test_a_connection_that_another_took_waits_no_more(self) -> None:
        """
        A gate that kept it out is not passed for its sake when the next one comes.
        """
        port = self.make(gate=lambda waiting: False)
        port.resumeProducing()
        for _ in range(3):
            self.connect()
            self.reactor.settle()
            self.held.accept()[0].close()
            self.reactor.advance(GATE_LIMIT_SECONDS + 0.01)

        assert 0 == len(self.accepted)

    def test_paused_leaves_connections_in_the_queue(self) -> None:
        """
        The listener waits, nothing is refused, and nothing is lost.
        """
        self.port.resumeProducing()
        self.port.pauseProducing()
        self.connect(2)
        self.reactor.settle()
        assert 0 == len(self.accepted)

        self.port.resumeProducing()
        self.reactor.settle()
        assert 2 == len(self.accepted)

    def test_empty_takes_all_that_waits(self) -> None:
        """
        Before it stops, a worker takes the whole queue at once.
        """
        self.connect(5)
        self.port.empty()

        assert 5 == len(self.accepted)

    def test_empty_takes_no_connection_that_comes_later(self) -> None:
        """
        Else clients that are let go and come again would keep it at it.
        """

        def take(connection: socket.socket, peer: object) -> None:
            self.take(connection, peer)
            self.connect()

        self.patch(self.port.factory, "takes", take)
        self.connect(3)
        self.port.empty()

        assert 3 == len(self.accepted)

    def test_a_protocol_may_stop_the_port(self) -> None:
        """
        What it was accepting goes no further, and waits for others.
        """
        for share, accept in (
            (None, "resumeProducing"),
            (lambda waiting: waiting, "resumeProducing"),
            (None, "empty"),
        ):
            port = self.make(share=share)

            def take(
                connection: socket.socket, peer: object, port: Port = port
            ) -> None:
                self.take(connection, peer)
                port.stopListening()

            self.patch(port.factory, "takes", take)
            self.accepted.clear()
            self.connect(2)
            with capturedLogs() as events:
                getattr(port, accept)()
                self.reactor.advance(1.0)

            assert ([], 1) == (events, len(self.accepted))
            self.held.accept()[0].close()

    def test_closing_leaves_the_socket_to_its_other_holders(self) -> None:
        """
        A worker's end closes no queue.
        """
        self.port.resumeProducing()
        self.port.stopListening()
        self.connect()
        connection, _ = self.held.accept()
        connection.close()

        assert [] == self.accepted

    def test_a_connection_that_died_in_the_queue_is_passed_over(self) -> None:
        """
        The next one is taken.
        """
        self.listener.failures = [errno.ECONNABORTED, errno.EPROTO]
        self.connect(2)
        self.port.resumeProducing()
        self.reactor.settle()
        assert 2 == len(self.accepted)

        # The kernel takes it from the queue; this listener does not.
        self.listener.failures = [errno.ECONNABORTED]
        self.connect(3)
        self.port.empty()
        assert 4 == len(self.accepted)

    def test_no_error_of_accept_makes_deaf(self) -> None:
        """
        Whatever its number: it is logged once at most, accepting goes on after a pause
        at the latest, and while that lasts nothing spins.
        """
        self.port.resumeProducing()
        for number in sorted(errno.errorcode):
            self.listener.failures = [number] * 3
            before = len(self.accepted)
            self.connect()
            with capturedLogs() as events:
                self.reactor.settle()
                for _ in range(3):
                    self.reactor.advance(0.1)
            name = errno.errorcode[number]
            assert (name, before + 1) == (name, len(self.accepted))
            lines = [line for line in events if "error" in line]
            assert (name, len(lines)) == (name, len(events))
            assert len(lines) <= 1, name

        self.listener.failures = [errno.ETIMEDOUT] * 3
        self.connect()
        self.reactor.settle()
        assert 2 == len(self.listener.failures)

    def test_what_looks_like_the_peers_fault_again_and_again_is_not(self) -> None:
        """
        It is logged, and does not spin. Whenever it is over, accepting goes on.
        """
        self.listener.failures = [errno.EPERM] * (MAX_PEER_ERRORS + 20)
        self.connect()
        self.port.resumeProducing()
        with capturedLogs() as events:
            self.reactor.settle(MAX_PEER_ERRORS + 20)
            assert 20 == len(self.listener.failures)
            for _ in range(30):
                self.reactor.advance(0.1)

        assert 1 == len(events)
        assert [] == self.listener.failures
        assert 1 == len(self.accepted)

    def test_what_the_kernel_does_not_watch_is_looked_at_later(self) -> None:
        """
        It may have room for no more (epoll_ctl(2)); then that is tried again.
        """
        failures = [errno.ENOSPC, errno.ENOMEM]
        add = self.reactor.addReader

        def add_later(reader: Any) -> None:
            if failures:
                raise OSError(failures.pop(), "no room")
            add(reader)

        self.patch(self.reactor, "addReader", add_later)
        self.connect()
        with capturedLogs() as events:
            self.port.resumeProducing()
            self.reactor.advance(0.1)
            assert 0 == len(self.accepted)
            self.reactor.advance(0.1)
        assert 1 == len(self.accepted)
        assert 1 == len(events)

    def test_out_of_descriptors_waits_without_spinning(self) -> None:
        """
        The connection stays in the queue, it is logged once, and
        accepting goes on after a pause.
        """
        self.listener.failures = [errno.EMFILE, errno.EMFILE]
        self.connect()
        with capturedLogs() as warnings:
            self.port.resumeProducing()
            self.reactor.settle()
            assert 1 == len(self.listener.failures)

            self.reactor.advance(0.1)
            assert 0 == len(self.listener.failures)
            self.reactor.advance(0.1)
        assert 1 == len(self.accepted)
        assert 1 == len(warnings)

        self.listener.failures = [errno.EMFILE]
        self.connect()
        with capturedLogs() as warnings:
            self.reactor.settle()
        assert 1 == len(warnings)

    def test_a_pause_during_the_wait_for_descriptors_lasts(self) -> None:
        """
        The end of the wait does not start what was paused meanwhile.
        """
        self.listener.failures = [errno.EMFILE]
        self.connect()
        self.port.resumeProducing()
        self.reactor.settle()
        self.port.pauseProducing()
        self.reactor.advance(1)
        assert 0 == len(self.accepted)

        self.port.resumeProducing()
        self.reactor.settle()
        assert 1 == len(self.accepted)

    def test_a_start_does_not_end_the_wait_for_descriptors(self) -> None:
        """
        There are no more of them because somebody has room for a connection.
        """
        self.listener.failures = [errno.EMFILE, errno.EMFILE]
        self.connect()
        self.port.resumeProducing()
        self.reactor.settle()
        self.port.pauseProducing()
        self.port.resumeProducing()
        self.reactor.settle()

        assert 1 == len(self.listener.failures)

    def test_closing_ends_the_wait_for_descriptors(self) -> None:
        """
        Nothing is left to be called, however often there were none.
        """
        self.listener.failures = [errno.EMFILE, errno.EMFILE]
        self.connect()
        self.port.resumeProducing()
        self.reactor.settle()
        self.port.empty()
        self.port.stopListening()

        assert [] == self.reactor.getDelayedCalls()


class UnixPortTests(SynchronousTestCase):
    """
    For a Unix socket the kernel does not report how many wait.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.held.close)
        self.held.bind("")
        self.held.listen(64)
        self.held.setblocking(False)
        self.queues: list[int] = []
        self.accepted: list[socket.socket] = []
        self.is_open = True

    def accept(self) -> None:
        """
        Accept from now on, half of those that seem to wait.
        """

        def may(waiting: int) -> bool:
            self.queues.append(waiting)
            return self.is_open

        def take(connection: socket.socket, peer: Any) -> None:
            self.addCleanup(connection.close)
            self.accepted.append(connection)

        factory = Taking(take, lambda waiting: waiting // 2, may)
        port = Port(self.held.dup(), factory, self.reactor)
        self.addCleanup(port.stopListening)
        port.startListening()

    def connect(self, count: int) -> None:
        """
        Some clients come.
        """
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.addCleanup(client.close)
            client.connect(self.held.getsockname())

    def test_ever_more_are_taken_while_some_are_left(self) -> None:
        """
        Twice as many as in the turn before.
        """
        self.accept()
        self.connect(20)
        taken = []
        while len(self.accepted) < 20:
            before = len(self.accepted)
            self.reactor.settle(1)
            taken.append(len(self.accepted) - before)

        assert [1, 1, 2, 4, 8, 4] == taken

    def test_the_next_one_is_alone_again(self) -> None:
        """
        Where none is left, nobody seems to wait but who comes then.
        """
        self.accept()
        self.connect(8)
        self.reactor.settle()
        self.connect(1)
        self.reactor.settle()

        assert 9 == len(self.accepted)
        assert 1 == self.queues[-1]

    def test_ever_more_seem_to_wait_while_the_gate_is_closed(self) -> None:
        """
        Others take none, or too few.
        """
        self.is_open = False
        self.accept()
        self.connect(1)
        self.reactor.settle()
        for _ in range(3):
            self.reactor.advance(0.002)
        assert [1, 2, 4, 8] == self.queues

        self.held.accept()[0].close()
        self.reactor.advance(0.002)
        self.connect(1)
        self.reactor.settle()
        assert 1 == self.queues[-1]
