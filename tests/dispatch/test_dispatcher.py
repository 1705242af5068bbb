"""
Tests for `kvd.dispatch.dispatcher` with `kvd.dispatch.handover`, and for their other
end, `kvd.dispatch.adopting`: true sockets, and both ends in one stepped reactor.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch import dispatcher as dispatching
from kvd.dispatch.adopting import Adopting
from kvd.dispatch.deciding import Decider
from kvd.dispatch.dispatcher import (
    CREDIT_SECONDS,
    DELIVER_SECONDS,
    JOIN_SECONDS,
    LOOK_SECONDS,
    Dispatcher,
)
from kvd.dispatch.handover import ASK_WAITING, BLOCKED_SECONDS, MAX_WAITING
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.primitives import make_view
from kvd.dispatch.shadow import Shadow
from kvd.ipc.channel import Channel
from kvd.ipc.messages import (
    MAX_DESCRIPTORS,
    Acknowledged,
    Alive,
    Batch,
    Credits,
    Message,
    Refused,
)
from kvd.ipc.row import lone_row
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from kvd.model.view import View
from kvd.net.factory import ServerFactory
from kvd.net.listening import open_group
from kvd.settings import TCPAddress
from tests.dispatch.test_deciding import Odd, catch, fail, never
from tests.patience import PATIENCE_SECONDS
from tests.stepped import SteppedReactor

WORKERS = 3


@contextmanager
def room_for_descriptors(count: int) -> Iterator[None]:
    """
    This process gets so many and no more meanwhile.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 2 + count, hard))
    fillers = []
    try:
        try:
            while True:
                fillers.append(os.dup(0))
        except OSError:
            pass
        for _ in range(count):
            os.close(fillers.pop())
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Worker(ServerFactory):
    """
    Both ends of a control socket, with what the pool and a worker do there; and the
    factory of the worker's connections.
    """

    def __init__(
        self,
        number: int,
        dispatcher: Dispatcher,
        reactor: SteppedReactor,
        board: Scoreboard,
    ) -> None:
        self.number = number
        self.served: list[socket.socket] = []
        self.dispatched: list[Batch] = []
        """The batches that came."""
        self.serves: Callable[[], None] = lambda: None
        """Called when it begins to serve a connection."""
        self.messages: list[Message] = []
        self.sign = reactor.seconds()
        """When it gave the last sign of life."""
        self.asked = 0
        """How often it was asked for one."""
        self._reactor = reactor
        self._dispatcher = dispatcher
        self._row = board.own_row(number)
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.near = Channel(near, self._answered, self._lost, reactor)
        self.far = Channel(far, self._received, lambda: None, reactor)
        self.adopting = Adopting(self.far, self._source, reactor, self._row)
        dispatcher.joined(number, self.near)

    def _source(self, group: int) -> tuple[int, ServerFactory]:
        return self._dispatcher._ports.groups[group].members[0].family, self

    def _answered(self, message: Message, descriptors: list[int]) -> None:
        assert isinstance(message, Acknowledged | Refused)
        self.messages.append(message)
        self._dispatcher.received(self.number, message)

    def _lost(self) -> None:
        self._dispatcher.left(self.number)

    def _received(self, message: Message, descriptors: list[int]) -> None:
        self.sign = self._reactor.seconds()
        if isinstance(message, Alive):
            self.asked += 1
            return
        if isinstance(message, Credits):
            self.adopting.credits_came(descriptors[0])
            return
        assert isinstance(message, Batch)
        self.dispatched.append(message)
        self.adopting.batch_came(message, descriptors)

    def take(self, connection: socket.socket, peer: Any) -> bool:
        """
        See `ServerFactory.take`.
        """
        self._row.opened()
        self.served.append(connection)
        self.serves()
        return True

    def stall(self) -> None:
        """
        Hear nothing, as a process that is stopped.
        """
        self.far.stopReading()

    def go_on(self) -> None:
        """
        Hear again.
        """
        self.far.startReading()

    def acknowledge_nothing(self) -> None:
        """
        As if it stopped whenever it has served a batch.
        """
        self.adopting._row = lone_row()

    def end(self) -> None:
        """
        As a kill does.
        """
        self.far.close()
        for connection in self.served:
            connection.close()


