"""
Tests for `kvd.dispatch.lone`: what is handed over without the dispatcher, and what is
left to it.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs

from kvd.dispatch import dispatcher as dispatching
from kvd.dispatch.deciding import Decider
from kvd.dispatch.dispatcher import CREDIT_SECONDS, LOOK_SECONDS
from kvd.dispatch.handover import ASK_WAITING
from kvd.dispatch.policies.leastbusy import LeastBusy
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.primitives import make_view
from kvd.dispatch.shadow import Shadow
from kvd.ipc.messages import Drain
from kvd.model.view import View
from tests.dispatch.test_deciding import Odd, fail, never
from tests.dispatch.test_dispatcher import DispatcherCase


class LoneCase(DispatcherCase):
    """
    A dispatcher whose own decisions are counted.
    """

    def setUp(self) -> None:
        super().setUp()
        self.left = 0

        def count(fields: tuple[Any, ...]) -> View:
            self.left += 1
            return make_view(fields)

        self.patch(dispatching, "make_view", count)

    def choose_by(self, policy: Any) -> None:
        """
        Put another policy in force.
        """
        self.dispatcher.dispatch_by(Decider("odd", policy))


class LoneTests(LoneCase):
    """
    One connection after the other.
    """

    def test_it_needs_no_dispatcher(self) -> None:
        """
        The workers take turns, also with those that the dispatcher hands over.
        """
        self.join(3)
        for _ in range(4):
            self.connect(1)
        assert ([2, 1, 1], 0) == (self.served(), self.left)

        self.connect(2)
        assert ([2, 2, 2], 2) == (self.served(), self.left)
        self.connect(1)
        assert ([3, 2, 2], 2) == (self.served(), self.left)
        assert list(range(7)) == self.all_served()

    def test_after_a_pause_no_other_is_looked_for(self) -> None:
        """
        If there is one, it is handed over at once all the same; from then on others are
        looked for.
        """
        self.join(3)
        self.reactor.advance(1)
        self.connect(2)
        assert ([1, 1, 0], 0) == (self.served(), self.left)

        self.reactor.advance(1)
        self.connect(3)
        assert ([2, 2, 1], 2) == (self.served(), self.left)
        assert list(range(5)) == self.all_served()

    def test_a_policy_sees_the_same_view(self) -> None:
        """
        As the dispatcher would show it.
        """
        seen: list[View] = []

        def choose(view: View) -> int:
            seen.append(view)
            return view.ready[-1]

        self.choose_by(Odd(choose))
        self.join(3)
        self.workers[1]._row.began("GET")
        self.workers[2].stall()
        for _ in range(3):
            self.connect(1)

        assert 0 == self.left
        for sent, view in enumerate(seen):
            fields = (
                *((0, 1, 2), 0, (0, 0, 0), (0, 1, 0), (0, 0, sent)),
                *(self.dispatcher._random, 1),
            )
            assert make_view(fields) == view

    def test_what_is_on_its_way_counts(self) -> None:
        """
        Until the worker has it.
        """
        self.choose_by(LeastBusy())
        self.join(2)
        self.workers[0].stall()
        for _ in range(3):
            self.connect(1)

        assert ([0, 2], 0) == (self.served(), self.left)
        assert 1 == self.dispatcher.handing_over(0)
        assert 0 == self.dispatcher.handing_over(1)

    def test_it_is_revoked_if_it_is_late(self) -> None:
        """
        The dispatcher looks after it.
        """
        self.join(2)
        self.workers[0].stall()
        self.connect(1)
        assert ([0, 0], 0) == (self.served(), self.left)

        self.be_late()
        assert [0, 1] == self.served()
        assert [0] == self.all_served()

    def test_its_descriptor_is_closed_when_it_was_taken(self) -> None:
        """
        So the client sees the end that the worker makes.
        """
        self.join(1)
        self.connect(1)
        self.workers[0].served.pop().close()
        self.reactor.advance(CREDIT_SECONDS + LOOK_SECONDS)
        assert self.sees_the_end(0)

    def test_of_a_lost_worker_it_goes_to_another(self) -> None:
        """
        If the worker had not taken it.
        """
        self.join(2)
        self.workers[0].stall()
        self.connect(1)
        self.workers[0].end()
        self.reactor.settle()
        assert [0] == self.all_served()
        self.connect(1)
        assert [0, 2] == self.served()


class LeftTests(LoneCase):
    """
    What is unusual is the dispatcher's.
    """

    def test_where_a_shadow_looks_on(self) -> None:
        """
        It is shown what the policy saw.
        """
        self.join(2)
        self.dispatcher.shadow = Shadow("roundrobin", RoundRobin())
        self.connect(1)
        assert ([1, 0], 1) == (self.served(), self.left)
        self.dispatcher.shadow = None
        # The dispatcher finds that all is as usual.
        self.connect(1)
        self.connect(1)
        assert ([2, 1], 2) == (self.served(), self.left)

    def test_where_a_worker_is_near_its_limit(self) -> None:
        """
        The dispatcher closes it then.
        """
        self.join(2)
        self.dispatcher.max_connections = 2
        self.connect(1)
        self.connect(1)
        self.connect(1)
        left = self.left
        self.connect(1)
        assert ([2, 2], left + 1) == (self.served(), self.left)
        self.connect(1)
        assert [2, 2] == self.served()

    def test_where_many_are_on_their_way(self) -> None:
        """
        The worker is to acknowledge them by message.
        """
        self.join(1)
        self.workers[0].stall()
        for _ in range(ASK_WAITING):
            self.connect(1)
        assert 1 == self.left
        self.workers[0].go_on()
        self.reactor.settle()
        assert [ASK_WAITING] == self.served()
        assert 1 == len(self.workers[0].messages)

    def test_where_messages_wait_for_the_control_socket(self) -> None:
        """
        It would overtake them.
        """
        self.join(1)
        self.workers[0].near.queue.append((Drain(1.0), []))
        self.connect(1)
        assert 1 == self.left
        assert [0] == self.served()
        self.workers[0].near.queue.clear()
        self.reactor.advance(1)
        assert [1] == self.served()

    def test_where_it_cannot_be_sent(self) -> None:
        """
        It is tried again a little later.
        """
        self.join(1)
        self.workers[0].stall()
        lane = self.dispatcher._hands[0].lane
        filler = bytes(2000)
        sent = 0
        try:
            while True:
                self.workers[0].near._sock.send(filler)
                sent += 1
        except BlockingIOError:
            pass
        self.connect(1)
        assert 0 == lane.waiting
        for _ in range(sent):
            self.workers[0].far._sock.recv(len(filler))
        self.workers[0].go_on()
        self.reactor.advance(1)
        assert [0] == self.all_served()

    def test_a_policy_that_fails_is_asked_by_the_same_rules(self) -> None:
        """
        It is logged once, and the worker whose turn it is gets the connection.
        """
        self.choose_by(Odd(fail))
        self.join(2)
        with capturedLogs() as events:
            for _ in range(4):
                self.connect(1)
        assert ([2, 2], 0) == (self.served(), self.left)
        (event,) = events
        assert "KeyError: 'missing'" in event["what"]

    def test_a_policy_that_never_decides_is_cut_short(self) -> None:
        """
        And not asked again.
        """
        policy = Odd(never)
        self.choose_by(policy)
        self.join(2)
        with capturedLogs() as events:
            for _ in range(2):
                self.connect(1)
        assert ([1, 1], 0) == (self.served(), self.left)
        assert 1 == policy.asked
        (event,) = events
        assert "did not decide" in event["log_format"]

    def test_after_the_end_nothing_is_accepted(self) -> None:
        """
        Whatever comes.
        """
        self.join(1)
        self.dispatcher.close()
        assert not self.dispatcher._lone.accept_from(0)
