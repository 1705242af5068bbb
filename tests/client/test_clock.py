"""
Tests for `kvd.client.clock`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from kvd.client import clock
from kvd.client.clock import Alarm, MonotonicClock, monotonic_clock
from kvd.ipc.row import lone_row
from kvd.net.reactor import WorkerReactor
from tests.stepped import SteppedReactor

MANY_SECONDS = 60.0


def until_ended(alarm: Alarm) -> None:
    """
    Wait until the thread of an alarm has ended.
    """
    end = time.monotonic() + MANY_SECONDS
    while alarm._runs:
        assert time.monotonic() < end
        time.sleep(0.001)


class MonotonicClockTests(SynchronousTestCase):
    """
    `MonotonicClock` goes on beside a reactor whose clock stands still.
    """

    def setUp(self) -> None:
        # Its time passes only on request.
        self.reactor = SteppedReactor()
        self.addCleanup(self.reactor.dispose)
        self.patch(clock, "IDLE_SECONDS", 0.0)
        self.clock = MonotonicClock(self.reactor)
        # Its thread may ring for a call that has come already, or was cancelled.
        self.addCleanup(until_ended, self.clock._alarm)
        self.called: list[str] = []

    def at(self, now: float) -> AbstractContextManager[object]:
        """
        Whatever is scheduled meanwhile is scheduled at one moment, also by a machine
        that is busy.
        """
        return mock.patch.object(self.clock, "seconds", return_value=now)

    def turn_until(self, holds: Callable[[], bool]) -> None:
        """
        Let the reactor turn, for as long as it takes.
        """
        end = time.monotonic() + MANY_SECONDS
        while not holds():
            assert time.monotonic() < end, self.called
            self.reactor.iterate(0.01)

    def test_calls_come_in_their_order_and_in_the_reactor(self) -> None:
        """
        Whatever was asked for first.
        """
        threads: set[int] = set()
        with self.at(self.clock.seconds()):
            for seconds, name in ((0.03, "third"), (0.01, "first"), (0.02, "second")):
                self.clock.callLater(seconds, self.called.append, name)
        self.clock.callLater(0.0, lambda: threads.add(threading.get_ident()))
        self.turn_until(lambda: len(self.called) == 3)

        assert ["first", "second", "third"] == self.called
        assert {threading.get_ident()} == threads

    def test_a_call_may_ask_for_another_and_fail(self) -> None:
        """
        What is due later is called all the same.
        """

        now = self.clock.seconds()

        def fail() -> None:
            with self.at(now):
                self.clock.callLater(0.01, self.called.append, "another")
            raise KeyError("missing")

        with self.at(now):
            self.clock.callLater(0.0, fail)
            self.clock.callLater(0.02, self.called.append, "later")
        self.turn_until(lambda: len(self.called) == 2)

        assert ["another", "later"] == self.called
        assert 1 == len(self.flushLoggedErrors(KeyError))

    def test_what_is_cancelled_does_not_come(self) -> None:
        """
        Nor anything in its stead.
        """
        self.clock.callLater(0.0, self.called.append, "cancelled").cancel()
        self.clock.callLater(0.01, self.called.append, "called")
        self.turn_until(lambda: bool(self.called))

        assert ["called"] == self.called
        assert [] == self.clock.getDelayedCalls()

    def test_a_reactor_that_cannot_be_set_is_its_own_clock(self) -> None:
        """
        As that of the commands.
        """
        reactor = WorkerReactor(lone_row())
        self.addCleanup(reactor._poller.close)
        for reader in list(reactor._internalReaders):
            self.addCleanup(reader.connectionLost, None)

        own, other = map(monotonic_clock, (reactor, self.reactor))

        assert (reactor, MonotonicClock) == (own, type(other))

    def test_a_thread_with_nothing_to_do_ends(self) -> None:
        """
        And there is another when there is something again.
        """
        rings: list[str] = []
        rang = threading.Event()

        def ring() -> None:
            rings.append(threading.current_thread().name)
            rang.set()

        alarm = Alarm(ring)
        for count in (1, 2):
            rang.clear()
            alarm.set(time.monotonic())
            assert rang.wait(MANY_SECONDS)
            until_ended(alarm)
            assert count == len(rings)