class DispatcherCase(SynchronousTestCase):
    """
    A supervisor and the workers that a test lets join.
    """

    limit = 1000
    members = 1

    def setUp(self) -> None:
        self.policy = RoundRobin()
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        memory = create_scoreboard(WORKERS)
        self.addCleanup(os.close, memory)
        self.board = Scoreboard(memory)
        self.group = open_group(TCPAddress("127.0.0.1", 0), self.members)
        self.addCleanup(self.group.close)
        assert isinstance(self.group.address, TCPAddress)
        self.port = self.group.address.port
        self.dispatcher = Dispatcher(
            Decider("roundrobin", self.policy),
            [self.group],
            self.board,
            self.limit,
            self.reactor,
        )
        self.workers: list[Worker] = []
        self.patch(Scoreboard, "silent_seconds", lambda board: self.silent_seconds())
        self.clients: list[socket.socket] = []
        self.addCleanup(self.end_all)

    def silent_seconds(self) -> list[float]:
        """
        By the clock of the reactor.
        """
        silent = [0.0] * WORKERS
        for worker in self.workers:
            silent[worker.number] = self.reactor.seconds() - worker.sign
        return silent

    def be_late(self) -> None:
        """
        Let so much time pass that others get what a worker has not taken; first they
        are asked whether they live.
        """
        self.reactor.advance(CREDIT_SECONDS + LOOK_SECONDS)
        self.reactor.advance(LOOK_SECONDS)

    def end_all(self) -> None:
        """
        No descriptor is left to the garbage collector.
        """
        for worker in self.workers:
            worker.near.close()
            worker.end()
            if worker.adopting._credits != -1:
                os.close(worker.adopting._credits)
        for client in self.clients:
            client.close()
        if self.group.members[0].fileno() != -1:
            self.dispatcher.finish()
        self.dispatcher.close()

    def join(self, count: int = 1) -> None:
        """
        Some more workers are ready.
        """
        for _ in range(count):
            number = len(self.workers)
            self.workers.append(
                Worker(number, self.dispatcher, self.reactor, self.board)
            )
        self.reactor.settle()

    def connect(self, count: int) -> None:
        """
        Some clients come, and each says who it is.
        """
        for _ in range(count):
            client = socket.create_connection(("127.0.0.1", self.port))
            client.sendall(b"%d" % len(self.clients))
            self.clients.append(client)
        self.reactor.settle()

    def sees_the_end(self, client: int) -> bool:
        """
        Whether the connection of a client is closed, by everybody.
        """
        self.clients[client].settimeout(PATIENCE_SECONDS)
        try:
            return not self.clients[client].recv(1)
        except ConnectionResetError:
            # What it said was not read.
            return True

    def served(self) -> list[int]:
        """
        How many connections each worker has.
        """
        return [len(worker.served) for worker in self.workers]

    def all_served(self) -> list[int]:
        """
        The clients that some worker has, in order; each of them once, if all is
        well, and with all that it said.
        """
        connections = [c for worker in self.workers for c in worker.served]
        return sorted(int(connection.recv(10)) for connection in connections)


