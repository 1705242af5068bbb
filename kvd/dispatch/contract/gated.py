"""
What policies with a gate promise further: their workers look at the load before they
accept.
"""

from __future__ import annotations

from dataclasses import replace

from zope.interface.verify import verifyObject

from kvd.dispatch.contract.load import LoadAwareContract
from kvd.dispatch.contract.views import WORKERS, view, views
from kvd.interfaces import IGatedPolicy


class GatedContract(LoadAwareContract):
    """
    A busy worker leaves a connection to one that is less busy, and there always is one
    that accepts. A mixin to use instead of `LoadAwareContract`.
    """

    def make_policy(self) -> IGatedPolicy:
        """
        The policy under test.
        """
        raise NotImplementedError

    def test_it_provides_the_gate(self) -> None:
        """
        In addition to that of every policy.
        """
        assert verifyObject(IGatedPolicy, self.make_policy())

    def test_somebody_accepts_always(self) -> None:
        """
        Whatever the loads are. Otherwise a connection would wait until a timeout opens
        all gates.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for seen in views(workers):
                assert any(policy.accepts(worker, seen) for worker in seen.ready)

    def test_a_busy_worker_leaves_a_connection_to_an_idle_one(self) -> None:
        """
        Whichever worker is idle (Puma #3961: a busy worker steals connections).
        """
        policy = self.make_policy()
        for workers in WORKERS[1:]:
            for idle in range(workers):
                requests = [int(worker != idle) for worker in range(workers)]
                seen = view(workers, connections=[1] * workers, requests=requests)
                accepting = [n for n in range(workers) if policy.accepts(n, seen)]
                assert [idle] == accepting

    def test_a_long_queue_is_for_all(self) -> None:
        """
        Busy workers accept too: more connections wait than the others can take before
        they are as busy. Otherwise the gates would admit a burst of connections one by
        one.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for seen in views(workers):
                storm = replace(seen, waiting=1000)
                assert all(policy.accepts(worker, storm) for worker in storm.ready)

    def test_a_queue_is_shared_evenly(self) -> None:
        """
        Whichever of the workers with an open gate accepts first. Shares of a long queue
        differ by at most an eighth.
        """
        policy = self.make_policy()
        for workers in WORKERS[1:]:
            for waiting in (1, workers - 1, workers, 5 * workers, 200):
                taken = self._take(policy, workers, waiting)
                assert waiting == sum(taken)
                spread = max(taken) - min(taken)
                assert spread <= max(1, waiting / workers / 8), (waiting, taken)

    @staticmethod
    def _take(policy: IGatedPolicy, workers: int, waiting: int) -> list[int]:
        """
        The number of connections that each worker accepts if a worker is always faster
        than those with higher numbers.
        """
        taken = [0] * workers
        while waiting:
            seen = replace(view(workers, connections=taken), waiting=waiting)
            first = next(n for n in seen.ready if policy.accepts(n, seen))
            taken[first] += 1
            waiting -= 1
        return taken

    def test_a_lost_worker_closes_no_gate(self) -> None:
        """
        However idle it seems to be.
        """
        seen = view(3, ready=(1, 2), connections=(0, 9, 9), requests=(0, 4, 4))
        policy = self.make_policy()

        assert [True, True] == [policy.accepts(worker, seen) for worker in seen.ready]

    def test_the_model_chooses_a_worker_that_accepts(self) -> None:
        """
        So a simulation shows what the gates do.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for seen in views(workers, handing_over=False):
                assert policy.accepts(policy.choose(seen), seen)

    def test_the_same_view_opens_the_same_gates(self) -> None:
        """
        A policy keeps no state: each worker asks its own copy.
        """
        policy, other = self.make_policy(), self.make_policy()
        for seen in views(8):
            gates = [policy.accepts(worker, seen) for worker in seen.ready]
            assert gates == [other.accepts(worker, seen) for worker in seen.ready]
            assert gates == [policy.accepts(worker, seen) for worker in seen.ready]
