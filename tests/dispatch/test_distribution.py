"""
Tests for `kvd.dispatch.distribution`: true sockets, and workers that the test plays.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import tempfile
from math import inf
from typing import Any
from unittest import mock

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch import listener_assignment
from kvd.dispatch.distribution import PolicyDistribution, choose_policy
from kvd.dispatch.ports import ADOPT_SECONDS
from kvd.dispatch.reuseport_programs import ReuseportPrograms
from kvd.dispatch.stalling import (
    AWAITED_LOOKS,
    LOOK_SECONDS,
    SOON_LOOK_SECONDS,
    SUSPECT_SECONDS,
    UNAWAITED_LOOK_SECONDS,
)
from kvd.ipc.channel import Channel
from kvd.ipc.messages import Alive, Batch, Gated, Listen, Unlisten, Unplaced
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from kvd.model.programs import ClassicProgram
from kvd.net.listening import ListenerGroup, open_group
from kvd.net.reuseport import by_chance
from kvd.settings import TCPAddress, UNIXAddress
from tests.ipc.played import PlayedWorker
from tests.stepped import SteppedReactor

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
        self.programs: list[ClassicProgram | None] = []
        self.patch(ListenerGroup, "attach_program", self.attach)
        self.distribution = PolicyDistribution(
            choose_policy("reuseport", self.workers),
            [self.group],
            ReuseportPrograms([self.group], memory),
            self.board,
            LIMIT,
            self.reactor,
        )
        self.addCleanup(self.distribution.close)
        self.addCleanup(self.distribution.finish)
        self.played = [self.join(number) for number in range(self.workers)]
        self.reactor.settle()

    def open(self) -> ListenerGroup:
        """
        Where clients come.
        """
        return open_group(TCPAddress("127.0.0.1", 0), self.workers)

    def attach(self, program: ClassicProgram | None) -> None:
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
        self.distribution.joined(number, channel)
        return PlayedWorker(number, 1, far)

    def switch(self, name: str, workers: int | None = None) -> None:
        """
        To a policy.
        """
        self.distribution.switch(choose_policy(name, workers or self.workers))
        self.reactor.settle()

    def received(self, kinds: Any = Listen | Unlisten) -> list[list[Any]]:
        """
        The messages of these kinds that each worker got since the last time.
        """
        return [
            [message for message in worker.receive() if isinstance(message, kinds)]
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
        From then on connections are dispatched, wherever the kernel puts them.
        """
        self.received()
        self.connect()
        assert 1 == self.waiting()

        self.switch("roundrobin")
        assert [[Unlisten("0/0")], [Unlisten("0/1")]] == self.received()
        for _ in range(2):
            self.connect()
        assert [1, 1] == [len(sent) for sent in self.received(Batch)]
        assert 0 == self.waiting()

    def test_the_supervisor_leaves_off_when_workers_begin(self) -> None:
        """
        What is on its way to a worker arrives there.
        """
        self.switch("roundrobin")
        self.connect()
        self.received()
        self.switch("reuseport")
        assert 1 == self.distribution.handing_over(0)
        assert [[Listen("0/0")], [Listen("0/1")]] == self.received()

        self.connect()
        assert 1 == self.waiting()

    def test_what_waited_for_a_worker_is_dealt(self) -> None:
        """
        The kernel's queue goes over to whoever looks at it.
        """
        for _ in range(2):
            self.connect()
        self.switch("leastbusy")

        assert 2 == sum(self.distribution.handing_over(number) for number in range(2))

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
        self.received()
        self.switch("shared")

        sent = self.received()
        member: list[set[str]] = [{"0/0"}, {"0/1"}]
        for worker, messages in enumerate(sent):
            for message in messages:
                if isinstance(message, Listen):
                    member[worker].add(message.name)
                else:
                    member[worker].discard(message.name)
        assert all("0/0" in names for names in member)
        assert 1 == sum("0/1" in names for names in member)

    def test_a_worker_that_is_full_is_not_chosen_by_a_policy_that_never_saw_it(
        self,
    ) -> None:
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
            self.distribution.handing_over(number) for number in range(2)
        ]
        assert 1 == self.waiting()

    def test_a_kernel_that_takes_no_program_is_reported_once(self) -> None:
        """
        Workers accept from all sockets nevertheless.
        """

        def refuse(group: ListenerGroup, program: ClassicProgram | None) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        self.patch(ListenerGroup, "attach_program", refuse)
        with capturedLogs() as events:
            for name in ("shared", "reuseport", "shared", "roundrobin"):
                self.switch(name)
        for _ in range(2 * LIMIT):
            self.connect()

        (event,) = events
        assert "hash uses all of them" in event["log_format"]
        assert [LIMIT, LIMIT] == [
            self.distribution.handing_over(number) for number in range(2)
        ]

    def test_workers_hear_of_a_gate(self) -> None:
        """
        Also that there is none any more, and whoever becomes ready later.
        """
        self.received()
        self.switch("gated")
        assert [[Gated("gated")]] * 2 == self.received(Gated)
        self.board.workers = 3
        self.played.append(self.join(2))
        assert [[], [], [Gated("gated")]] == self.received(Gated)

        self.switch("shared")
        assert [[Gated("")]] * 3 == self.received(Gated)

    def test_the_old_policy_chooses_for_what_has_been_accepted(self) -> None:
        """
        It waits for the next worker, though the kernel chooses for those after it.
        """
        self.switch("roundrobin")
        for _ in range(2):
            self.connect()
        for worker in range(2):
            self.distribution.left(worker)
        self.switch("reuseport")
        self.join(0)

        assert 2 == self.distribution.handing_over(0)

    def test_what_waits_for_workers_is_left_to_them_at_the_end(self) -> None:
        """
        They have the sockets, too.
        """
        held = [member.dup() for member in self.group.members]
        self.connect()
        self.distribution.finish()
        came = [sock for sock in held if select.select([sock], [], [], 0)[0]]
        for sock in held:
            sock.close()

        assert 1 == len(came)

    def test_what_is_anothers_is_left_to_whoever_gets_it_next(self) -> None:
        """
        The workers let go of its sockets first, and take nothing more of them.
        """
        self.received()
        self.group.given = 1
        self.distribution.finish()
        self.reactor.settle()

        assert [[Unlisten("0/0")], []] == self.received()

    def test_the_limit_of_connections_may_change(self) -> None:
        """
        From the next connection on.
        """
        self.switch("roundrobin")
        self.distribution.limit(1)
        for _ in range(4):
            self.connect()

        assert 2 == self.waiting()

    def test_a_worker_that_has_as_many_as_a_lower_limit_gets_no_more(self) -> None:
        """
        Not even the next one.
        """
        self.switch("roundrobin")
        row = self.board.own_row(0)
        row.opened()
        row.opened()
        self.received()
        self.distribution.limit(2)
        self.connect()

        assert [0, 1] == list(map(len, self.received(Batch)))

    def test_a_program_that_is_there_is_not_loaded_again(self) -> None:
        """
        Whoever leaves, if it makes no difference.
        """
        self.switch("roundrobin")
        before = list(self.programs)
        self.distribution.left(0)

        assert before == self.programs

    def test_a_worker_without_room_is_heard_under_every_policy(self) -> None:
        """
        Its word may come when nobody polls any more.
        """
        self.switch("roundrobin")
        self.distribution.received(0, Unplaced("0/0"))
        self.switch("reuseport")

        assert [Listen("0/0"), Listen("0/1")] == self.received(Listen)[1][-2:]