class DispatcherTests(DispatcherCase):
    """
    `Dispatcher` brings each connection to exactly one worker.
    """

    def test_everybody_gets_the_same(self) -> None:
        """
        Whatever comes at once, and whatever comes alone.
        """
        self.join(3)
        self.connect(15)
        for _ in range(6):
            self.connect(1)

        assert [7, 7, 7] == self.served()
        assert list(range(21)) == self.all_served()

    def test_a_batch_is_one_message_per_worker(self) -> None:
        """
        Nine that wait become three messages of three.
        """
        self.connect(9)
        self.join(3)

        assert [[3], [3], [3]] == [
            [batch.connections for batch in worker.dispatched]
            for worker in self.workers
        ]

    def test_without_workers_connections_wait_in_the_kernels_queue(self) -> None:
        """
        The supervisor takes none, and does not look for them again and again.
        """
        self.connect(2)
        assert [] == self.reactor.getDelayedCalls()

        self.join()
        assert [2] == self.served()

    def test_what_is_adopted_is_let_go(self) -> None:
        """
        Soon: a worker that closes may leave nothing else by which the client hears it.
        """
        self.join()
        self.connect(1)
        self.workers[0].served[0].close()
        self.reactor.advance(CREDIT_SECONDS)

        assert self.sees_the_end(0)
        assert 0 == self.dispatcher.handing_over(0)

    def test_what_is_on_its_way_is_counted(self) -> None:
        """
        Until the worker has acknowledged it.
        """
        self.join()
        self.workers[0].stall()
        self.connect(3)
        assert 3 == self.dispatcher.handing_over(0)

        self.workers[0].go_on()
        self.reactor.settle()
        assert 0 == self.dispatcher.handing_over(0)

    def test_a_few_connections_bring_no_message_back(self) -> None:
        """
        It would wake the supervisor, which learns of them when it dispatches again, or
        looks.
        """
        self.join()
        (worker,) = self.workers
        self.connect(ASK_WAITING - 1)
        assert [] == worker.messages

        self.reactor.advance(CREDIT_SECONDS)
        assert [] == worker.messages
        worker.served[0].close()
        assert self.sees_the_end(0)
        assert [] == self.reactor.getDelayedCalls()

    def test_a_worker_with_many_is_waited_for(self) -> None:
        """
        It says when it is done with them, so that it soon gets more.
        """
        self.join()
        (worker,) = self.workers
        worker.stall()
        for _ in range(ASK_WAITING + 1):
            self.connect(1)
        worker.go_on()
        self.reactor.settle()

        numbers = [batch.number for batch in worker.dispatched]
        assert [Acknowledged(number) for number in numbers[-2:]] == worker.messages

    def test_what_is_served_is_on_its_way_no_more(self) -> None:
        """
        However long the next batch keeps the worker.
        """
        self.join()
        (worker,) = self.workers
        on_their_way: list[int] = []
        worker.serves = lambda: on_their_way.append(self.dispatcher.handing_over(0))
        worker.stall()
        for _ in range(3):
            self.connect(1)
        worker.go_on()
        self.reactor.settle()

        assert [3, 2, 1] == on_their_way
        assert 0 == self.dispatcher.handing_over(0)

    def test_a_connection_that_was_reset_on_its_way_is_served(self) -> None:
        """
        With what it had sent.
        """
        self.join()
        self.workers[0].stall()
        self.connect(1)
        linger = b"\1\0\0\0\0\0\0\0"
        self.clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.clients.pop().close()
        self.workers[0].go_on()
        self.reactor.settle()

        assert [0] == self.all_served()
        assert 0 == self.dispatcher.handing_over(0)


class MembersTests(DispatcherCase):
    """
    A policy may ask for several sockets, and dispatch what comes to any of them.
    """

    members = 3

    def test_connections_at_every_socket_are_dispatched(self) -> None:
        """
        The kernel spreads them; none waits in vain.
        """
        self.join(2)
        self.connect(40)

        assert [20, 20] == self.served()
        assert list(range(40)) == self.all_served()


