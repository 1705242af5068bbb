"""
Tests for `kvd.workers.dispatching`: true sockets, and workers that the test plays.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import tempfile
from typing import Any
from unittest import mock

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch.steering import Program, by_chance
from kvd.listening import ListenerGroup, open_group
from kvd.scoreboard import Scoreboard, create_scoreboard
from kvd.settings import TCPAddress, UNIXAddress
from kvd.workers.channel import Channel
from kvd.workers.dealing import JOIN_SECONDS
from kvd.workers.dispatching import Dispatching, choose_policy
from kvd.workers.messages import Deal, Listen, Unlisten, Unplaced
from kvd.workers.steering import Steering
from tests.stepped import SteppedReactor
from tests.workers.played import PlayedWorker

LIMIT = 2


class DispatchingCase(SynchronousTestCase):
    """
    Two workers that have joined, under policy ``reuseport``.
    """

    workers = 2

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        memory = create_scoreboard(self.workers, 4)
        self.addCleanup(os.close, memory)
        self.board = Scoreboard(memory)
        self.group = self.open()
        self.addCleanup(self.group.close)
        self.programs: list[Program | None] = []
        self.patch(ListenerGroup, "steer", self.steer)
        self.dispatching = Dispatching(
            choose_policy("reuseport", self.workers),
            [self.group],
            Steering([self.group], memory),
            self.board,
            LIMIT,
            self.reactor,
        )
        self.addCleanup(self.dispatching.close)
        self.addCleanup(self.dispatching.finish)
        self.played = [self.join(number) for number in range(self.workers)]
        self.reactor.settle()

    def open(self) -> ListenerGroup:
        """
        Where clients come.
        """
        return open_group(TCPAddress("127.0.0.1", 0), self.workers)

    def steer(self, program: Program | None) -> None:
        """
        Remember.
        """
        self.programs.append(program)

    def join(self, number: int) -> PlayedWorker:
        """
        A worker is ready.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        channel = Channel(near, lambda m, d: None, lambda: None, self.reactor)
        self.addCleanup(channel.close)
        self.addCleanup(far.close)
        self.dispatching.joined(number, channel)
        return PlayedWorker(number, far)

    def switch(self, name: str, workers: int | None = None) -> None:
        """
        To a policy.
        """
        self.dispatching.switch(choose_policy(name, workers or self.workers))
        self.reactor.settle()

    def heard(self, kinds: Any = Listen | Unlisten) -> list[list[Any]]:
        """
        What each worker was told since the last time, of these kinds.
        """
        return [
            [message for message in worker.hear() if isinstance(message, kinds)]
            for worker in self.played
        ]

    def connect(self) -> None:
        """
        One more client.
        """
        member = self.group.members[0]
        client = socket.socket(member.family)
        self.addCleanup(client.close)
        client.connect(member.getsockname())
        self.reactor.settle()

    def waiting(self) -> int:
        """
        How many connections wait in the kernel's queues; they do no longer.
        """
        count = 0
        for member in self.group.members:
            while True:
                try:
                    connection, _ = member.accept()
                except BlockingIOError:
                    break
                connection.close()
                count += 1
        return count


class SwitchTests(DispatchingCase):
    """
    Another policy decides.
    """

    def test_workers_that_accept_leave_off_when_the_supervisor_begins(self) -> None:
        """
        From then on connections are dealt, wherever the kernel puts them.
        """
        self.heard()
        self.connect()
        assert 1 == self.waiting()

        self.switch("roundrobin")
        assert [[Unlisten("0/0")], [Unlisten("0/1")]] == self.heard()
        for _ in range(2):
            self.connect()
        assert [1, 1] == [len(told) for told in self.heard(Deal)]
        assert 0 == self.waiting()

    def test_the_supervisor_leaves_off_when_workers_begin(self) -> None:
        """
        What is on its way to a worker arrives there.
        """
        self.switch("roundrobin")
        self.connect()
        self.heard()
        self.switch("reuseport")
        assert 1 == self.dispatching.handing_over(0)
        assert [[Listen("0/0")], [Listen("0/1")]] == self.heard()

        self.connect()
        assert 1 == self.waiting()

    def test_what_waited_for_a_worker_is_dealt(self) -> None:
        """
        The kernel's queue goes over to whoever looks at it.
        """
        for _ in range(2):
            self.connect()
        self.switch("leastbusy")

        assert 2 == sum(self.dispatching.handing_over(number) for number in range(2))

    def test_connections_are_kept_to_the_sockets_that_are_meant(self) -> None:
        """
        By a program; where all are meant, by the kernel's hash. So it is while
        workers become ready, too.
        """
        for name in ("shared", "reuseport", "roundrobin"):
            self.switch(name)

        one = by_chance(range(1))
        assert [None, one, None, one, None, one] == self.programs

    def test_sockets_that_are_not_meant_are_looked_after(self) -> None:
        """
        Something may still be in their queues.
        """
        self.heard()
        self.switch("shared")

        told = self.heard()
        polled: list[set[str]] = [{"0/0"}, {"0/1"}]
        for worker, messages in enumerate(told):
            for message in messages:
                if isinstance(message, Listen):
                    polled[worker].add(message.name)
                else:
                    polled[worker].discard(message.name)
        assert all("0/0" in names for names in polled)
        assert 1 == sum("0/1" in names for names in polled)

    def test_who_is_full_is_not_chosen_by_a_policy_that_never_saw_it(self) -> None:
        """
        It had accepted for itself until now.
        """
        row = self.board.own_row(0)
        for _ in range(LIMIT):
            row.opened()
        self.switch("roundrobin")
        for _ in range(3):
            self.connect()

        assert [0, LIMIT] == [
            self.dispatching.handing_over(number) for number in range(2)
        ]
        assert 1 == self.waiting()

    def test_a_kernel_that_takes_no_program_is_told_of_once(self) -> None:
        """
        All sockets are looked after all the same.
        """

        def refuse(group: ListenerGroup, program: Program | None) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(ListenerGroup, "steer", refuse)
        with capturedLogs() as events:
            for name in ("shared", "reuseport", "shared", "roundrobin"):
                self.switch(name)
        for _ in range(2 * LIMIT):
            self.connect()

        (event,) = events
        assert "hash is used instead" in event["log_format"]
        assert [LIMIT, LIMIT] == [
            self.dispatching.handing_over(number) for number in range(2)
        ]

    def test_a_worker_without_room_is_heard_under_every_policy(self) -> None:
        """
        Its word may come when nobody polls any more.
        """
        self.switch("roundrobin")
        self.dispatching.heard(0, Unplaced("0/0"))
        self.switch("reuseport")

        assert [Listen("0/0"), Listen("0/1")] == self.heard(Listen)[1][-2:]


