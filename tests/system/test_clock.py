"""
Tests for `kvd.system.clock`.
"""

from __future__ import annotations

import time
from unittest import mock

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import SynchronousTestCase

from kvd.ipc.row import lone_row
from kvd.net.reactor import WorkerReactor
from kvd.system.clock import measure_monotonically


class MonotonicTests(SynchronousTestCase):
    """
    A reactor that measures monotonically keeps its times, whoever sets the clock.
    """

    def setUp(self) -> None:
        self.reactor = EPollReactor()
        self.addCleanup(self.dispose, self.reactor)
        self.date = 1_800_000_000.0
        self.now = 1000.0
        self.patch(time, "monotonic", lambda: self.now)
        self.called: list[str] = []
        # As Twisted's own, which reads the time of day.
        reactor = self.reactor
        reactor.seconds = lambda: self.date

    def dispose(self, reactor: EPollReactor) -> None:
        """
        Close what the reactor holds.
        """
        for reader in list(reactor._internalReaders):
            reader.connectionLost(None)
        reactor._poller.close()

    def call(self, seconds: float, name: str) -> None:
        """
        Have a name noted later.
        """
        self.reactor.callLater(seconds, self.called.append, name)

    def test_what_is_scheduled_comes_in_its_time(self) -> None:
        """
        Also what was scheduled before, and in the same order; whichever way the clock
        is set.
        """
        self.call(3, "third")
        self.call(1, "first")
        # Some wait in the reactor's heap, others have only just come.
        self.reactor.runUntilCurrent()
        self.call(2, "second")
        measure_monotonically(self.reactor)
        self.call(4, "fourth")
        measure_monotonically(self.reactor)
        for date in (-3600.0, 4e9):
            self.date = date
            self.reactor.runUntilCurrent()
            assert [] == self.called
            assert 1.0 == self.reactor.timeout()
        for count in range(1, 5):
            self.now += 1
            self.reactor.runUntilCurrent()
            assert count == len(self.called)

        assert ["first", "second", "third", "fourth"] == self.called

    def test_what_is_scheduled_can_be_put_off(self) -> None:
        """
        By its own clock.
        """
        call = self.reactor.callLater(1, self.called.append, "put off")
        measure_monotonically(self.reactor)
        call.reset(5)
        assert 1005.0 == call.getTime()
        self.now += 5
        self.reactor.runUntilCurrent()

        assert ["put off"] == self.called

    def test_loops_go_on(self) -> None:
        """
        Those that began before too.
        """
        loop = LoopingCall(self.called.append, "again")
        loop.clock = self.reactor
        loop.start(1, now=False)
        measure_monotonically(self.reactor)
        for date in (-3600.0, 4e9, 0.0):
            self.date = date
            self.now += 1
            self.reactor.runUntilCurrent()
        loop.stop()

        assert ["again"] * 3 == self.called


def test_a_worker_measures_monotonically_from_the_first() -> None:
    """
    It makes its reactor itself.
    """
    with mock.patch("time.time", return_value=0.0):
        reactor = WorkerReactor(lone_row())
        before = time.monotonic()
        assert before <= reactor.seconds() <= time.monotonic()
    for reader in list(reactor._internalReaders):
        reader.connectionLost(None)
    reactor._poller.close()