class LookTests(DispatchingCase):
    """
    A program in the kernel counts, and what it counted is compared with what is.
    """

    def setUp(self) -> None:
        super().setUp()
        self.looks: list[float] = []
        self.seconds: float | None = 0.5
        self.patch(
            ReuseportPrograms,
            "look",
            lambda programs: self.looks.append(self.reactor.seconds()),
        )
        self.patch(
            ReuseportPrograms, "look_seconds", property(lambda programs: self.seconds)
        )

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
        self.distribution.finish()
        self.reactor.advance(1)

        assert [] == self.looks


class TakersTests(DispatchingCase):
    """
    Workers that accept for themselves see who else does.
    """

    def test_a_worker_that_is_about_to_end_or_gone_takes_none(self) -> None:
        """
        Whoever replaces it does, when it is ready.
        """
        assert [0, 1] == list(self.board.loads(inf).ready)
        self.distribution.leaving(0)
        assert [1] == list(self.board.loads(inf).ready)
        self.distribution.left(0)
        self.distribution.left(1)
        assert [] == list(self.board.loads(inf).ready)

        self.join(1)
        assert [1] == list(self.board.loads(inf).ready)


class StallTests(DispatchingCase):
    """
    A worker makes no turn: it is stopped, or busy with one thing.
    """

    workers = 3

    def setUp(self) -> None:
        super().setUp()
        self.silent = [0.0, 0.0, 0.0]
        self.patch(Scoreboard, "silent_seconds", lambda board: list(self.silent))
        self.look()
        self.received()

    def look(self) -> None:
        """
        The supervisor looks once.
        """
        self.reactor.advance(LOOK_SECONDS)

    def wait_at(self, member: int) -> None:
        """
        Let connections come until one waits in a socket.
        """
        while not select.select([self.group.members[member]], [], [], 0)[0]:
            self.connect()

    def stalls(self) -> list[int]:
        """
        How often each worker did not respond.
        """
        return [of.stalls for of in self.board.sums()]

    def stall(self) -> None:
        """
        Worker 1 gives no sign, although a connection waits for it.
        """
        self.wait_at(1)
        for looks in range(AWAITED_LOOKS):
            self.silent[1] = 0.3 + LOOK_SECONDS * looks
            self.look()

    def test_another_looks_after_its_socket_and_nothing_more_comes_there(self) -> None:
        """
        It keeps the socket, too.
        """
        self.stall()
        sent = self.received()
        assert [] == sent[1]
        assert [Listen("0/1")] == sent[0] + sent[2]
        assert by_chance([0, 2]) == self.programs[-1]
        assert [0, 2] == list(self.board.loads(inf).ready)
        assert [0, 1, 0] == self.stalls()

    def be_silent(self, worker: int, looks: int) -> None:
        """
        A worker stopped a tenth of a second before a look, and that many more come.
        """
        for look in range(looks):
            self.silent[worker] = 0.1 + LOOK_SECONDS * (look + 1)
            self.look()

    def test_one_that_hangs_is_reported_until_it_has_left(self) -> None:
        """
        When it has not responded for as long as is allowed. Another may be replaced by
        then: it is not reported.
        """
        hung: list[tuple[int, float]] = []
        self.distribution.hung = lambda worker, seconds: hung.append(
            (worker, round(seconds, 3))
        )
        self.distribution.hang_seconds = 1.2
        self.be_silent(1, 5)
        assert [] == hung
        assert [] == list(self.distribution.stalled)
        self.silent[1] = 1.6
        self.look()
        assert {(1, 1.3)} == {*hung}
        assert [1] == list(self.distribution.stalled)

        hung.clear()
        self.distribution.left(1)
        self.silent[1] = 1.8
        self.look()
        assert [] == hung
        assert [] == list(self.distribution.stalled)

    def test_one_that_hangs_is_reported_as_soon_as_it_does(self) -> None:
        """
        Not at the look that comes next, and only if it has given no sign since.
        """
        hung: list[int] = []
        self.distribution.hung = lambda worker, seconds: hung.append(worker)
        self.distribution.hang_seconds = 1.2
        self.be_silent(1, 5)
        self.silent[1] = 0.05
        self.reactor.advance(LOOK_SECONDS * 0.6)
        assert [] == hung
        self.reactor.advance(LOOK_SECONDS * 0.4)

        self.be_silent(1, 5)
        self.silent[1] = 1.22
        self.reactor.advance(LOOK_SECONDS * 0.6)
        assert [1] == hung

    def test_at_the_end_none_is_reported(self) -> None:
        """
        All have their time to drain.
        """
        hung: list[int] = []
        self.distribution.hung = lambda worker, seconds: hung.append(worker)
        self.distribution.hang_seconds = 1.2
        self.be_silent(1, 5)
        self.distribution.finish()
        self.reactor.advance(1)

        assert [] == hung

    def test_it_gets_its_share_again_when_it_lives(self) -> None:
        """
        As soon as it gives a sign. All is logged once.
        """
        with capturedLogs() as events:
            self.stall()
            self.silent[1] = 20.25
            self.look()
            self.received()
            self.silent[1] = 0.1
            self.look()
            self.look()
        sent = self.received()
        assert [] == sent[1]
        assert [Unlisten("0/1")] == sent[0] + sent[2]
        assert None is self.programs[-1]
        assert [0, 1, 2] == list(self.board.loads(inf).ready)
        assert [(1, 0.9), (1, 20.25)] == [
            (event["worker"], round(event["seconds"], 3)) for event in events
        ]
        assert 1 == self.stalls()[1]

    def test_a_worker_that_waits_for_nobody_may_be_silent_for_longer(self) -> None:
        """
        For a second, and what a busy machine takes; not for ever.
        """
        self.silent = [0.0, 1.2, 0.0]
        self.look()
        assert [[], [], []] == self.received()

        self.silent[1] = 1.6
        self.look()
        assert 1 == self.stalls()[1]

    def test_a_worker_that_is_just_about_to_wake_is_not_taken_for_one(self) -> None:
        """
        It has slept for long, and a connection has only just come for it.
        """
        self.silent[1] = 0.9
        for _ in range(2 * AWAITED_LOOKS):
            self.wait_at(1)
            self.look()
            self.silent[1] = 0.1
            self.waiting()
            self.look()
            self.silent[1] = 0.9

        assert 0 == self.stalls()[1]
        assert [[], [], []] == self.received()

    def test_a_worker_that_has_no_room_for_more_is_not_taken_for_one(self) -> None:
        """
        Connections wait for it until one of its own ends.
        """
        row = self.board.own_row(1)
        for _ in range(LIMIT):
            row.opened()
        self.stall()

        assert [[], [], []] == self.received()

    def test_a_stand_in_may_come_to_stand_still_too(self) -> None:
        """
        Then the last one looks after all of the sockets.
        """
        self.stall()
        sent = self.received()
        other = 2 if sent[0] else 0
        stands_in = 2 - other
        self.silent[stands_in] = 2.0
        self.look()

        sent = self.received()
        assert [Unlisten("0/1")] == sent[stands_in]
        assert [Listen("0/1"), Listen(f"0/{stands_in}")] == sorted(
            sent[other], key=lambda message: str(message.name == f"0/{stands_in}")
        )
        assert by_chance([other]) == self.programs[-1]

    def test_where_nobody_makes_a_turn_all_get_what_comes(self) -> None:
        """
        Whoever is first to live again has something to do.
        """
        self.silent = [2.0, 2.0, 2.0]
        self.look()

        assert None is self.programs[-1]
        assert [1, 1, 1] == self.stalls()

    def test_a_supervisor_that_stood_still_judges_nobody(self) -> None:
        """
        All of the service may have been stopped.
        """
        self.silent = [0.0, 2.0, 2.0]
        self.reactor.advance(5)
        assert [0, 0, 0] == self.stalls()

        self.look()
        assert [0, 1, 1] == self.stalls()

    def test_a_supervisor_that_is_always_late_finds_one_that_hangs(self) -> None:
        """
        On a machine that is very busy no look comes in time.
        """
        hung: list[int] = []

        def replace(worker: int, seconds: float) -> None:
            hung.append(worker)
            self.distribution.left(worker)

        self.distribution.hung = replace
        self.distribution.hang_seconds = 3.0
        for looks in range(1, 6):
            self.silent[1] = 0.6 * looks + 0.1
            self.reactor.advance(0.6)

        assert [1] == hung

    def test_none_that_is_stopped_stands_in_for_another(self) -> None:
        """
        A connection waits for one of two. Both are asked, and both are found at once.
        """
        self.silent[1] = self.silent[2] = 0.3
        self.wait_at(1)
        for _ in range(AWAITED_LOOKS):
            self.look()
            self.silent[1] += LOOK_SECONDS
            self.silent[2] += LOOK_SECONDS

        sent = self.received(Listen | Unlisten | Alive)
        assert [[Alive()], [Alive()]] == sent[1:]
        assert [Listen("0/1"), Listen("0/2")] == sent[0]

    def test_what_waits_at_a_shared_socket_wakes_all(self) -> None:
        """
        Also where no worker is silent: the kernel has woken one, which may have been
        another daemon's, in whose place this one is, and accepts no more.
        """
        rung: list[int] = []
        self.patch(listener_assignment, "ring", rung.append)
        self.switch("shared")
        self.look()
        assert [] == rung
        self.connect()
        self.look()
        assert 1 == len(rung)
        self.waiting()
        self.look()
        assert 1 == len(rung)

    def test_where_the_supervisor_accepts_it_looks_less_often(self) -> None:
        """
        And at no socket, since no connection waits for a worker at one.
        """
        asked: list[ListenerGroup] = []
        self.patch(ListenerGroup, "have_waiting", asked.append)
        self.switch("roundrobin")
        self.look()
        self.silent[1] = 1.6

        self.reactor.advance(UNAWAITED_LOOK_SECONDS - 0.01)
        assert 0 == self.stalls()[1]
        self.reactor.advance(0.01)
        assert 1 == self.stalls()[1]
        assert [] == asked

    def test_what_comes_in_its_place_is_not_it(self) -> None:
        """
        It gets its share as soon as it is ready, and nothing is said of it.
        """
        self.stall()
        with capturedLogs() as events:
            self.distribution.left(1)
            self.received()
            self.silent[1] = 0.0
            self.join(1)
            sent = self.received()
            self.look()

        assert [Unlisten("0/1")] == sent[0] + sent[2]
        assert None is self.programs[-1]
        assert [] == events

    def test_another_policy_keeps_away_from_it_too(self) -> None:
        """
        It is known already.
        """
        self.stall()
        self.switch("roundrobin")
        self.received()
        self.switch("steered")

        sent = self.received()
        assert Listen("0/1") in sent[0] + sent[2]
        assert by_chance([0, 2]) == self.programs[-1]

    def test_nobody_looks_at_the_end(self) -> None:
        """
        The sockets are closed.
        """
        self.silent[1] = 9.0
        self.distribution.finish()
        self.look()

        assert 0 == self.stalls()[1]