class LookTests(DispatchingCase):
    """
    A program in the kernel counts, and what it counted is compared with what is.
    """

    def setUp(self) -> None:
        super().setUp()
        self.looks: list[float] = []
        self.seconds: float | None = 0.5
        self.patch(
            Steering, "look", lambda steering: self.looks.append(self.reactor.seconds())
        )
        self.patch(Steering, "look_seconds", property(lambda steering: self.seconds))

    def test_it_is_looked_at_as_often_as_it_wants(self) -> None:
        """
        From the switch to its policy on, until another is chosen.
        """
        self.switch("steered")
        began = self.reactor.seconds()
        for _ in range(4):
            self.reactor.advance(0.25)
        assert [began + 0.5, began + 1] == self.looks

        self.seconds = None
        self.switch("reuseport")
        for _ in range(4):
            self.reactor.advance(0.5)
        assert 3 == len(self.looks)

    def test_nobody_looks_when_the_sockets_are_closed(self) -> None:
        """
        There is nothing to be seen.
        """
        self.switch("steered")
        self.dispatching.finish()
        self.reactor.advance(1)

        assert [] == self.looks


class GrowTests(DispatchingCase):
    """
    More workers than there are sockets.
    """

    def test_each_gets_its_own_socket(self) -> None:
        """
        The new one is looked after by another until its worker is there.
        """
        self.heard()
        self.switch("reuseport", 3)
        assert 3 == len(self.group.members)
        assert [Listen("0/2")] == [told for each in self.heard() for told in each]

        self.board.workers = 3
        self.played.append(self.join(2))
        assert [Listen("0/2")] == self.heard()[2]

    def test_the_supervisor_accepts_from_new_ones_too(self) -> None:
        """
        A program may not be had, and then connections come to all.
        """
        self.switch("reuseport", 4)
        self.switch("roundrobin", 4)
        for _ in range(2 * LIMIT):
            self.connect()

        assert 0 == self.waiting()

    def test_where_no_more_can_be_made_workers_share(self) -> None:
        """
        And that is said.
        """

        def refuse(group: ListenerGroup, size: int) -> None:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))

        self.heard()
        self.patch(ListenerGroup, "grow", refuse)
        with capturedLogs() as events:
            self.switch("reuseport", 3)
        assert any("workers share them" in event["log_format"] for event in events)

        self.board.workers = 3
        self.played.append(self.join(2))
        shared = Listen("0/0", alone=False)
        assert [[shared], [], [shared]] == self.heard()

    def test_a_supervisor_out_of_descriptors_looks_at_a_socket_later(self) -> None:
        """
        Connections wait in it meanwhile.
        """
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.dispatching.limit(1000)
        self.switch("roundrobin")
        self.group.grow(3)
        with (
            mock.patch.object(socket.socket, "dup", side_effect=short),
            capturedLogs() as events,
        ):
            self.switch("leastbusy")
        assert any("wait for now" in event["log_format"] for event in events)
        self.fill()

        self.reactor.advance(JOIN_SECONDS)
        assert 0 == self.waiting()

    def fill(self) -> None:
        """
        Let connections come until one waits in the newest socket.
        """
        newest = self.group.members[-1]
        while not select.select([newest], [], [], 0)[0]:
            self.connect()


class UnixTests(DispatchingCase):
    """
    A Unix socket is alone.
    """

    def open(self) -> ListenerGroup:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return open_group(UNIXAddress(f"{folder.name}/socket"), self.workers)

    def test_all_workers_look_at_it(self) -> None:
        """
        Also where each would have a socket of its own.
        """
        shared = Listen("0/0", alone=False)
        assert [[shared], [shared]] == self.heard()

        self.switch("reuseport", 3)
        assert 1 == len(self.group.members)
        assert [[], []] == self.heard()

    def test_it_is_dealt_from(self) -> None:
        """
        As any other.
        """
        self.switch("roundrobin")
        self.connect()

        assert 1 == self.dispatching.handing_over(0)