class MistakeTests(DispatcherCase):
    """
    Whatever goes wrong while connections are dispatched, accepting goes on.
    """

    def test_a_policy_cannot_change_what_it_is_shown(self) -> None:
        """
        Nor thereby what the next decision sees.
        """

        def spoil(view: View) -> int:
            for shown in (view.connections, view.requests, view.handing_over):
                shown.clear()  # type: ignore[attr-defined]  # what a mistake does
            return 0

        self.join(2)
        self.patch(self.policy, "choose", spoil)
        with capturedLogs() as events:
            self.connect(4)

        assert [2, 2] == self.served()
        (event,) = events
        assert "has no attribute 'clear'" in event["what"]

    def test_each_lack_of_descriptors_is_logged(self) -> None:
        """
        Once, and again after connections could be accepted meanwhile, alone or several.
        """
        self.join()
        served = self.workers[0].served
        with capturedLogs() as events:
            for meanwhile in (1, 2, 1):
                waiting = socket.create_connection(("127.0.0.1", self.port))
                with waiting, room_for_descriptors(0):
                    before = len(served)
                    for _ in range(3):
                        self.reactor.advance(1)
                    assert before == len(served)
                self.reactor.advance(1)
                self.connect(meanwhile)
                assert before + 1 + meanwhile == len(served)
                # What it has handed over is closed here.
                self.reactor.advance(1)

        assert 3 * ["Too many open files"] == [event["error"] for event in events]

    def test_what_cannot_be_dealt_is_tried_again(self) -> None:
        """
        A mistake of ours costs no connection, and no acceptor.
        """
        self.join(2)
        self.patch(dispatching, "make_view", lambda fields: 1 // 0)
        self.connect(2)
        assert [0, 0] == self.served()
        assert self.flushLoggedErrors(ZeroDivisionError)

        self.patch(dispatching, "make_view", make_view)
        self.reactor.advance(LOOK_SECONDS)
        self.connect(2)
        assert [2, 2] == self.served()

    def test_a_failure_leaves_the_rest_in_the_kernels_queue(self) -> None:
        """
        Else all that comes would be taken, and wait here.
        """
        self.join()
        self.patch(dispatching, "make_view", lambda fields: 1 // 0)
        for _ in range(3):
            self.connect(2)

        assert 1 == len(self.flushLoggedErrors(ZeroDivisionError))

    def test_a_policy_is_shown_what_is_on_its_way(self) -> None:
        """
        From earlier batches and from this one, and a turn that is somebody's.
        """
        seen: list[View] = []

        def choose(view: View) -> int:
            seen.append(view)
            return view.ready[-1]

        self.dispatcher.dispatch_by(Decider("odd", Odd(choose)))
        self.join(3)
        self.workers[2].stall()
        self.connect(1)
        self.connect(1)
        self.dispatcher.left(0)
        self.dispatcher.left(1)
        self.dispatcher.left(2)

        assert [(0, 0, 0), (0, 0, 1)] == [view.handing_over for view in seen]
        assert [0, 0] == [view.turn for view in seen]


class ShadowTests(DispatcherCase):
    """
    A second policy looks on.
    """

    def look_on(self, choose: Callable[[View], int]) -> Shadow:
        """
        From now on.
        """
        shadow = self.dispatcher.shadow = Shadow("odd", Odd(choose))
        return shadow

    def test_it_sees_what_is_dealt_and_changes_nothing(self) -> None:
        """
        One at a time, and many at once.
        """
        shadow = self.look_on(lambda view: view.ready[0])
        self.connect(6)
        self.join(3)
        self.connect(1)
        self.connect(2)

        assert [3, 3, 3] == self.served()
        compared = shadow.counts(range(3))
        assert (9, 3) == (compared["connections"], compared["agreed"])
        assert [9, 0, 0] == [row["shadow"] for row in compared["workers"]]
        assert [3, 3, 3] == [row["dispatched"] for row in compared["workers"]]

    def test_it_is_asked_when_all_are_on_their_way(self) -> None:
        """
        So that nobody's connection waits for it.
        """
        on_their_way: list[int] = []

        def ask(view: View) -> int:
            on_their_way.append(sum(map(self.dispatcher.handing_over, view.ready)))
            return view.ready[0]

        self.look_on(ask)
        self.connect(6)
        self.join(2)

        assert [6] * 6 == on_their_way

    def test_one_that_fails_or_hangs_costs_no_connection(self) -> None:
        """
        Whatever it does.
        """
        self.join(3)
        for choose in (fail, never, catch):
            with capturedLogs() as events:
                self.look_on(choose)
                self.connect(3)
            assert 1 == len(list(events))

        assert [3, 3, 3] == self.served()
        assert list(range(9)) == self.all_served()


class LostWorkerTests(DispatcherCase):
    """
    A worker that dies, stops or falls behind costs no connection.
    """

    def test_what_a_dead_worker_had_not_claimed_goes_to_others(self) -> None:
        """
        At once.
        """
        self.join(2)
        self.workers[0].stall()
        self.connect(6)
        assert [0, 3] == self.served()

        self.workers[0].end()
        self.reactor.settle()
        assert [0, 6] == self.served()
        assert list(range(6)) == self.all_served()

    def test_what_a_dead_worker_had_claimed_ends_with_it(self) -> None:
        """
        It may have read from it.
        """
        self.join(2)
        # It dies between the claim and its word.
        self.workers[0].acknowledge_nothing()
        self.connect(2)
        assert [1, 1] == self.served()
        self.workers[0].end()
        self.reactor.settle()

        assert [1, 1] == self.served()
        assert self.sees_the_end(0)

    def test_the_last_worker_dies_and_the_next_gets_what_it_left(self) -> None:
        """
        Meanwhile the supervisor holds it.
        """
        self.join()
        self.workers[0].stall()
        self.connect(3)
        self.workers[0].end()
        self.reactor.settle()

        self.join()
        assert [0, 3] == self.served()
        assert list(range(3)) == self.all_served()

    def test_first_come_first_served(self) -> None:
        """
        What comes back is older than what has not been dispatched yet.
        """
        self.join()
        self.workers[0].stall()
        came = MAX_DESCRIPTORS + 10
        self.connect(came)
        self.workers[0].end()
        self.reactor.settle()
        self.connect(2)
        with mock.patch.object(Channel, "offer", return_value=False):
            self.join()
        for _ in range(3):
            self.reactor.advance(BLOCKED_SECONDS)

        served = self.workers[1].served
        assert list(range(came + 2)) == [int(one.recv(10)) for one in served]

    def test_however_many_come_back_they_are_dispatched(self) -> None:
        """
        A message takes only so many.
        """
        self.join(3)
        for worker in self.workers:
            worker.stall()
        self.connect(MAX_DESCRIPTORS + 10)
        for worker in self.workers:
            worker.end()
        self.reactor.settle()
        self.dispatcher.joined(0, self.channel())

        assert MAX_DESCRIPTORS + 10 == self.dispatcher.handing_over(0)

    def channel(self) -> Channel:
        """
        To a worker that only listens.
        """
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.addCleanup(far.close)
        channel = Channel(near, lambda m, d: None, lambda: None, self.reactor)
        self.addCleanup(channel.close)
        return channel

    def test_what_is_not_claimed_in_time_goes_to_others(self) -> None:
        """
        And nobody has it twice when the worker wakes.
        """
        self.join(2)
        self.workers[0].stall()
        self.connect(6)
        assert [0, 3] == self.served()

        self.be_late()
        assert [0, 6] == self.served()
        assert 0 == self.dispatcher.handing_over(0)

        self.workers[0].go_on()
        self.reactor.settle()
        assert [0, 6] == self.served()
        assert list(range(6)) == self.all_served()

    def test_nobody_gets_what_many_fell_behind_with(self) -> None:
        """
        Where all are kept, the first to be done takes over from one at a time.
        """
        self.join(3)
        for worker in self.workers:
            worker.stall()
        self.connect(9)
        self.reactor.advance(2 * CREDIT_SECONDS)
        assert [0, 0, 0] == self.served()

        self.workers[2].go_on()
        self.reactor.settle()
        assert [0, 0, 3] == self.served()
        self.workers[2].stall()
        self.reactor.advance(LOOK_SECONDS)
        self.reactor.advance(LOOK_SECONDS)
        assert [0, 3, 3] == [
            self.dispatcher.handing_over(worker) for worker in range(3)
        ]

        self.workers[2].go_on()
        self.reactor.settle()
        assert [0, 0, 6] == self.served()

    def test_a_worker_that_fell_behind_gets_nothing_until_it_has_caught_up(
        self,
    ) -> None:
        """
        Then its turn comes again.
        """
        self.join(2)
        self.workers[0].stall()
        self.connect(2)
        self.be_late()
        self.connect(4)
        assert [0, 6] == self.served()

        self.workers[0].go_on()
        self.reactor.settle()
        self.connect(4)
        assert [2, 8] == self.served()
        assert list(range(10)) == self.all_served()

    def test_a_batch_may_be_of_the_first_moment(self) -> None:
        """
        A clock that begins with 0 is as good as any other.
        """
        self.join(2)
        self.workers[0].stall()
        self.reactor.be_kept(-self.reactor.seconds())
        self.connect(2)
        self.be_late()

        assert [0, 2] == self.served()

    def test_a_slow_worker_keeps_what_nobody_else_could_take(self) -> None:
        """
        Alone, it gets everything in the end.
        """
        self.join()
        self.workers[0].stall()
        self.connect(3)
        self.reactor.advance(10)
        assert 3 == self.dispatcher.handing_over(0)

        self.workers[0].go_on()
        self.reactor.settle()
        assert [3] == self.served()

    def test_what_was_claimed_is_never_taken_back(self) -> None:
        """
        The worker claimed one batch and stalls before the next.
        """
        self.join(2)
        self.workers[0].acknowledge_nothing()
        self.connect(2)
        self.workers[0].stall()
        self.connect(2)
        assert [1, 2] == self.served()
        self.be_late()

        assert [1, 3] == self.served()
        assert list(range(4)) == self.all_served()

    def test_what_was_claimed_keeps_nothing_from_others(self) -> None:
        """
        A worker is stopped in the middle of its first batch, and another before it
        claimed one: the third takes what can be taken back.
        """
        self.join(3)
        self.workers[0].acknowledge_nothing()
        self.connect(1)
        self.workers[0].stall()
        self.workers[1].stall()
        self.connect(2)
        assert [1, 0, 1] == self.served()

        self.be_late()
        assert [1, 0, 2] == self.served()
        assert list(range(3)) == self.all_served()

    def test_what_is_late_goes_to_no_other_that_is_stopped(self) -> None:
        """
        However many of them have nothing on their way: each would keep it for as long.
        They are asked once, and one that lives gives a sign.
        """
        self.join(3)
        for worker in self.workers[:2]:
            worker.stall()
        self.reactor.advance(1)
        self.connect(1)
        assert 1 == self.dispatcher.handing_over(0)
        self.be_late()

        assert [0, 0, 1] == self.served()
        assert 1 == self.workers[2].asked
        assert [0] == self.all_served()
        for _ in range(20):
            self.reactor.advance(LOOK_SECONDS)
        self.workers[1].go_on()
        self.reactor.settle()
        assert 1 == self.workers[1].asked

    def test_what_is_late_waits_while_nobody_gives_a_sign(self) -> None:
        """
        It stays where it is, and the first that lives again takes it.
        """
        self.join(3)
        for worker in self.workers:
            worker.stall()
        self.reactor.advance(1)
        self.connect(1)
        for _ in range(20):
            self.reactor.advance(LOOK_SECONDS)
        assert [1, 0, 0] == [self.dispatcher.handing_over(each) for each in range(3)]
        self.workers[2].go_on()
        self.reactor.settle()
        self.reactor.advance(LOOK_SECONDS)

        assert [0, 0, 1] == self.served()


class FullWorkerTests(DispatcherCase):
    """
    A worker that can take no more loses its turn.
    """

    limit = 4

    def test_a_worker_that_has_its_limit_of_connections_gets_no_more(self) -> None:
        """
        The others do; when all have it, clients wait in the kernel's queue, and
        are taken when somebody has gone.
        """
        self.join(2)
        for _ in range(10):
            self.connect(1)
        self.reactor.advance(LOOK_SECONDS)
        assert [4, 4] == self.served()

        self.workers[1].served.pop().close()
        self.workers[1]._row.closed()
        self.reactor.advance(LOOK_SECONDS)
        assert [4, 4] == self.served()

    def test_short_connections_make_room_at_once(self) -> None:
        """
        A worker that has its limit on their way says when it has served them.
        """
        self.join()
        (worker,) = self.workers
        worker.serves = worker._row.closed
        self.connect(self.limit - 1)
        assert [] == worker.messages
        for _ in range(10):
            client = socket.create_connection(("127.0.0.1", self.port))
            self.clients.append(client)
        self.reactor.settle()

        assert [self.limit - 1 + 10] == self.served()

    def test_a_worker_that_had_its_limit_is_asked_again_while_others_are_not(
        self,
    ) -> None:
        """
        No message to the supervisor says that a connection has ended.
        """
        self.join(2)
        self.connect(7)
        for _ in range(2):
            self.workers[0].served.pop().close()
            self.workers[0]._row.closed()
        self.reactor.advance(LOOK_SECONDS)
        self.connect(3)

        assert [4, 4] == self.served()

    def test_a_worker_that_has_too_many_unclaimed_is_passed_over(self) -> None:
        """
        A few; nothing is lost.
        """
        self.dispatcher.max_connections = 10_000
        self.join()
        self.workers[0].stall()
        self.connect(MAX_WAITING + 40)
        waiting = self.dispatcher.handing_over(0)
        assert MAX_WAITING <= waiting < MAX_WAITING + 40

        self.workers[0].go_on()
        self.reactor.settle()
        assert [MAX_WAITING + 40] == self.served()

    def test_a_leaving_worker_gives_back_what_it_had_claimed(self) -> None:
        """
        It has not touched it.
        """
        self.join(2)
        self.workers[0].adopting.leaving = True
        self.connect(4)

        assert [0, 4] == self.served()
        assert list(range(4)) == self.all_served()

    def test_what_a_worker_refused_is_not_acknowledged_with_the_next(self) -> None:
        """
        The scoreboard is faster than the refusal.
        """
        self.join()
        (worker,) = self.workers
        worker.near.stopReading()
        worker.adopting.leaving = True
        self.connect(1)
        worker.adopting.leaving = False
        self.connect(1)
        assert [1] == self.served()
        assert 2 == self.dispatcher.handing_over(0)

        worker.near.startReading()
        self.reactor.settle()
        self.reactor.advance(BLOCKED_SECONDS + LOOK_SECONDS)
        assert [2] == self.served()
        assert [0, 1] == self.all_served()
        assert 0 == self.dispatcher.handing_over(0)

    def test_what_an_earlier_process_wrote_acknowledges_nothing(self) -> None:
        """
        Whatever it was done with, or had refused.
        """
        self.join()
        self.connect(1)
        (earlier,) = self.workers
        (batch,) = earlier.dispatched
        earlier.end()
        self.reactor.settle()
        self.join()
        board_row = self.board.own_row(0)
        later = Worker(0, self.dispatcher, self.reactor, self.board)
        later.stall()
        self.workers.append(later)
        board_row.batch_refused(batch.number)
        board_row.batch_done(batch.number)
        self.connect(2)

        assert 1 == self.dispatcher.handing_over(0)
        later.go_on()
        self.reactor.settle()
        assert 0 == self.dispatcher.handing_over(0)
        assert [1, 1, 1] == self.served()

    def test_a_leaving_worker_may_decline_after_its_word_to_leave(self) -> None:
        """
        The word is first on its way, and a claimed batch is still its own.
        """
        self.join(2)
        leaver = self.workers[0]
        leaver.adopting.leaving = True
        # Its answer to the batch comes only after the word to leave.
        leaver.near.stopReading()
        self.connect(2)
        assert [0, 1] == self.served()
        self.dispatcher.leaving(0)
        leaver.near.startReading()
        self.reactor.settle()

        assert [0, 2] == self.served()
        assert list(range(2)) == self.all_served()
        self.connect(2)
        assert [0, 4] == self.served()

    def test_a_leaving_worker_is_not_asked_again(self) -> None:
        """
        What it had not claimed goes to others at once.
        """
        self.join(2)
        self.workers[0].stall()
        self.connect(2)
        self.dispatcher.leaving(0)
        self.reactor.settle()

        assert [0, 2] == self.served()
        assert list(range(2)) == self.all_served()

    def test_a_leaving_worker_is_given_nothing_new(self) -> None:
        """
        Also if nothing was on its way.
        """
        self.join(2)
        self.dispatcher.leaving(0)
        self.connect(4)

        assert [0, 4] == self.served()

    def test_a_worker_out_of_descriptors_gives_the_batch_back(self) -> None:
        """
        The kernel dropped what had no room; the supervisor has it still.
        """
        self.join()
        self.workers[0].stall()
        self.connect(4)
        with room_for_descriptors(1):
            self.workers[0].go_on()
            self.reactor.settle()
        assert [0] == self.served()
        # It is not asked again and again.
        assert 1 == len(self.workers[0].messages)

        self.reactor.advance(BLOCKED_SECONDS + LOOK_SECONDS)
        assert [4] == self.served()
        assert list(range(4)) == self.all_served()

    def test_a_worker_at_its_limit_of_descriptors_loses_no_connection(self) -> None:
        """
        There is room for the batch, and for nothing beside it.
        """
        self.join()
        self.workers[0].stall()
        self.connect(4)
        with room_for_descriptors(4):
            self.workers[0].go_on()
            self.reactor.settle()

        assert [4] == self.served()
        assert list(range(4)) == self.all_served()

    def test_a_control_socket_that_takes_no_message_is_passed_over(self) -> None:
        """
        It is tried again after a while.
        """
        self.join()
        offer = self.workers[0].near.offer_packed
        self.workers[0].near.offer_packed = lambda *_: False  # type: ignore[method-assign]
        self.connect(2)
        assert [0] == self.served()
        assert 0 == self.dispatcher.handing_over(0)

        self.workers[0].near.offer_packed = offer  # type: ignore[method-assign]
        self.reactor.advance(BLOCKED_SECONDS + LOOK_SECONDS)
        assert [2] == self.served()

    def test_a_supervisor_out_of_descriptors_lets_a_worker_join_later(self) -> None:
        """
        The worker needs a counter; it lives on without.
        """
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with (
            mock.patch("os.eventfd", side_effect=short),
            capturedLogs() as events,
        ):
            self.join()
        self.connect(2)
        assert [0] == self.served()
        assert ["worker {worker} gets no connections for now: {error}"] == [
            event["log_format"] for event in events
        ]

        self.reactor.advance(JOIN_SECONDS)
        assert [2] == self.served()

    def test_a_worker_that_leaves_before_it_could_join_does_not_join(self) -> None:
        """
        Nor when the daemon has ended.
        """
        short = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        with mock.patch("os.eventfd", side_effect=short):
            self.join(2)
        self.workers[0].far.close()
        self.reactor.settle()
        assert 1 == len(self.reactor.getDelayedCalls())
        self.dispatcher.close()
        assert [] == self.reactor.getDelayedCalls()
        self.reactor.advance(JOIN_SECONDS)

        self.connect(1)
        assert [0, 0] == self.served()


class EndTests(DispatcherCase):
    """
    The daemon ends.
    """

    def test_what_waits_in_the_queue_is_dispatched(self) -> None:
        """
        Then nobody listens any more.
        """
        self.join(2)
        for _ in range(4):
            client = socket.create_connection(("127.0.0.1", self.port))
            client.sendall(b"%d" % len(self.clients))
            self.clients.append(client)
        self.dispatcher.finish()
        self.reactor.settle()

        assert [2, 2] == self.served()
        with socket.socket() as probe:
            assert 0 != probe.connect_ex(("127.0.0.1", self.port))

    def test_what_waits_in_anothers_socket_is_left_there(self) -> None:
        """
        Its next daemon serves it.
        """
        self.group.given = 1
        held = self.group.members[0].dup()
        self.addCleanup(held.close)
        self.connect(1)
        self.dispatcher.finish()

        held.accept()[0].close()

    def test_what_nobody_will_take_is_closed(self) -> None:
        """
        The last worker died while the daemon ended.
        """
        self.join()
        self.workers[0].stall()
        self.connect(1)
        self.dispatcher.finish()
        self.workers[0].end()
        self.reactor.settle()

        assert self.sees_the_end(0)

    def finish(self) -> list[None]:
        """
        Begin to; the list gets an entry when workers may drain.
        """
        delivered: list[None] = []
        self.dispatcher.finish().addCallback(delivered.append)
        self.reactor.settle()
        return delivered

    def test_nothing_is_left_to_be_called(self) -> None:
        """
        Whatever is on its way.
        """
        self.join()
        self.workers[0].stall()
        self.connect(1)
        assert [] != self.reactor.getDelayedCalls()
        self.dispatcher.finish()
        self.dispatcher.close()

        assert [] == self.reactor.getDelayedCalls()

    def test_workers_drain_when_they_have_what_waited(self) -> None:
        """
        Who has drained takes nothing more.
        """
        self.join()
        self.workers[0].stall()
        self.connect(MAX_WAITING + 40)
        delivered = self.finish()
        assert [] == delivered

        self.workers[0].go_on()
        self.reactor.settle()
        assert [None] == delivered
        assert [MAX_WAITING + 40] == self.served()

    def test_workers_drain_soon_whatever_one_of_them_does(self) -> None:
        """
        One is stopped with what it had claimed.
        """
        self.join(2)
        self.workers[0].acknowledge_nothing()
        self.connect(2)
        delivered = self.finish()
        assert [] == delivered

        self.reactor.advance(DELIVER_SECONDS)
        assert [None] == delivered

    def test_workers_drain_at_once_if_nothing_waits(self) -> None:
        """
        Nor if there are none.
        """
        assert [None] == self.finish()


class EndAtTheLimitTests(DispatcherCase):
    """
    The daemon ends while its workers have as many connections as they may.
    """

    limit = 1

    def test_a_client_that_has_connected_is_served(self) -> None:
        """
        As where workers empty the queues themselves.
        """
        self.join(2)
        for _ in range(8):
            self.connect(1)
        assert [1, 1] == self.served()
        self.dispatcher.finish()
        self.reactor.settle()

        assert [4, 4] == self.served()
        assert list(range(8)) == self.all_served()
