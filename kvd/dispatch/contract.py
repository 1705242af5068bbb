"""
What every dispatch policy promises, as tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from random import Random

from zope.interface.verify import verifyObject

from kvd.dispatch.arranging import arrange
from kvd.dispatch.view import View
from kvd.interfaces import IDispatchPolicy

WORKERS = (1, 2, 3, 8, 32, 64)


def view(
    workers: int,
    *,
    ready: Sequence[int] | None = None,
    turn: int = 0,
    connections: Sequence[int] | None = None,
    requests: Sequence[int] | None = None,
    handing_over: Sequence[int] | None = None,
    seed: int = 0,
) -> View:
    """
    A view for tests: everybody is ready and idle, unless it is said otherwise.
    """
    nothing = (0,) * workers
    return View(
        ready=tuple(range(workers)) if ready is None else ready,
        turn=turn,
        connections=nothing if connections is None else connections,
        requests=nothing if requests is None else requests,
        handing_over=nothing if handing_over is None else handing_over,
        random=Random(seed),
    )


def views(workers: int, count: int = 50) -> Sequence[View]:
    """
    Many views, always the same: some workers are not ready, loads vary.
    """
    chance = Random(workers)

    def loads() -> tuple[int, ...]:
        return tuple(chance.randrange(5) for _ in range(workers))

    return [
        view(
            workers,
            ready=sorted(chance.sample(range(workers), chance.randint(1, workers))),
            turn=chance.randrange(workers),
            connections=loads(),
            requests=loads(),
            handing_over=loads(),
            seed=number,
        )
        for number in range(count)
    ]


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
            assert list(policy.members_of(0, workers)) == list(
                other.members_of(0, workers)
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
            chosen = self._deal(policy, workers, 100 * workers)
            assert 50 <= min(chosen)
            assert max(chosen) <= 200

    def test_a_lost_worker_gets_nothing_and_the_rest_share(self) -> None:
        """
        Nobody inherits the whole of what would have been its.
        """
        policy = self.make_policy()
        ready = (0, 1, 2, 4, 5, 6, 7)

        chosen = self._deal(policy, 8, 800, ready)

        assert 0 == chosen[3]
        assert all(chosen[worker] for worker in ready)

    def test_new_workers_get_their_part(self) -> None:
        """
        When there are more of them than the policy has seen, and when there
        are fewer again.
        """
        policy = self.make_policy()
        chosen = self._deal(policy, 3, 300)
        grown = self._deal(policy, 8, 800, before=[*chosen, *[0] * 5])
        assert all(grown)

        shrunk = self._deal(policy, 2, 200, before=grown[:2])
        assert 200 == sum(shrunk)
        assert all(shrunk)

    def test_closes_that_are_seen_late_are_forgotten(self) -> None:
        """
        A worker that seems to be full of connections gets its part again as
        soon as it is seen that they have ended.
        """
        policy = self.make_policy()
        self._deal(policy, 4, 400, before=[100, 0, 0, 0])
        afterwards = self._deal(policy, 4, 400)

        assert self._deal(self.make_policy(), 4, 400) == afterwards
        assert all(afterwards)

    def _deal(
        self,
        policy: IDispatchPolicy,
        workers: int,
        connections: int,
        ready: Sequence[int] | None = None,
        before: Sequence[int] | None = None,
    ) -> list[int]:
        """
        Connections that stay idle, one after the other.

        Args:
            policy: Who chooses.
            workers: How many there are.
            connections: How many come.
            ready: Who can take one; by default everybody.
            before: How many connections each worker has already.

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
                    connections=tuple(map(add, had, chosen)),
                    requests=(0,) * workers,
                    handing_over=(0,) * workers,
                    random=chance,
                )
            )
            chosen[worker] += 1
            turn = (worker + 1) % workers
        return chosen


class RotatingContract(PolicyContract):
    """
    What a policy promises further that takes turns among workers that are alike: mixed
    in instead of `PolicyContract`.
    """

    def test_ties_rotate(self) -> None:
        """
        In one round each ready worker is chosen once, whoever begins and while
        no load has changed yet.
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for ready in (range(workers), range(0, workers, 3)):
                for begins in range(workers):
                    turn, chosen = begins, []
                    for _ in ready:
                        worker = policy.choose(
                            view(workers, ready=tuple(ready), turn=turn)
                        )
                        chosen.append(worker)
                        turn = (worker + 1) % workers
                    assert list(ready) == sorted(chosen)
