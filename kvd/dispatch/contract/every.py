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
    A mixin for a test case that defines `make_policy`.
    """

    def make_policy(self) -> IDispatchPolicy:
        """
        The policy under test.
        """
        raise NotImplementedError

    def test_it_provides_the_interface(self) -> None:
        """
        With every method and its arguments.
        """
        assert verifyObject(IDispatchPolicy, self.make_policy())

    def test_somebody_accepts_from_every_member(self) -> None:
        """
        Otherwise connections would hang in a queue. A group has at least one member.
        If the kernel chooses, each member belongs to a worker, and each worker has one;
        otherwise the supervisor accepts from all of them. kvd does not start with
        another arrangement.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            # Raises an error that says what is wrong.
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
            # In another order, from another instance.
            backwards = [other.choose(view) for view in reversed(views(workers))]
            assert first == backwards[::-1]

    def test_the_chosen_worker_is_ready(self) -> None:
        """
        Whatever the loads are and whichever workers are missing.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for view in views(workers):
                assert policy.choose(view) in view.ready

    def test_equal_workers_get_equal_shares(self) -> None:
        """
        If no connection ends: after 100 connections for each worker, none has more than
        twice its share or less than half of it.
        """
        policy = self.make_policy()
        for workers in (2, 8, 32):
            chosen = self._dispatch(policy, workers, 100 * workers)
            assert 50 <= min(chosen)
            assert max(chosen) <= 200

    def test_short_connections_are_shared(self) -> None:
        """
        Each ends before the next one comes, so all workers are idle whenever one is
        dispatched. No worker is always the first choice (nginx ticket 2285: the first
        waiter takes most connections; Seastar #290: ties always go to shard 0).
        """
        policy = self.make_policy()
        for workers in (2, 8, 32):
            chosen = self._dispatch(policy, workers, 100 * workers, stay=False)
            assert 50 <= min(chosen)
            assert max(chosen) <= 200

    def test_a_lost_worker_gets_nothing_and_the_rest_share(self) -> None:
        """
        No worker alone gets what the lost one would have had.
        """
        policy = self.make_policy()
        ready = (0, 1, 2, 4, 5, 6, 7)

        chosen = self._dispatch(policy, 8, 800, ready)

        assert 0 == chosen[3]
        assert all(chosen[worker] for worker in ready)

    def test_new_workers_get_their_share(self) -> None:
        """
        If there are more workers than before, and if there are fewer again.
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
        A worker that seemed to have many connections gets its share again as soon as
        the policy sees that they have ended.
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
        Dispatch idle connections, one after the other.

        Args:
            policy: The policy that chooses.
            workers: The number of workers.
            connections: The number of connections.
            ready: The workers that can take one; all by default.
            before: The number of connections that each worker has already.
            stay: Whether connections stay open, or each ends before the next one comes.

        Returns:
            The number of connections that each worker got.
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