class WaitTests(DispatchingCase):
    """
    How long a connection waits for a worker that has stopped, where workers accept.
    """

    workers = 4
    stopped: tuple[int, ...] = (1, 2, 3)

    def setUp(self) -> None:
        super().setUp()
        self.signs = [self.reactor.seconds()] * self.workers
        self.patch(Scoreboard, "silent_seconds", self.silent_seconds)

    def silent_seconds(self, board: Scoreboard | None = None) -> list[float]:
        """
        By the clock of the reactor.
        """
        return [self.reactor.seconds() - sign for sign in self.signs]

    def pass_on(self, seconds: float) -> None:
        """
        Let time pass, in which workers that live give a sign whenever they are asked,
        and at least every second.
        """
        self.reactor.advance(seconds)
        for worker, messages in enumerate(self.received(Alive | Listen)):
            if worker not in self.stopped and (
                messages or self.silent_seconds()[worker] >= 1
            ):
                self.signs[worker] = self.reactor.seconds()

    def seconds_until_found(self, policy: str, phase: float) -> float:
        """
        How long a connection waits that comes when the workers have just given a sign,
        so long after a look, and stopped.
        """
        step = 0.01
        self.switch(policy)
        while self.distribution.stalled:
            self.signs = [self.reactor.seconds()] * self.workers
            self.pass_on(step)
        self.pass_on(phase)
        self.signs = [self.reactor.seconds()] * self.workers
        self.waiting()
        for member in range(len(self.group.members)):
            while not select.select([self.group.members[member]], [], [], 0)[0]:
                self.connect()
        began = self.reactor.seconds()
        while set(self.stopped) - set(self.distribution.stalled):
            self.pass_on(step)
            assert self.reactor.seconds() < began + 5
        return self.reactor.seconds() - began

    def test_it_is_found_soon_under_each_policy(self) -> None:
        """
        All that have stopped, and nobody else, whenever that was between two looks.
        """
        for policy in ("shared", "reuseport", "gated", "steered"):
            found = [
                self.seconds_until_found(policy, phase / 50) for phase in range(10)
            ]
            assert set(self.stopped) == set(self.distribution.stalled), policy
            least, most = min(found), max(found)
            assert SUSPECT_SECONDS + 3 * SOON_LOOK_SECONDS <= least + 1e-9, policy
            # 0.55, and each look comes up to a step late here.
            assert most <= 0.6, policy

    def test_one_that_computes_for_half_a_second_keeps_all_that_it_has(self) -> None:
        """
        Others take what waits for it meanwhile, and nothing afterwards.
        """
        self.stopped = (1,)
        self.received()
        self.seconds_until_found("reuseport", 0.0)
        self.pass_on(0.01)
        self.received(Unlisten)
        self.stopped = ()
        self.signs[1] = self.reactor.seconds()
        self.waiting()
        self.reactor.advance(LOOK_SECONDS)

        assert not self.distribution.stalled
        sent = self.received()
        assert [] == sent[1]
        assert [Unlisten("0/1")] == [message for each in sent for message in each]
        assert list(range(4)) == list(self.board.loads(inf).ready)


