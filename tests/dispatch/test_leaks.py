"""
What is handed over, alone or not, leaves nothing behind in the supervisor.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable

import pytest
from twisted.logger import capturedLogs

from kvd.dispatch.dispatcher import CREDIT_SECONDS
from tests.descriptors import Descriptors
from tests.dispatch.test_deciding import Odd, fail
from tests.dispatch.test_lone import LoneCase

ROUNDS = 600
"""
After so many, Python's own free lists hardly grow.
"""

SLACK_BYTES = 20_000
"""
Less than a short object for each round.
"""


@pytest.mark.untraced
class LeakTests(LoneCase):
    """
    Many connections, of which none remains.
    """

    limit = 10**6

    def one(self) -> None:
        """
        A connection comes, is served, and ends.
        """
        self.connect(1)
        for worker in self.workers:
            for connection in worker.served:
                worker._row.closed()
                connection.close()
            worker.served.clear()
            worker.dispatched.clear()
            worker.messages.clear()
        for client in self.clients:
            client.close()
        self.clients.clear()
        self.reactor.advance(2 * CREDIT_SECONDS)

    def assert_steady(self, once: Callable[[], None]) -> None:
        """
        Doing something often holds no more descriptors and memory than doing it seldom.
        """
        descriptors = Descriptors("socket:", "anon_inode:[eventfd]")
        held = []
        tracemalloc.start()
        try:
            for _ in range(2):
                for _ in range(ROUNDS):
                    once()
                gc.collect()
                held.append((descriptors.more, tracemalloc.get_traced_memory()[0]))
        finally:
            tracemalloc.stop()
        before, after = held
        assert before[0] == after[0]
        assert after[1] < before[1] + SLACK_BYTES

    def test_alone(self) -> None:
        """
        One after the other.
        """
        self.join(2)
        self.assert_steady(self.one)

    def test_by_a_policy_that_fails(self) -> None:
        """
        What it raises is not kept.
        """
        self.choose_by(Odd(fail))
        self.join(2)
        with capturedLogs():
            self.assert_steady(self.one)

    def test_of_workers_that_are_late(self) -> None:
        """
        What was revoked goes to another.
        """
        self.join(2)

        def once() -> None:
            self.workers[0].stall()
            self.connect(1)
            self.connect(1)
            self.reactor.advance(2 * CREDIT_SECONDS)
            self.workers[0].go_on()
            self.one()

        self.assert_steady(once)
