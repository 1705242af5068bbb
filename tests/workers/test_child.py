"""
Tests for `kvd.workers.child`: a worker in the reactor of the test, which plays
the supervisor.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kvd.access.rules import AccessRules
from kvd.ipc.messages import (
    MAX_DESCRIPTORS,
    Alive,
    Batch,
    Credits,
    Drain,
    Failed,
    Leaving,
    Listen,
    Message,
    Ready,
    Refused,
    Rights,
    Unplaced,
    encode,
    send,
)
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from kvd.ipc.texts import in_memory
from kvd.settings import Settings, StoreLocation
from kvd.workers import child
from kvd.workers.child import Worker
from kvd.workers.loading import load_plugins
from tests.ipc.played import PlayedWorker
from tests.stepped import SteppedReactor


class WorkerTests(SynchronousTestCase):
    """
    `Worker` does what the supervisor says.
    """

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.stops = 0
        # What a worker does where nobody would miss it.
        self.patch(self.reactor, "stop", self.stop)
        exits = mock.patch("os._exit", side_effect=AssertionError("it would exit"))
        exits.start()
        self.addCleanup(exits.stop)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.supervisor = PlayedWorker(0, 1, near)
        self.addCleanup(near.close)
        settings = Settings(store=StoreLocation("null", ""))
        memory = create_scoreboard(2)
        self.addCleanup(os.close, memory)
        board = self.board = Scoreboard(memory)
        row, parts = board.own_row(0), load_plugins(settings)
        self.worker = Worker(far, settings, 0, self.reactor, row, board, parts)
        self.addCleanup(self.worker._channel.close)

    def stop(self) -> None:
        """
        Count.
        """
        self.stops += 1

    def send_without_room(self, message: Message) -> list[Any]:
        """
        What the worker answers to a message whose descriptors it has no room
        for.
        """
        with open(os.devnull) as file:
            # More than it takes, so the kernel drops some, as it does where
            # the limit of open files is reached.
            many = [file.fileno()] * (MAX_DESCRIPTORS + 1)
            socket.send_fds(self.supervisor.control, [encode(message)], many)
        self.reactor.settle()
        return self.supervisor.receive()

    def test_a_socket_that_it_has_no_room_for_is_left_to_others(self) -> None:
        """
        Whom it serves already, it goes on to serve.
        """
        assert [Unplaced("0/1")] == self.send_without_room(Listen("0/1"))
        assert 0 == self.stops

    def test_a_socket_that_it_cannot_adopt_is_left_to_others(self) -> None:
        """
        It takes another descriptor for a moment.
        """
        self.worker._server.start()
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with (
            socket.create_server(("127.0.0.1", 0)) as sock,
            mock.patch.object(os, "dup", side_effect=short),
        ):
            send(self.supervisor.control, Listen("0/1"), [sock.fileno()])
            self.reactor.settle()

        assert [Unplaced("0/1")] == self.supervisor.receive()

    def test_new_rights_hold_at_once(self) -> None:
        """
        Also the first ones, and that there are none any more. The same ones make no
        work. What came with them is closed.
        """
        adopted: list[list[str]] = []

        def adopt(rules: AccessRules, counting: int, verifying: int) -> None:
            assert os.fstat(counting) == os.fstat(verifying)
            adopted.append(list(rules.users))

        self.patch(self.worker._server, "adopt_rules", adopt)
        self.patch(self.worker._server, "adopt_no_rules", lambda: adopted.append([]))
        before = len(os.listdir("/proc/self/fd"))
        for name in ("ci", "ci", "bot", "", "bot"):
            self.say_rights(f"[users.{name}]" if name else "")

        assert [["ci"], ["bot"], [], ["bot"]] == adopted
        assert [] == self.supervisor.receive()
        assert before == len(os.listdir("/proc/self/fd"))

    def say_rights(self, text: str) -> None:
        """
        The supervisor has read a rights file, or there is none.
        """
        if not text:
            self.supervisor.say(Rights(""))
        else:
            with in_memory("rights", text) as file, open(os.devnull) as other:
                sent = [file.fileno(), other.fileno(), other.fileno()]
                send(self.supervisor.control, Rights("/file"), sent)
        self.reactor.settle()

    def test_who_cannot_apply_new_rights_leaves(self) -> None:
        """
        Whatever it is: no room for their text, or a fault. Meanwhile it serves nobody;
        if it can apply them later, even the same, it serves by them.
        """
        closed: list[bool] = []
        self.patch(self.worker._server, "close_to_all", lambda: closed.append(True))
        assert [Leaving()] == self.send_without_room(Rights("/file"))
        assert 1 == len(self.flushLoggedErrors(OSError))

        fails = mock.Mock(side_effect=MemoryError)
        self.patch(self.worker._server, "adopt_rules", fails)
        self.say_rights("[users.ci]")
        assert [Leaving()] == self.supervisor.receive()
        assert 1 == len(self.flushLoggedErrors(MemoryError))
        assert [True, True] == closed

        fails.side_effect = None
        self.say_rights("[users.ci]")
        assert 2 == fails.call_count
        assert [] == self.supervisor.receive()
        assert 0 == self.stops

    def test_it_reports_its_number(self) -> None:
        """
        When its store is open.
        """
        # What a worker does to its process, and not to that of the tests.
        with mock.patch.object(child, "globalLogBeginner"), mock.patch("signal.signal"):
            self.worker.start()

        assert [Ready(os.getpid())] == self.supervisor.receive()

    def test_asked_whether_it_lives_it_only_wakes(self) -> None:
        """
        Which the scoreboard shows.
        """
        self.supervisor.receive()
        self.supervisor.say(Alive())
        self.reactor.settle()

        assert [] == self.supervisor.receive()
        assert 0 == self.stops

    def test_it_asks_before_it_leaves(self) -> None:
        """
        The supervisor may have got the same signal.
        """
        self.worker._server.start()
        self.worker._terminated(signal.SIGTERM, None)
        self.reactor.settle()
        assert [Leaving()] == self.supervisor.receive()
        assert 0 == self.stops

        self.supervisor.say(Drain(1.0))
        self.reactor.settle()
        assert 1 == self.stops

    def test_what_comes_when_it_has_drained_is_given_back(self) -> None:
        """
        Read at once with the word to drain, and nothing was left to finish.
        """
        self.worker._server.start()
        counter = os.eventfd(1)
        self.addCleanup(os.close, counter)
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        control = self.supervisor.control
        send(control, Credits(), [counter])
        send(control, Drain(1.0))
        send(control, Batch(0, 1, socket.AF_UNIX, asks=False), [theirs.fileno()])
        self.reactor.settle()
        os.close(self.worker._adopting._credits)

        assert [Refused(0)] == self.supervisor.receive()
        assert 1 == self.stops

    def test_a_reason_of_any_length_reaches_the_supervisor(self) -> None:
        """
        Shortened: it has to fit into a message.
        """
        self.worker._fail("\u2603" * 20_000)
        (failed,) = self.supervisor.receive()

        assert isinstance(failed, Failed)
        assert failed.sentence.startswith("\u2603" * 5000)

    def test_without_room_for_its_counter_it_cannot_serve(self) -> None:
        """
        It says so and ends: there was no room from the first.
        """
        (failed,) = self.send_without_room(Credits())

        assert isinstance(failed, Failed)
        assert "limit of open files" in failed.sentence
        assert (1, 1) == (self.stops, self.worker.status)
