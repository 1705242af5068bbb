"""
The timeout of a wait for a server, and what happens to a wait that is given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 120.0
"""
Longer than a busy disk needs for the last sync of a large value, and shorter than a
person is willing to wait.
"""


class Silence(Exception):
    """
    No byte has moved until the timeout.
    """


class Timeout:
    """
    Waits for a server until no byte has moved for some time.
    """

    def __init__(self, clock: IReactorTime, seconds: float) -> None:
        """
        Args:
            clock: Measures the time.
            seconds: The longest time without a byte.
        """
        self._clock = clock
        self.seconds = seconds

    def wait_for(
        self,
        asked: Deferred[T],
        progress: Callable[[], object] = lambda: None,
        late: Callable[[T], object] = lambda result: None,
    ) -> Deferred[T]:
        """
        The result of a call, or `Silence`.

        A wait that is cancelled ends with `CancelledError` at once, however the call
        responds to its own cancellation.

        Args:
            asked: The call; cancelled when the wait is given up.
            progress: Returns another value whenever a byte has moved.
            late: Gets a result that comes after the end of the wait.
        """
        return _Wait(self._clock, self.seconds, asked, progress, late).result


class _Wait(Generic[T]):
    """
    One wait.
    """

    def __init__(
        self,
        clock: IReactorTime,
        seconds: float,
        asked: Deferred[T],
        progress: Callable[[], object],
        late: Callable[[T], object],
    ) -> None:
        self.result: Deferred[T] = Deferred(lambda _: self._give_up())
        self._clock = clock
        self._seconds = seconds
        self._asked = asked
        self._progress = progress
        self._late = late
        self._given_up = False
        self._seen = progress()
        self._timer: IDelayedCall = clock.callLater(seconds, self._look)
        asked.addCallbacks(self._came, self._failed)

    def _look(self) -> None:
        now = self._progress()
        if now != self._seen:
            self._seen = now
            self._timer = self._clock.callLater(self._seconds, self._look)
            return
        self._give_up()
        self.result.errback(Silence())

    def _give_up(self) -> None:
        self._given_up = True
        self._stop_timer()
        self._asked.cancel()

    def _stop_timer(self) -> None:
        if self._timer.active():
            self._timer.cancel()

    def _came(self, result: T) -> None:
        if self._given_up:
            self._late(result)
            return
        self._stop_timer()
        self.result.callback(result)

    def _failed(self, failure: Failure) -> None:
        # The failure of a call that was cancelled here is nothing new.
        if not self._given_up:
            self._stop_timer()
            self.result.errback(failure)
