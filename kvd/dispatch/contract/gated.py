"""
What a policy promises further whose workers look before they accept.
"""

from __future__ import annotations

from dataclasses import replace

from zope.interface.verify import verifyObject

from kvd.dispatch.contract.load import LoadAwareContract
from kvd.dispatch.contract.views import WORKERS, view, views
from kvd.interfaces import IGatedPolicy


class GatedContract(LoadAwareContract):
    """
    A connection is left to whoever is less busy, and never to nobody: mixed in instead
    of `LoadAwareContract`.
    """

    def make_policy(self) -> IGatedPolicy:
        """
        The policy under test.
        """
        raise NotImplementedError

    def test_it_provides_the_gate(self) -> None:
        """
        Beside what every policy has.
        """
        assert verifyObject(IGatedPolicy, self.make_policy())

    def test_somebody_accepts_always(self) -> None:
        """
        Whatever the loads are: else a connection waits until gates are opened by force.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for seen in views(workers):
                assert any(policy.accepts(worker, seen) for worker in seen.ready)

    def test_a_busy_worker_leaves_a_connection_to_an_idle_one(self) -> None:
        """
        Wherever there is one (Puma #3961: a busy worker steals connections).
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
        However busy one is: there is more than the others can take before they are as
        busy. Else the gates would let a storm of connections in by ones.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for seen in views(workers):
                storm = replace(seen, waiting=1000)
                assert all(policy.accepts(worker, storm) for worker in storm.ready)

    def test_a_queue_is_shared_evenly(self) -> None:
        """
        Whoever of those who may is the first to take the next one; where there are
        many, to an eighth.
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
        What each takes where one is always faster than those of higher numbers.
        """
        taken = [0] * workers
        while waiting:
            seen = replace(view(workers, connections=taken), waiting=waiting)
            first = next(n for n in seen.ready if policy.accepts(n, seen))
            taken[first] += 1
            waiting -= 1
        return taken

    def test_who_is_gone_keeps_nobody_away(self) -> None:
        """
        However little it seems to do.
        """
        seen = view(3, ready=(1, 2), connections=(0, 9, 9), requests=(0, 4, 4))
        policy = self.make_policy()

        assert [True, True] == [policy.accepts(worker, seen) for worker in seen.ready]

    def test_the_model_chooses_among_those_who_accept(self) -> None:
        """
        So that a simulation shows what the gates do.
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
