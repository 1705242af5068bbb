"""
Tests for `kvd.admin.status.history`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from kvd.admin.status.history import BALANCE_SAMPLES, KEPT_SAMPLES, History, Sample
from kvd.admin.status.ledger import NOTHING
from kvd.ipc.counts import Sums
from kvd.ipc.histogram import BOUNDS_SECONDS, BUCKETS
from tests.admin.status.worked import served


class HistoryTests(SynchronousTestCase):
    """
    The history has the difference of the sums in each second.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.sums: Sequence[Sums] = [NOTHING, NOTHING]
        self.date = 2000.0
        self.history = History(lambda: self.sums, self.clock, lambda: self.date)
        self.history.start()

    def second(self, *sums: Sums) -> Sample:
        """
        Let a second pass, at the end of which these are the sums.
        """
        self.sums = sums
        self.clock.advance(1)
        newest = self.history.newest
        assert newest is not None
        return newest

    def test_the_first_reading_gives_no_sample(self) -> None:
        """
        Whatever was counted before it.
        """
        assert self.history.newest is None

    def test_rates_are_what_was_added(self) -> None:
        """
        The growth of each sum in the second.
        """
        self.second(served(100), served(100))
        sample = self.second(
            replace(served(130), bytes_in=5000, busy_seconds=0.25), served(100)
        )

        assert [30.0, 0.0] == [rates.requests for rates in sample.workers]
        assert (5000.0, 0.25) == (sample.workers[0].bytes_in, sample.workers[0].busy)
        assert 30.0 == sample.summary()["requests_per_second"]

    def test_a_late_sample_covers_its_real_time(self) -> None:
        """
        And it has the delay.
        """
        self.sums = [served(100), NOTHING]
        self.clock.advance(1.25)
        newest = self.history.newest

        assert newest is not None
        assert 80.0 == newest.workers[0].requests
        assert pytest.approx(0.25) == newest.supervisor_delay

    def test_setting_the_clock_changes_only_the_date(self) -> None:
        """
        Neither the rates nor the order of samples.
        """
        for count, date in enumerate((-3600.0, 3600.0, 0.0), 1):
            self.date = date
            summary = self.second(served(100 * count), NOTHING).summary()

            assert (date, count) == (summary["at"], summary["monotonic_seconds"])
            assert 100.0 == summary["requests_per_second"]
            assert 0.0 == summary["supervisor_delay_seconds"]

    def test_no_worker_is_busier_than_all_the_time(self) -> None:
        """
        A turn counts when it ends, and may have begun in an earlier second.
        """
        sample = self.second(replace(NOTHING, busy_seconds=1.25), NOTHING)

        assert 1.0 == sample.workers[0].busy
        assert [100, 0] == sample.as_remembered()["workers"]

    def test_an_hour_is_kept_in_longer_steps(self) -> None:
        """
        With the statuses of the replies, their latency and the bytes.
        """
        for second in range(1, 22):
            good = served(100 * second, bucket=5).total
            bad = served(second // 11 * 40, bucket=20, status="5xx").total
            self.second(
                replace(NOTHING, total=good + bad, bytes_out=1000 * second), NOTHING
            )
        first, last = (step.as_remembered() for step in self.history.steps)

        assert 100 == first["statuses_per_second"]["2xx"]
        assert 0 == first["statuses_per_second"]["5xx"]
        assert 4 == last["statuses_per_second"]["5xx"]
        assert 1000 == first["bytes_out_per_second"] == last["bytes_out_per_second"]
        assert first["latency_p99_seconds"] <= BOUNDS_SECONDS[5]
        assert last["latency_p99_seconds"] > BOUNDS_SECONDS[18]
        sample = self.history.newest
        assert sample is not None
        assert 100 == sample.summary()["statuses_per_second"]["2xx"]

    def test_latency_is_that_of_the_second(self) -> None:
        """
        What was slow before does not count.
        """
        before = self.second(served(1000, bucket=20), NOTHING)
        assert before.latency_p50 is not None
        assert before.latency_p50 > BOUNDS_SECONDS[18]

        slow_and_fast = served(1000, bucket=20).total + served(10, bucket=5).total
        sample = self.second(replace(NOTHING, total=slow_and_fast), NOTHING)
        assert sample.latency_p99 is not None
        assert sample.latency_p99 <= BOUNDS_SECONDS[5]
        more = slow_and_fast + served(60, bucket=5).total + served(40, bucket=20).total
        sample = self.second(replace(NOTHING, total=more), NOTHING)
        assert sample.latency_p50 is not None
        assert sample.latency_p99 is not None
        assert sample.latency_p50 <= BOUNDS_SECONDS[5] < sample.latency_p99
        assert sample.workers[1].latency_p99 is None

    def test_the_longest_turn_is_that_of_the_second(self) -> None:
        """
        None if the reactor has not turned.
        """
        turned = [0] * BUCKETS
        turned[3], turned[9] = 1000, 1
        sample = self.second(replace(NOTHING, loop_delay=turned), NOTHING)

        assert BOUNDS_SECONDS[9] == sample.workers[0].loop_delay
        assert sample.workers[1].loop_delay is None
        sample = self.second(replace(NOTHING, loop_delay=turned), NOTHING)
        assert sample.workers[0].loop_delay is None

    def test_balance_goes_over_several_seconds(self) -> None:
        """
        Over several seconds a rotation is even, within one it is not.
        """
        requests = [0, 0]
        for second in range(BALANCE_SAMPLES):
            requests[second % 2] += 1
            sample = self.second(*map(served, requests))

        assert 1.0 == sample.balance_requests
        for _ in range(BALANCE_SAMPLES):
            requests[0] += 1
            sample = self.second(*map(served, requests))
        assert 0.5 == sample.balance_requests

        works = replace(served(requests[0] + 1), busy_seconds=0.25)
        as_much = replace(served(requests[1]), busy_seconds=0.25)
        assert 1.0 == self.second(works, as_much).balance_busy

    def test_workers_may_come_and_go(self) -> None:
        """
        A new worker counts from its first second on, but in the balance only when it
        has existed for as long as the others.
        """
        self.second(served(10), served(10))
        sample = self.second(served(20), served(20), served(500))
        assert [10.0, 10.0, 0.0] == [rates.requests for rates in sample.workers]
        sample = self.second(served(30), served(30), served(505))
        assert [10.0, 10.0, 5.0] == [rates.requests for rates in sample.workers]
        assert 1.0 == sample.balance_requests

        sample = self.second(served(40))
        assert [10.0] == [rates.requests for rates in sample.workers]
        assert sample.summary()["requests_per_second"] == 10

    def test_without_requests_there_is_no_balance(self) -> None:
        """
        The index is None.
        """
        sample = self.second(NOTHING, NOTHING)

        assert (None, None) == (sample.balance_requests, sample.balance_busy)

    def test_the_number_of_samples_is_bounded(self) -> None:
        """
        However long a daemon runs.
        """
        for _ in range(KEPT_SAMPLES + 5):
            self.second(NOTHING, NOTHING)

        assert KEPT_SAMPLES == len(self.history.samples)

    def test_it_ends(self) -> None:
        """
        No further samples are taken.
        """
        self.history.stop()

        assert [] == self.clock.getDelayedCalls()
