"""
What policies that go by load promise further.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from kvd.dispatch.contract.every import PolicyContract
from kvd.dispatch.contract.views import WORKERS, view, views
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


class LoadAwareContract(PolicyContract):
    """
    The worker with the fewest requests is chosen; if workers tie, the one with the
    fewest connections. A mixin to use instead of `PolicyContract`.
    """

    def test_the_worker_with_the_fewest_requests_is_chosen(self) -> None:
        """
        However many idle connections it has (Puma #3961: a busy worker steals
        connections; p95 11.5 s instead of 11 ms).
        """
        policy = self.make_policy()
        for workers in WORKERS:
            for seen in views(workers, handing_over=False):
                least = min(seen.requests[worker] for worker in seen.ready)
                assert least == seen.requests[policy.choose(seen)]

    def test_requests_are_balanced_not_only_connections(self) -> None:
        """
        If every second connection always has a request, and the others never have one
        (Envoy #23514, #33671: connections balanced, requests not).
        """
        policy = self.make_policy()
        connections, requests, turn = [0] * 4, [0] * 4, 0
        for number in range(64):
            worker = policy.choose(
                view(4, turn=turn, connections=connections, requests=requests)
            )
            connections[worker] += 1
            requests[worker] += number % 2
            turn = (worker + 1) % 4

        assert [8] * 4 == requests

    def test_connections_that_stay_are_spread_evenly(self) -> None:
        """
        Each worker gets exactly the same number, since each connection may send a
        request at any time (h2o #1636: two of 23 threads did hours of work, most did
        minutes).
        """
        for workers in (2, 8, 32):
            chosen = self._dispatch(self.make_policy(), workers, 4 * workers)
            assert [4] * workers == chosen

    def test_a_slow_worker_gets_less(self) -> None:
        """
        But not nothing, since it is alive. Here it takes ten times as long as others.
        """
        slow, *others = self._serve(
            self.make_policy(), 4, 1000, lambda worker: 2 if worker else 20
        )

        assert 0 < slow < min(others) / 2

    def test_an_end_is_seen_in_the_next_decision(self) -> None:
        """
        If all others tie, the worker that ended a request or a connection is next.
        """
        policy = self.make_policy()
        for turn in range(4):
            for ended in range(4):
                fewer = [2 if worker == ended else 3 for worker in range(4)]
                seen = view(4, turn=turn, connections=fewer, requests=fewer)
                assert ended == policy.choose(seen)
                seen = view(4, turn=turn, connections=fewer, requests=[1] * 4)
                assert ended == policy.choose(seen)

    def test_ends_that_are_seen_late_favour_nobody(self) -> None:
        """
        Shares stay within a tenth of each other (Seastar #3514: closes are counted
        late, and one shard gets 1.44 times what others get).
        """
        for late in (0, 1, 3, 10):
            chosen = self._serve(self.make_policy(), 4, 4000, lambda _: 3, late)
            assert max(chosen) <= 1.1 * min(chosen)

    def _serve(
        self,
        policy: IDispatchPolicy,
        workers: int,
        connections: int,
        takes: Callable[[int], int],
        late: int = 0,
    ) -> list[int]:
        """
        Dispatch one connection with a request at every tick of a clock.

        Args:
            policy: The policy that chooses.
            workers: The number of workers; each serves many connections at once.
            connections: The number of connections.
            takes: Gives the ticks that a request takes, by the number of its worker.
            late: After how many more ticks the policy sees the end of a request.

        Returns:
            The number of connections that each worker got.
        """
        chosen, turn = [0] * workers, 0
        ends: list[tuple[int, int]] = []
        chance = Random(1)
        for now in range(connections):
            ends = [(worker, end) for worker, end in ends if end > now]
            busy = [worker for worker, _ in ends]
            load = tuple(map(busy.count, range(workers)))
            seen = View(range(workers), turn, load, load, (0,) * workers, chance)
            worker = policy.choose(seen)
            ends.append((worker, now + takes(worker) + late))
            chosen[worker] += 1
            turn = (worker + 1) % workers
        return chosen


class DispatchedByLoadContract(LoadAwareContract):
    """
    Connections on their way to a worker count as its load. A mixin for policies that go
    by load and whose connections the supervisor dispatches, to use instead of
    `LoadAwareContract`.
    """

    def test_connections_on_their_way_count(self) -> None:
        """
        Connections that come at once are spread before any worker has one (Envoy
        #15146: a counter was decremented too early, and two workers got 1 and 31).
        """
        policy = self.make_policy()
        for workers in (2, 8, 32):
            on_their_way, turn = [0] * workers, 0
            for _ in range(16 * workers):
                worker = policy.choose(
                    view(workers, turn=turn, handing_over=on_their_way)
                )
                on_their_way[worker] += 1
                turn = (worker + 1) % workers
            assert [16] * workers == on_their_way

    def test_connections_on_their_way_count_as_requests(self) -> None:
        """
        Each usually brings one.
        """
        policy = self.make_policy()
        for turn in range(2):
            seen = view(2, turn=turn, requests=(2, 0), handing_over=(0, 3))
            assert 0 == policy.choose(seen)
            seen = view(2, turn=turn, requests=(2, 0), handing_over=(0, 1))
            assert 1 == policy.choose(seen)