class LeaveTests(DispatchingCase):
    """
    A worker is about to end, or gone.
    """

    def test_another_looks_after_the_socket_of_a_worker_that_is_gone(self) -> None:
        """
        Until it is replaced.
        """
        self.received()
        self.distribution.left(0)
        assert [Listen("0/0")] == self.received()[1]

        self.join(0)
        assert [Unlisten("0/0")] == self.received()[1]

    def test_what_is_on_its_way_to_a_worker_that_leaves_goes_to_another(self) -> None:
        """
        At once.
        """
        self.switch("roundrobin")
        self.connect()
        assert 1 == self.distribution.handing_over(0)
        self.distribution.leaving(0)

        assert 1 == self.distribution.handing_over(1)

    def test_a_stand_in_counts_from_the_first_again(self) -> None:
        """
        While workers are replaced, one more serves: it polls, and connections come,
        as if it were the first.
        """
        self.board.workers = 3
        self.join(2)
        self.distribution.left(0)

        assert None is self.programs[-1]

    def test_a_worker_that_leaves_at_the_end_changes_nothing_more(self) -> None:
        """
        The sockets are closed.
        """
        before = list(self.programs)
        self.distribution.finish()
        with capturedLogs() as events:
            self.distribution.left(0)

        assert [] == events
        assert before == self.programs

    def test_nothing_is_left_to_be_called_at_the_end(self) -> None:
        """
        Neither what was to be tried again.
        """
        for worker in range(2):
            self.distribution.received(worker, Unplaced("0/0"))
        assert [] != self.reactor.getDelayedCalls()
        self.distribution.finish()
        self.distribution.close()

        assert [] == self.reactor.getDelayedCalls()


