"""
Tests for `kvd.workers.pool`: the test plays the workers.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from unittest import mock

from twisted.internet.defer import Deferred
from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch.arrangement import Arrangement, arrange
from kvd.dispatch.listener_assignment import ROOM_SECONDS, ListenerAssignment
from kvd.dispatch.policies.reuseport import ReusePort
from kvd.dispatch.policies.shared import Shared
from kvd.interfaces import IDispatchPolicy
from kvd.ipc.messages import (
    Drain,
    Failed,
    Leaving,
    Listen,
    LogLine,
    Message,
    Ready,
    Unlisten,
    Unplaced,
    receive,
)
from kvd.net.listening import ListenerGroup, open_group
from kvd.settings import Settings, TCPAddress
from kvd.workers.backoff import FIRST_SECONDS
from kvd.workers.distribution import Distribution, NoDistribution
from kvd.workers.endings import END_SECONDS, EXPLAIN_SECONDS
from kvd.workers.pool import LEAVE_SECONDS, RETRY_SECONDS, START_SECONDS, Pool
from kvd.workers.record import State
from tests.descriptors import Descriptors
from tests.ipc.played import PlayedForks, PlayedWorker
from tests.patience import PATIENCE_SECONDS
from tests.stepped import SteppedReactor


class PoolCase(SynchronousTestCase):
    """
    A pool over played workers.
    """

    procs = 3
    policy: IDispatchPolicy = ReusePort()

    def setUp(self) -> None:
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.forks = PlayedForks()
        self.addCleanup(self.end_all)
        arranged = arrange("policy", self.policy, self.procs)
        self.groups: list[ListenerGroup] = [
            open_group(TCPAddress("127.0.0.1", 0), arranged.group_size)
        ]
        self.addCleanup(self.groups[0].close)
        self.served = 0
        self.ended: list[int] = []
        self.pool = Pool(
            Settings(procs=self.procs, drain_seconds=5),
            self.make_distribution(arranged),
            self.forks,
            self.reactor,
            self.serve,
            self.ended.append,
        )
        self.pool.start()

    def make_distribution(self, arranged: Arrangement) -> Distribution:
        """
        Of connections, over the groups.
        """
        return ListenerAssignment(arranged.members, self.groups, self.reactor)

    def serve(self) -> None:
        """
        Count.
        """
        self.served += 1

    def end_all(self) -> None:
        """
        No descriptor is left to the garbage collector.
        """
        for record in self.pool.workers:
            if record.channel is not None:
                record.channel.close()
            if record.pidfd != -1:
                os.close(record.pidfd)
        for worker in self.forks.made:
            worker.end()

    def last(self, number: int) -> PlayedWorker:
        """
        The newest process of a worker.
        """
        return [worker for worker in self.forks.made if worker.number == number][-1]

    def ready(self, *numbers: int) -> None:
        """
        Let workers be ready, one after the other.
        """
        for number in numbers:
            self.last(number).say(Ready())
            self.reactor.settle()

    def received(self, number: int) -> list[Message]:
        """
        The messages that a worker got since the last time.
        """
        return self.last(number).receive()

    def forked(self, number: int, pid: int, pidfd: int) -> None:
        """
        The fork server has made the newest process of a worker.
        """
        self.pool.forked(number, pid, pidfd, self.last(number).request)

    def state(self, number: int) -> State:
        """
        Of a worker.
        """
        return self.pool.workers[number].state


class WithheldTests(PoolCase):
    """
    Workers get ready, and accept nothing until they may.
    """

    def make_distribution(self, arranged: Arrangement) -> Distribution:
        """
        None yet.
        """
        self.later = super().make_distribution(arranged)
        return NoDistribution()

    def test_ready_workers_get_sockets_when_they_may_serve(self) -> None:
        """
        Those that get ready later, at once.
        """
        self.ready(0, 1)
        assert not any(isinstance(each, Listen) for each in self.received(0))
        self.pool.distribute_by(self.later)
        assert Listen("0/0") in self.received(0)
        self.ready(2)
        assert Listen("0/2") in self.received(2)

    def test_a_failure_is_known(self) -> None:
        """
        Until the worker is ready.
        """
        failures = [self.pool.failure]
        self.last(1).say(Failed("no room"))
        self.reactor.settle()
        failures.append(self.pool.failure)
        self.ready(1)
        failures.append(self.pool.failure)

        assert ["", "worker 1: no room", ""] == failures


class StartTests(PoolCase):
    """
    Workers start, and get their sockets.
    """

    def test_all_are_started_at_once(self) -> None:
        """
        None waits for another.
        """
        assert [0, 1, 2] == [worker.number for worker in self.forks.made]

    def test_each_gets_its_own_socket(self) -> None:
        """
        When it is ready.
        """
        assert [] == self.received(0)
        self.ready(0, 1, 2)

        for number in range(3):
            assert Listen(f"0/{number}") in self.received(number)

    def test_a_ready_worker_stands_in_for_one_that_is_not(self) -> None:
        """
        No socket is member by nobody, and it moves once.
        """
        self.ready(1)
        assert {"0/0", "0/1", "0/2"} == {
            message.name for message in self.received(1) if isinstance(message, Listen)
        }

        self.ready(0)
        assert [Unlisten("0/0")] == self.received(1)
        assert [Listen("0/0")] == self.received(0)
        self.ready(2)
        assert [Unlisten("0/2")] == self.received(1)
        assert [] == self.received(0)

    def test_serving_begins_once_when_all_are_ready(self) -> None:
        """
        And not again after a replacement.
        """
        self.ready(0, 1)
        assert 0 == self.served
        self.ready(2)
        assert 1 == self.served

        self.last(0).end()
        self.reactor.advance(FIRST_SECONDS)
        self.ready(0)
        assert 1 == self.served

    def test_a_worker_that_is_not_wanted_is_not_waited_for(self) -> None:
        """
        It may be what never gets ready.
        """
        self.ready(0)
        self.pool.scale_down(2)
        assert 0 == self.served
        self.ready(1)
        assert 1 == self.served

    def test_serving_begins_when_the_last_that_is_missing_is_not_wanted(self) -> None:
        """
        Nothing else would show it.
        """
        self.ready(0, 1)
        self.pool.scale_down(2)
        assert 1 == self.served

    def test_a_worker_that_is_not_ready_in_time_is_replaced(self) -> None:
        """
        The operator reads it in the log.
        """
        with capturedLogs() as events:
            self.reactor.advance(START_SECONDS)

        assert 6 == len(self.forks.made)
        assert any("not ready" in event["log_format"] for event in events)

    def test_a_worker_has_its_time_once_the_fork_server_has_started(self) -> None:
        """
        On a machine that is very busy, that may take longer.
        """
        self.forks.is_starting = True
        self.reactor.advance(10 * START_SECONDS)
        assert 3 == len(self.forks.made)

        self.forks.is_starting = False
        self.reactor.advance(START_SECONDS)
        assert 6 == len(self.forks.made)

    def test_a_late_answer_is_none_for_the_next_attempt(self) -> None:
        """
        Else a process that is about to end would be shown, and could be killed in place
        of the one that serves. It is ended, also if it does not end by itself.
        """
        self.reactor.advance(START_SECONDS)
        slow, prompt = (made for made in self.forks.made if made.number == 0)
        with (
            subprocess.Popen(["sleep", "60"]) as late,
            subprocess.Popen(["sleep", "60"]) as serving,
        ):
            self.addCleanup(serving.kill)
            self.pool.forked(0, late.pid, os.pidfd_open(late.pid), slow.request)
            assert 0 == self.pool.workers[0].pid

            pidfd = os.pidfd_open(serving.pid)
            self.pool.forked(0, serving.pid, pidfd, prompt.request)
            self.pool.exited(0, late.pid, "exited with status 0")
            self.ready(0)
            self.reactor.advance(END_SECONDS)
            assert -signal.SIGKILL == late.wait(PATIENCE_SECONDS)
            assert (serving.pid, "") == (
                self.pool.workers[0].pid,
                self.pool.workers[0].reason,
            )
            assert serving.poll() is None
            serving.kill()

    def test_a_worker_is_known_though_there_was_no_room_for_its_pidfd(self) -> None:
        """
        What it says of itself gets another, so that it can be killed.
        """
        with subprocess.Popen(["sleep", "60"]) as process:
            self.forked(0, process.pid, -1)
            self.last(0).say(Ready(process.pid))
            self.reactor.settle()
            self.last(0).end()
            self.reactor.settle()
            self.reactor.advance(END_SECONDS)
            assert -signal.SIGKILL == process.wait(PATIENCE_SECONDS)


class EndTests(PoolCase):
    """
    Workers end, and are replaced.
    """

    def setUp(self) -> None:
        super().setUp()
        self.ready(0, 1, 2)
        for number in range(3):
            self.received(number)
        self.reactor.advance(FIRST_SECONDS)

    def test_a_dead_worker_is_replaced_at_once(self) -> None:
        """
        And its socket is member by another meanwhile.
        """
        self.last(1).end()
        self.reactor.settle()

        assert 4 == len(self.forks.made)
        assert State.STARTING is self.state(1)
        messages = self.received(0) + self.received(2)
        assert [Listen("0/1")] == messages

    def test_the_replacement_gets_the_socket_back(self) -> None:
        """
        Nobody else polls it then.
        """
        self.last(1).end()
        self.reactor.settle()
        self.received(0), self.received(2)
        self.ready(1)

        assert [Unlisten("0/1")] == self.received(0) + self.received(2)
        assert [Listen("0/1")] == self.received(1)

    def test_the_end_of_each_process_is_reported(self) -> None:
        """
        Also of one that is replaced, and of one that is killed while it drains and has
        no successor.
        """
        self.ready(0, 1, 2)
        self.last(1).end()
        self.reactor.settle()
        assert [1] == self.ended

        self.pool.scale_down(2)
        self.last(2).end()
        self.reactor.settle()
        assert [1, 2] == self.ended
        assert State.ENDED is self.state(2)

    def test_pauses_grow_while_it_dies_of_its_start(self) -> None:
        """
        Nothing spins.
        """
        for _ in range(3):
            self.last(1).end()
            self.reactor.settle()
        made = len(self.forks.made)
        assert State.WAITING is self.state(1)

        self.reactor.advance(0.1)
        assert made + 1 == len(self.forks.made)

    def test_the_reason_is_reported_once_whichever_comes_first(self) -> None:
        """
        The closed socket, or the fork server's word.
        """
        for number, word_first in ((0, True), (1, False)):
            self.forked(number, 100 + number, self.pidfd_of_nobody())
            with capturedLogs() as events:
                if word_first:
                    self.pool.exited(number, 100 + number, "was killed")
                self.last(number).end()
                self.reactor.settle()
                if not word_first:
                    self.pool.exited(number, 100 + number, "was killed")
                self.reactor.advance(EXPLAIN_SECONDS)
            reasons = [event["reason"] for event in events if "reason" in event]
            assert ["was killed"] == reasons

    def test_a_reason_is_of_one_process(self) -> None:
        """
        Not of the next in its place, be it reported twice or late.
        """
        self.forked(0, 100, -1)
        with capturedLogs() as events:
            self.pool.exited(0, 100, "was killed")
            for pid in (101, 102):
                self.last(0).end()
                self.reactor.settle()
                self.reactor.advance(FIRST_SECONDS)
                self.forked(0, pid, -1)
                self.ready(0)
                self.pool.exited(0, 100, "was killed")
            self.reactor.advance(EXPLAIN_SECONDS)

        logged = [(e["pid"], e.get("reason")) for e in events if "pid" in e]
        assert [(100, "was killed"), (101, None)] == logged

    def test_a_reason_that_nobody_saw_is_reported_as_unknown(self) -> None:
        """
        When the fork server is gone too.
        """
        self.forked(0, 100, self.pidfd_of_nobody())
        with capturedLogs() as events:
            self.last(0).end()
            self.reactor.settle()
            self.reactor.advance(EXPLAIN_SECONDS)

        assert any("unknown reason" in event["log_format"] for event in events)

    def test_one_that_hangs_is_killed_and_replaced_at_once(self) -> None:
        """
        Also if it is stopped. The log says it once, and who does not serve is left to
        its own deadline.
        """
        self.pool.scale_down(2)
        with subprocess.Popen([sys.executable, "-c", "input()"]) as process:
            os.kill(process.pid, signal.SIGSTOP)
            self.forked(1, process.pid, os.pidfd_open(process.pid))
            self.reactor.advance(FIRST_SECONDS)
            with capturedLogs() as events:
                for number in (1, 2):
                    self.pool.replace_hung(number, 30.25)
                assert -signal.SIGKILL == process.wait(PATIENCE_SECONDS)
                self.pool.exited(1, process.pid, "was killed")
                self.reactor.advance(EXPLAIN_SECONDS)
        assert [(1, process.pid, 30.25)] == [
            (event["worker"], event["pid"], event["seconds"]) for event in events
        ]
        assert [State.READY, State.STARTING, State.DRAINING] == [
            self.state(number) for number in range(3)
        ]
        assert 4 == len(self.forks.made)
        assert [1] == self.ended
        assert 1 == self.pool.hangs
        self.ready(1)
        assert State.READY is self.state(1)

    def test_a_process_that_outlives_its_control_socket_is_killed(self) -> None:
        """
        After a while in which it could have ended by itself.
        """
        process = self.process_that_stays()
        self.forked(0, process.pid, os.pidfd_open(process.pid))
        self.last(0).end()
        self.reactor.settle()
        assert process.poll() is None

        pidfds = Descriptors("anon_inode:[pidfd]")
        self.reactor.advance(END_SECONDS)
        assert -signal.SIGKILL == process.wait(PATIENCE_SECONDS)
        assert -1 == pidfds.more

    def test_a_supervisor_out_of_descriptors_tries_again(self) -> None:
        """
        It says so, and goes on. So does one for whom the kernel watches no more.
        """
        for number, where in enumerate(
            [
                mock.patch("socket.socketpair", side_effect=_error(errno.EMFILE)),
                mock.patch.object(
                    self.reactor, "addReader", side_effect=_error(errno.ENOSPC)
                ),
            ]
        ):
            with where, capturedLogs() as events:
                self.last(number).end()
                self.reactor.settle()
            assert State.WAITING is self.state(number)
            assert any("cannot be started" in event["log_format"] for event in events)

            made = len(self.forks.made)
            self.reactor.advance(RETRY_SECONDS)
            assert made + 1 == len(self.forks.made)

    def test_a_worker_that_leaves_is_no_longer_given_anything(self) -> None:
        """
        Others take its socket at once; when it has ended, it is replaced and
        nothing is complained of.
        """
        self.forked(1, 100, self.pidfd_of_nobody())
        with capturedLogs() as events:
            self.last(1).say(Leaving())
            self.reactor.settle()
            self.reactor.advance(LEAVE_SECONDS)
            assert State.DRAINING is self.state(1)
            assert [Drain(5.0, others_serve=True)] == self.received(1)
            assert [Listen("0/1")] == self.received(0) + self.received(2)

            self.last(1).end()
            self.reactor.advance(EXPLAIN_SECONDS)
        assert [] == events
        assert State.STARTING is self.state(1)

    def test_a_worker_that_never_ends_is_killed(self) -> None:
        """
        A stopped process hears no word, and its place is wanted.
        """
        process = self.process_that_stays()
        self.forked(1, process.pid, os.pidfd_open(process.pid))
        self.pool.scale_down(1)
        with capturedLogs() as events:
            self.reactor.advance(5 + END_SECONDS)
        assert State.ENDED is self.state(1)
        assert any("did not end" in event["log_format"] for event in events)

        self.reactor.advance(END_SECONDS)
        assert -signal.SIGKILL == process.wait(PATIENCE_SECONDS)

    def test_what_cannot_serve_is_reported_once(self) -> None:
        """
        However often it is tried.
        """
        with capturedLogs() as events:
            for _ in range(4):
                self.last(0).end()
                self.reactor.settle()
                self.reactor.advance(60)
                self.last(0).say(Failed("the store is gone"))
                self.reactor.settle()

        assert 1 == sum("cannot serve" in event["log_format"] for event in events)

    def test_a_fork_that_fails_is_reported(self) -> None:
        """
        No process, no pidfd: its control socket closes all the same.
        """
        with capturedLogs() as events:
            self.pool.exited(0, 0, "could not be forked: no memory")

        assert ["could not be forked: no memory"] == [e["reason"] for e in events]

    def test_a_socket_that_a_worker_has_no_room_for_goes_to_another(self) -> None:
        """
        That one goes on with what it has.
        """
        self.last(2).end()
        self.reactor.settle()
        (stand_in, other) = (0, 1) if Listen("0/2") in self.received(0) else (1, 0)
        self.received(other)
        self.last(stand_in).say(Unplaced("0/2"))
        self.reactor.settle()

        assert [Unlisten("0/2")] == self.received(stand_in)
        assert [Listen("0/2")] == self.received(other)
        assert State.READY is self.state(stand_in)

    def test_a_socket_that_nobody_has_room_for_is_tried_again(self) -> None:
        """
        After a while; meanwhile connections wait in its queue.
        """
        self.last(2).end()
        self.reactor.settle()
        for number in (0, 1):
            self.last(number).say(Unplaced("0/2"))
        self.reactor.settle()
        self.received(0), self.received(1)

        self.reactor.advance(ROOM_SECONDS)
        assert [Listen("0/2")] == self.received(0) + self.received(1)

    def test_a_worker_that_cannot_serve_although_it_was_ready_is_replaced_later(
        self,
    ) -> None:
        """
        In growing pauses, as after a start that failed.
        """
        for _ in range(2):
            self.ready(0)
            self.reactor.advance(FIRST_SECONDS)
            self.last(0).say(Failed("no room"))
            self.reactor.settle()
            self.last(0).end()
            self.reactor.settle()

        assert State.WAITING is self.state(0)

    def test_what_it_could_not_do_is_forgotten_when_it_can(self) -> None:
        """
        It is replaced at once when it dies of something else.
        """
        self.last(0).say(Failed("no room"))
        self.last(0).end()
        self.reactor.settle()
        self.reactor.advance(FIRST_SECONDS)
        self.ready(0)
        self.forked(0, 100, -1)
        self.reactor.advance(FIRST_SECONDS)
        with capturedLogs() as events:
            self.last(0).end()
            self.reactor.settle()
            assert State.STARTING is self.state(0)
            self.pool.exited(0, 100, "was killed")

        assert ["was killed"] == [e["reason"] for e in events if "reason" in e]

    def test_a_worker_that_could_not_serve_needs_no_other_reason(self) -> None:
        """
        It has said why it ended.
        """
        self.last(0).end()
        self.reactor.settle()
        self.forked(0, 100, -1)
        with capturedLogs() as events:
            self.last(0).say(Failed("no room"))
            self.last(0).end()
            self.reactor.settle()
            self.reactor.advance(EXPLAIN_SECONDS)

        assert ["no room"] == [event.get("reason") for event in events]

    def test_a_worker_that_says_twice_that_it_leaves_leaves_once(self) -> None:
        """
        Also if it is not wanted any more meanwhile.
        """
        for _ in range(2):
            self.last(0).say(Leaving())
            self.last(1).say(Leaving())
        self.reactor.settle()
        self.pool.scale_down(1)
        self.reactor.advance(LEAVE_SECONDS)

        leave = [Drain(5.0, others_serve=True)]
        assert leave == [
            message for message in self.received(0) if isinstance(message, Drain)
        ]
        assert leave == [
            message for message in self.received(1) if isinstance(message, Drain)
        ]

    def test_what_a_worker_reports_is_logged(self) -> None:
        """
        With its number and its level.
        """
        with capturedLogs() as events:
            self.last(2).say(LogLine("warn", "something"))
            self.reactor.settle()

        (event,) = events
        assert ("warn", 2, "something") == (
            event["log_level"].name,
            event["worker"],
            event["text"],
        )

    def test_a_worker_that_reported_its_end_is_not_reported_again(self) -> None:
        """
        The second pidfd is closed.
        """
        self.forked(0, 100, self.pidfd_of_nobody())
        late = self.pidfd_of_nobody()
        self.forked(0, 100, late)

        assert not os.path.exists(f"/proc/self/fd/{late}")

    def test_the_end_of_a_worker_without_a_report_is_reported(self) -> None:
        """
        Its fork server was killed in between. What it says counts only then.
        """
        for number in range(3):
            self.last(number).end()
        self.reactor.settle()
        process = self.process_that_stays()
        self.last(0).say(Ready(process.pid))
        self.forked(1, 100, -1)
        self.last(1).say(Ready(process.pid))
        self.last(2).say(Ready(_pid_of_nobody()))
        self.reactor.settle()
        assert [process.pid, 100] == [record.pid for record in self.pool.workers[:2]]
        assert [State.READY] * 3 == [record.state for record in self.pool.workers]

        self.last(0).end()
        self.reactor.settle()
        self.reactor.advance(END_SECONDS)
        assert -signal.SIGKILL == process.wait(PATIENCE_SECONDS)

    def test_a_worker_without_a_pidfd_is_a_worker(self) -> None:
        """
        There was no room for it; the close of its control socket ends it.
        """
        self.forked(0, 100, -1)
        self.forked(0, 101, -1)
        assert 100 == self.pool.workers[0].pid

        with capturedLogs() as events:
            self.pool.exited(0, 100, "was killed")
            self.last(0).end()
            self.reactor.advance(END_SECONDS)
        assert ["was killed"] == [e["reason"] for e in events if "reason" in e]

    def pidfd_of_nobody(self) -> int:
        """
        Of a process that has ended.
        """
        process = subprocess.Popen([sys.executable, "-c", ""])
        pidfd = os.pidfd_open(process.pid)
        process.wait()
        return pidfd

    def process_that_stays(self) -> subprocess.Popen[bytes]:
        """
        Until it is killed.
        """
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process


class WantedTests(PoolCase):
    """
    More or fewer workers are wanted.
    """

    def test_one_more_starts_and_one_less_leaves(self) -> None:
        """
        And has no process afterwards.
        """
        self.ready(0, 1, 2)
        self.pool.scale_up(3)
        self.ready(3)
        assert State.READY is self.state(3)

        self.forked(3, 100, -1)
        self.pool.scale_down(3)
        assert Drain(5.0, others_serve=True) == self.received(3)[-1]
        with capturedLogs() as events:
            self.last(3).end()
            self.reactor.settle()
            self.reactor.advance(60)
        assert [] == events
        assert State.ENDED is self.state(3)
        assert 4 == len(self.forks.made)

    def test_a_worker_that_is_wanted_again_while_it_leaves_is_replaced(self) -> None:
        """
        The new one starts when the old one has ended.
        """
        self.ready(0, 1, 2)
        self.pool.scale_down(1)
        self.pool.scale_up(1)
        assert 3 == len(self.forks.made)

        self.last(1).end()
        self.reactor.settle()
        self.reactor.advance(FIRST_SECONDS)
        assert 4 == len(self.forks.made)

    def test_a_worker_that_is_not_wanted_any_more_leaves_when_it_is_ready(self) -> None:
        """
        It gets no socket.
        """
        self.pool.scale_down(1)
        self.ready(1)
        assert [Drain(5.0, others_serve=True)] == self.received(1)

        self.last(1).end()
        self.reactor.settle()
        assert State.ENDED is self.state(1)

    def test_a_worker_that_waits_for_another_try_is_given_up(self) -> None:
        """
        At once: there is no process.
        """
        self.ready(0, 2)
        for _ in range(3):
            self.last(1).end()
            self.reactor.settle()
        self.pool.scale_down(1)
        assert State.ENDED is self.state(1)

        made = len(self.forks.made)
        self.reactor.advance(60)
        assert made == len(self.forks.made)

    def test_a_new_process_has_no_old_failure(self) -> None:
        """
        What the one before could not do, it may.
        """
        self.last(1).say(Failed("the store is gone"))
        self.reactor.settle()
        self.pool.scale_down(1)
        self.last(1).end()
        self.reactor.settle()
        self.pool.scale_up(1)

        assert "" == self.pool.workers[1].failure
        assert State.STARTING is self.state(1)


class StopTests(PoolCase):
    """
    The pool stops.
    """

    def stop(self) -> list[None]:
        """
        Begin to; the list gets an entry when it has ended.
        """
        ended: list[None] = []
        stopped: Deferred[None] = self.pool.stop()
        stopped.addCallback(ended.append)
        self.reactor.settle()
        return ended

    def test_workers_are_drained_and_awaited(self) -> None:
        """
        They hold the only copies of the sockets then.
        """
        self.ready(0, 1, 2)
        ended = self.stop()
        for number in range(3):
            assert Drain(5.0) == self.received(number)[-1]
        assert -1 == self.groups[0].members[0].fileno()
        assert [] == ended

        for number in range(3):
            self.last(number).end()
        assert State.DRAINING is self.state(0)
        self.reactor.settle()
        assert [None] == ended
        assert 3 == len(self.forks.made)

    def test_nothing_is_left_to_be_called_or_made(self) -> None:
        """
        Nor to be explained.
        """
        self.ready(0, 1, 2)
        self.reactor.advance(FIRST_SECONDS)
        self.forked(0, 100, -1)
        self.last(0).end()
        self.reactor.settle()
        closed: list[None] = []
        self.patch(self.pool._distribution, "close", lambda: closed.append(None))
        ended = self.stop()
        for number in (1, 2):
            self.last(number).end()
        self.reactor.settle()
        assert [None] == ended == closed
        assert [] == self.reactor.getDelayedCalls()

        self.pool.scale_up(0)
        assert 4 == len(self.forks.made)

    def test_without_any_that_is_ready_it_ends_at_once(self) -> None:
        """
        There is nothing to wait for, neither where a pause had begun.
        """
        for _ in range(3):
            self.last(1).end()
            self.reactor.settle()
        assert State.WAITING is self.state(1)

        assert [None] == self.stop()

    def test_workers_that_end_together_serve_until_all_do(self) -> None:
        """
        A service manager signals every process. If workers left by themselves,
        nobody would take what comes before the supervisor closes its sockets.
        """
        self.ready(0, 1, 2)
        for number in range(3):
            self.last(number).say(Leaving())
        self.reactor.settle()
        for number in range(3):
            assert Drain(5.0) not in self.received(number)
        self.stop()
        for number in range(3):
            self.last(number).say(Leaving())
        self.reactor.advance(LEAVE_SECONDS)

        for number in range(3):
            assert [Drain(5.0)] == self.received(number)

    def test_workers_are_drained_when_they_have_all_that_waited(self) -> None:
        """
        In what is left of the time.
        """
        self.ready(0, 1, 2)
        self.received(0)
        delivered: Deferred[None] = Deferred()
        self.patch(self.pool._distribution, "finish", lambda: delivered)
        self.stop()
        self.reactor.advance(1)
        assert [] == self.received(0)

        # A worker that gets the signal too knows nothing better.
        self.last(0).say(Leaving())
        self.reactor.settle()
        self.reactor.advance(LEAVE_SECONDS)
        delivered.callback(None)
        assert [Drain(4.0 - LEAVE_SECONDS)] == self.received(0)

    def test_workers_are_drained_at_once_if_no_time_is_left(self) -> None:
        """
        Since what waited took longer.
        """
        self.pool.drain_seconds = 0.5
        self.ready(0, 1, 2)
        self.received(0)
        delivered: Deferred[None] = Deferred()
        self.patch(self.pool._distribution, "finish", lambda: delivered)
        self.stop()
        self.reactor.advance(1)
        delivered.callback(None)

        assert [Drain(0.0)] == self.received(0)

    def test_a_worker_that_dies_while_the_daemon_ends_is_not_replaced(self) -> None:
        """
        Nor sent `Drain`.
        """
        self.ready(0, 1, 2)
        delivered: Deferred[None] = Deferred()
        self.patch(self.pool._distribution, "finish", lambda: delivered)
        ended = self.stop()
        self.last(0).end()
        self.reactor.settle()
        delivered.callback(None)
        for number in (1, 2):
            assert Drain(5.0) in self.received(number)
            self.last(number).end()
        self.reactor.settle()

        assert [None] == ended
        assert 3 == len(self.forks.made)

    def test_a_worker_that_has_not_begun_is_left(self) -> None:
        """
        Its control socket closes, and what is heard of it later is let go of.
        """
        self.ready(0)
        ended = self.stop()
        with subprocess.Popen(["sleep", "60"]) as process:
            late = os.pidfd_open(process.pid)
            self.forked(1, process.pid, late)
            self.last(0).end()
            self.reactor.settle()
            assert [None] == ended

            self.reactor.advance(END_SECONDS)
            assert -signal.SIGKILL == process.wait(PATIENCE_SECONDS)
        assert not os.path.exists(f"/proc/self/fd/{late}")
        assert receive(self.last(1).control) is None

    def test_no_replacement_is_started(self) -> None:
        """
        Not even one whose pause had begun.
        """
        self.ready(0, 1, 2)
        for _ in range(2):
            self.last(1).end()
            self.reactor.settle()
        made = len(self.forks.made)
        self.stop()
        self.reactor.advance(1)

        assert made == len(self.forks.made)

    def test_a_worker_that_does_not_end_in_time_is_killed(self) -> None:
        """
        The bound is the time for draining and a little more.
        """
        self.ready(0, 1, 2)
        process = subprocess.Popen(["sleep", "60"])
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.forked(1, process.pid, os.pidfd_open(process.pid))
        ended = self.stop()
        for number in (0, 2):
            self.last(number).end()
        self.reactor.advance(5 + END_SECONDS)
        assert -signal.SIGKILL == process.wait(PATIENCE_SECONDS)

        self.last(1).end()
        self.reactor.settle()
        assert [None] == ended


class SharedTests(PoolCase):
    """
    One socket for all.
    """

    policy = Shared()

    def test_everybody_polls_the_same_socket(self) -> None:
        """
        A death changes nothing for the others.
        """
        self.ready(0, 1, 2)
        for number in range(3):
            assert [Listen("0/0", exclusive=False)] == self.received(number)
        self.last(0).end()
        self.reactor.settle()

        assert [] == self.received(1) + self.received(2)


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _pid_of_nobody() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
