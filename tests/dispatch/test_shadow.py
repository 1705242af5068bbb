"""
Tests for `kvd.dispatch.shadow`.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import replace

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from kvd.dispatch.policies.leastbusy import LeastBusy
from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.dispatch.shadow import Shadow
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View
from kvd.testing import view
from tests.dispatch.test_deciding import Odd, fail, never


class ShadowTests(SynchronousTestCase):
    """
    `Shadow` counts what a policy would have done.
    """

    def setUp(self) -> None:
        before = signal.getsignal(signal.SIGALRM)
        self.addCleanup(signal.signal, signal.SIGALRM, before)

    def dispatch(
        self, policy: IDispatchPolicy, in_force: IDispatchPolicy, shown: Sequence[View]
    ) -> Shadow:
        """
        A shadow that has seen some decisions, two in each batch.
        """
        shadow = Shadow("shadow", policy)
        turn = shown[0].turn
        for at in range(0, len(shown), 2):
            views, dispatched = [], []
            for each in shown[at : at + 2]:
                seen = replace(each, turn=turn)
                worker = in_force.choose(seen)
                views.append(seen)
                dispatched.append(worker)
                turn = (worker + 1) % len(seen.connections)
            shadow.look_on(views, dispatched)
        return shadow

    def test_a_policy_agrees_with_itself(self) -> None:
        """
        Whosever turn it was when it began to look on.
        """
        for policy in (RoundRobin(), LeastBusy()):
            shown = [view(3, turn=2, requests=(n % 2, 1, 0)) for n in range(9)]
            compared = self.dispatch(policy, policy, shown).counts(range(3))

            assert (9, 9, 0) == (
                compared["connections"],
                compared["agreed"],
                compared["unanswered"],
            )
            assert compared["balance"]["dispatched"] == compared["balance"]["shadow"]

    def test_every_choice_is_counted_where_it_falls(self) -> None:
        """
        Beside the one that was applied.
        """
        shown = [view(3, requests=(2, 0, 2), handing_over=(0, 0, 1))] * 6
        compared = self.dispatch(LeastBusy(), RoundRobin(), shown).counts(range(3))

        assert [(2, 0), (2, 6), (2, 0)] == [
            (row["dispatched"], row["shadow"]) for row in compared["workers"]
        ]
        assert 2 == compared["agreed"]
        assert {"dispatched": 1.0, "shadow": 0.3333} == compared["balance"]

    def test_what_a_connection_would_have_found_is_reported(self) -> None:
        """
        The tasks of the chosen worker, on average: requests and what is on its way.
        """
        shown = [view(3, requests=(2, 0, 2), handing_over=(0, 0, 1))] * 6
        compared = self.dispatch(LeastBusy(), RoundRobin(), shown).counts(range(3))

        assert {"dispatched": 1.667, "shadow": 0.0} == compared["found"]

    def test_its_turn_is_its_own(self) -> None:
        """
        Else its ties would follow what others chose.
        """
        first = Odd(lambda view: view.ready[0])
        compared = self.dispatch(RoundRobin(), first, [view(3)] * 6).counts(range(3))

        assert [2, 2, 2] == [row["shadow"] for row in compared["workers"]]

    def test_its_turn_is_somebodys(self) -> None:
        """
        As the number of a worker that there should be, ready or not.
        """
        turns: list[int] = []

        def choose(view: View) -> int:
            turns.append(view.turn)
            return view.ready[-1]

        self.dispatch(Odd(choose), RoundRobin(), [view(4, ready=(0, 2))] * 2)
        self.dispatch(Odd(choose), RoundRobin(), [view(3)] * 2)

        assert [0, 3, 0, 0] == turns

    def test_what_it_takes_is_reported(self) -> None:
        """
        For each time that it is asked; and no alarm is left to ring.
        """
        shadow = self.dispatch(Odd(fail), RoundRobin(), [view(3)] * 6)
        took = shadow.counts(range(3))["microseconds"]

        assert took > 0
        assert round(1e6 * shadow._seconds / 6, 1) == took
        assert (0.0, 0.0) == signal.getitimer(signal.ITIMER_REAL)

    def test_it_cannot_spoil_what_others_saw(self) -> None:
        """
        Chance is its own too, so that looking on changes nobody's dice.
        """
        seen = view(3, seed=7)
        dice = seen.random.getstate()
        Shadow("shadow", Odd(lambda view: view.random.randrange(3))).look_on(
            [seen], [0]
        )

        assert dice == seen.random.getstate()

    def test_a_shadow_that_fails_is_reported_once_and_not_counted(self) -> None:
        """
        Nor what was dispatched meanwhile: both are counted over the same connections.
        """
        with capturedLogs() as events:
            shadow = self.dispatch(Odd(fail), RoundRobin(), [view(3)] * 6)
        compared = shadow.counts(range(3))

        assert (0, 6) == (compared["connections"], compared["unanswered"])
        assert [0, 0, 0] == [row["dispatched"] for row in compared["workers"]]
        (event,) = events
        assert "it is not counted as a shadow" == event["fallback"]
        assert "KeyError" in event["what"]

    def test_a_shadow_that_never_decides_is_not_asked_again(self) -> None:
        """
        It holds everybody up once.
        """
        policy = Odd(never)
        with capturedLogs() as events:
            shadow = self.dispatch(policy, RoundRobin(), [view(3)] * 6)

        assert 1 == policy.asked
        assert 6 == shadow.counts(range(3))["unanswered"]
        (event,) = events
        assert "did not decide" in event["log_format"]

    def test_nothing_counted_is_nothing_wrong(self) -> None:
        """
        A balance of nothing is no injustice.
        """
        compared = Shadow("shadow", RoundRobin()).counts(())

        assert {"dispatched": 1.0, "shadow": 1.0} == compared["balance"]
        assert 0 == compared["connections"]
