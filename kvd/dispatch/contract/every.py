"""
What every dispatch policy promises.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from random import Random

from zope.interface.verify import verifyObject

from kvd.dispatch.arrangement import arrange
from kvd.dispatch.contract.views import WORKERS, views
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


class PolicyContract:
    """
    Mixed into a test case that says how its policy is made.
    """

    def make_policy(self) -> IDispatchPolicy:
        """
        The policy under test.
        """
        raise NotImplementedError

    def test_it_provides_the_interface(self) -> None:
        """
        With every method, taking what it has to take.
        """
        assert verifyObject(IDispatchPolicy, self.make_policy())

    def test_somebody_accepts_from_every_member(self) -> None:
        """
        Connections in a queue that nobody polls would hang: a group has a
        member at least; where the kernel chooses, each member is some worker's,
        and each worker has one; elsewhere all are the supervisor's. Without
        that, kvd does not start.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            # Else a sentence says what is wrong.
            arrange("under test", policy, workers)

    def test_the_same_question_has_the_same_answer(self) -> None:
        """
        A policy keeps no state.
        """
        policy, other = self.make_policy(), self.make_policy()
        for workers in (*WORKERS, *reversed(WORKERS)):
            assert policy.group_size(workers) == other.group_size(workers)
            for worker in range(workers):
                assert list(policy.members_of(worker, workers)) == list(
                    other.members_of(worker, workers)
                )
            first = [policy.choose(view) for view in views(workers)]
            assert first == [policy.choose(view) for view in views(workers)]
            # Asked in another order, by another provider.
            backwards = [other.choose(view) for view in reversed(views(workers))]
            assert first == backwards[::-1]

    def test_who_is_chosen_is_ready(self) -> None:
        """
        Whatever the loads are and whoever is missing.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for view in views(workers):
                assert policy.choose(view) in view.ready

    def test_equal_workers_get_equal_shares(self) -> None:
        """
        Where nobody ends anything: over a hundred rounds of turns no worker
        has more than twice its share, and none has less than half.
        """
        policy = self.make_policy()
        for workers in (2, 8, 32):
            chosen = self._dispatch(policy, workers, 100 * workers)
            assert 50 <= min(chosen)
            assert max(chosen) <= 200

    def test_short_connections_are_shared(self) -> None:
        """
        Each ends before the next one comes, so that everybody is idle whenever one is
        dispatched: nobody is the first choice for ever (nginx ticket 2285: the first
        waiter takes most connections; Seastar #290: ties always go to shard 0).
        """
        policy = self.make_policy()
        for workers in (2, 8, 32):
            chosen = self._dispatch(policy, workers, 100 * workers, stay=False)
            assert 50 <= min(chosen)
            assert max(chosen) <= 200

    def test_a_lost_worker_gets_nothing_and_the_rest_share(self) -> None:
        """
        Nobody inherits the whole of what would have been its.
        """
        policy = self.make_policy()
        ready = (0, 1, 2, 4, 5, 6, 7)

        chosen = self._dispatch(policy, 8, 800, ready)

        assert 0 == chosen[3]
        assert all(chosen[worker] for worker in ready)

    def test_new_workers_get_their_part(self) -> None:
        """
        When there are more of them than the policy has seen, and when there
        are fewer again.
        """
        policy = self.make_policy()
        chosen = self._dispatch(policy, 3, 300)
        grown = self._dispatch(policy, 8, 800, before=[*chosen, *[0] * 5])
        assert all(grown)

        shrunk = self._dispatch(policy, 2, 200, before=grown[:2])
        assert 200 == sum(shrunk)
        assert all(shrunk)

    def test_closes_that_are_seen_late_are_forgotten(self) -> None:
        """
        A worker that seems to be full of connections gets its part again as
        soon as it is seen that they have ended.
        """
        policy = self.make_policy()
        self._dispatch(policy, 4, 400, before=[100, 0, 0, 0])
        afterwards = self._dispatch(policy, 4, 400)

        assert self._dispatch(self.make_policy(), 4, 400) == afterwards
        assert all(afterwards)

    def _dispatch(
        self,
        policy: IDispatchPolicy,
        workers: int,
        connections: int,
        ready: Sequence[int] | None = None,
        before: Sequence[int] | None = None,
        stay: bool = True,
    ) -> list[int]:
        """
        Connections that are idle, one after the other.

        Args:
            policy: Who chooses.
            workers: How many there are.
            connections: How many come.
            ready: Who can take one; by default everybody.
            before: How many connections each worker has already.
            stay: Whether they stay, or each has ended when the next one comes.

        Returns:
            How many each worker got.
        """
        had = before or [0] * workers
        chosen = [0] * workers
        turn = 0
        chance = Random(1)
        for _ in range(connections):
            worker = policy.choose(
                View(
                    ready=tuple(range(workers)) if ready is None else ready,
                    turn=turn,
                    connections=tuple(map(add, had, chosen) if stay else had),
                    requests=(0,) * workers,
                    handing_over=(0,) * workers,
                    random=chance,
                )
            )
            chosen[worker] += 1
            turn = (worker + 1) % workers
        return chosen