class ShadowTests(DispatchingCase):
    """
    A policy that looks on.
    """

    def counts(self) -> dict[str, Any] | None:
        """
        What is logged of it.
        """
        return self.distribution.shadow_counts(range(2))

    def test_it_looks_on_wherever_there_is_something_to_see(self) -> None:
        """
        Under each policy it counts anew; where the kernel chooses it waits.
        """
        assert None is self.counts()
        self.switch("roundrobin")
        self.distribution.shadow_by(choose_policy("leastbusy", 2))
        for name in ("roundrobin", "leastbusy"):
            self.switch(name)
            self.connect()
            compared = self.counts()
            assert compared is not None
            assert ("leastbusy", 1) == (compared["policy"], compared["connections"])

        self.switch("reuseport")
        assert {"policy": "leastbusy", "model": False} == self.counts()
        self.distribution.shadow_by(choose_policy("steered", 2))
        assert {"policy": "steered", "model": True} == self.counts()

        self.distribution.shadow_by(None)
        assert None is self.counts()


class GrowTests(DispatchingCase):
    """
    More workers than there are sockets.
    """

    def test_each_gets_its_own_socket(self) -> None:
        """
        The new one is looked after by another until its worker is there.
        """
        self.received()
        self.switch("reuseport", 3)
        assert 3 == len(self.group.members)
        assert [Listen("0/2")] == [sent for each in self.received() for sent in each]

        self.board.workers = 3
        self.played.append(self.join(2))
        assert [Listen("0/2")] == self.received()[2]

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

        self.received()
        self.patch(ListenerGroup, "grow", refuse)
        with capturedLogs() as events:
            self.switch("reuseport", 3)
        assert any("workers share them" in event["log_format"] for event in events)

        self.board.workers = 3
        self.played.append(self.join(2))
        shared = Listen("0/0", exclusive=False)
        assert [[shared], [], [shared]] == self.received()

        # And no program chooses one that there is not.
        assert None is self.programs[-1]
        for worker in range(3):
            self.distribution.left(worker)
        assert None is self.programs[-1]

    def test_a_supervisor_out_of_descriptors_looks_at_a_socket_later(self) -> None:
        """
        Connections wait in it meanwhile.
        """
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.distribution.limit(1000)
        self.switch("roundrobin")
        self.group.grow(3)
        with (
            mock.patch.object(os, "dup", side_effect=short),
            capturedLogs() as events,
        ):
            self.switch("leastbusy")
        assert any("wait for now" in event["log_format"] for event in events)
        self.fill()

        self.reactor.advance(ADOPT_SECONDS)
        assert 0 == self.waiting()

    def test_a_socket_is_not_looked_at_any_more_at_the_end(self) -> None:
        """
        However often there was no descriptor for it.
        """
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.group.grow(3)
        with mock.patch.object(os, "dup", side_effect=short):
            self.switch("leastbusy")
            self.switch("reuseport")
        assert 2 == len(self.reactor.getDelayedCalls())
        self.distribution.finish()
        assert [] == self.reactor.getDelayedCalls()

    def fill(self) -> None:
        """
        Let connections come until one waits in the newest socket.
        """
        newest = self.group.members[-1]
        while not select.select([newest], [], [], 0)[0]:
            self.connect()


class UnixTests(DispatchingCase):
    """
    A Unix address has one socket.
    """

    def open(self) -> ListenerGroup:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        return open_group(UNIXAddress(f"{folder.name}/socket"), self.workers)

    def test_all_workers_look_at_it(self) -> None:
        """
        Also where each would have a socket of its own.
        """
        shared = Listen("0/0", exclusive=False)
        assert [[shared], [shared]] == self.received()

        self.switch("reuseport", 3)
        assert 1 == len(self.group.members)
        assert [[], []] == self.received()

    def test_it_is_dealt_from(self) -> None:
        """
        As any other.
        """
        self.switch("roundrobin")
        self.connect()

        assert 1 == self.distribution.handing_over(0)
