"""
A monotonic clock beside a reactor whose clock can be set.

The client runs in its caller's reactor, which usually takes the time of day for its
clock, and which the client must not change. So a thread waits until the next call is
due, and then wakes the reactor.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import Clock

IDLE_SECONDS: Final = 1.0
"""
A thread that has had nothing to wait for in all that time ends.
"""


def monotonic_clock(reactor: Any) -> IReactorTime:
    """
    A clock for durations: the reactor itself, if its clock is monotonic.
    """
    if reactor.seconds is time.monotonic:
        clock: IReactorTime = reactor
        return clock
    return MonotonicClock(reactor)


class MonotonicClock(Clock):
    """
    Schedules calls by the monotonic clock; a reactor makes them.
    """

    def __init__(self, reactor: Any) -> None:
        """
        Args:
            reactor: Makes the scheduled calls.
        """
        super().__init__()
        self._alarm = Alarm(lambda: reactor.callFromThread(self._look))

    def seconds(self) -> float:
        return time.monotonic()

    def callLater(
        self,
        delay: float,
        callable: Callable[..., object],
        *args: object,
        **kw: object,
    ) -> IDelayedCall:
        call = super().callLater(delay, callable, *args, **kw)
        self._alarm.set(self.calls[0].getTime())
        return call

    def _look(self) -> None:
        try:
            self.advance(0)
        finally:
            if self.calls:
                self._alarm.set(self.calls[0].getTime())


class Alarm:
    """
    Calls a function at a given moment, in a thread that does not keep the process
    alive.
    """

    def __init__(self, ring: Callable[[], object]) -> None:
        """
        Args:
            ring: Called in the thread.
        """
        self._ring = ring
        self._changed = threading.Condition()
        self._at: float | None = None
        self._runs = False

    def set(self, at: float) -> None:
        """
        Ring at a moment of the monotonic clock, unless an earlier one is set.
        """
        with self._changed:
            if self._at is not None and self._at <= at:
                return
            self._at = at
            if self._runs:
                self._changed.notify()
                return
            self._runs = True
        threading.Thread(target=self._run, name="kvd client", daemon=True).start()

    def _run(self) -> None:
        while self._wait():
            self._ring()

    def _wait(self) -> bool:
        """
        Wait until the alarm is due.

        Returns:
            Whether it is due; else the thread has nothing to do.
        """
        with self._changed:
            while True:
                if self._at is None:
                    self._changed.wait(IDLE_SECONDS)
                    if self._at is None:
                        self._runs = False
                        return False
                seconds = self._at - time.monotonic()
                if seconds <= 0:
                    self._at = None
                    return True
                self._changed.wait(seconds)
