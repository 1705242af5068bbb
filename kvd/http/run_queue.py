"""
Time slices of connections that have sent more than can be done at once.

One read may bring thousands of chunks or requests, and a client that sends them without
end has more of them ready whenever the reactor looks. So a connection goes on until its
time slice is over, then waits in a queue of all such, and reads once more at most. In
each turn of the reactor the queue gets a bounded time, and whoever was not reached is
first in the next; the rest of the turn belongs to connections that have just sent
something. So a normal request waits for some milliseconds, however many clients make
work at full speed.

A slice also ends with the time that a turn of the reactor may last. Where that is over,
because many connections had something to do, each of the others still gets one step:
the rest of a request, or some chunks.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kvd.dispatch.scoreboard import Row

SLICE_SECONDS: Final = 0.001
"""
What a connection gets, and a step more.
"""

QUEUE_SECONDS: Final = 0.002
"""
What all that are in the queue get in one turn of the reactor, and a step more.
"""

TURN_SECONDS: Final = 0.02
"""
After so long, whoever has something to do in this turn of the reactor gets one step.
"""


class RunQueue:
    """
    Those connections of a process that wait for their next time slice.
    """

    def __init__(
        self,
        call_later: Callable[[float, Callable[[], None]], object],
        row: Row,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            call_later: See `IReactorTime.callLater`.
            row: Knows when the present turn of the reactor began.
            seconds: Tells how long something takes.
        """
        self._call_later = call_later
        self._row = row
        self.seconds = seconds
        # In the order of their turns; a set would forget that.
        self._waiting: dict[Callable[[], None], None] = {}
        self._is_called = False

    def slice_end(self) -> float:
        """
        When a time slice is over that begins now, by `seconds`.
        """
        end = self.seconds() + SLICE_SECONDS
        turn_began = self._row.turn
        return min(end, turn_began * 1e-9 + TURN_SECONDS) if turn_began else end

    def add(self, run: Callable[[], None]) -> None:
        """
        Have something done for one time slice, in a turn of the reactor to come and
        after whatever else waits. If it does not end with that, it adds itself again.
        """
        self._waiting[run] = None
        self._call()

    def discard(self, run: Callable[[], None]) -> None:
        """
        Do nothing any more, if it was to be done.
        """
        self._waiting.pop(run, None)

    def _call(self) -> None:
        if not self._is_called:
            self._is_called = True
            self._call_later(0, self._run)

    def _run(self) -> None:
        self._is_called = False
        end = self.seconds() + QUEUE_SECONDS
        try:
            # Whoever comes back has had its slice of this turn.
            for _ in range(len(self._waiting)):
                if not self._waiting:
                    break
                run = next(iter(self._waiting))
                del self._waiting[run]
                run()
                if self.seconds() >= end:
                    break
        finally:
            if self._waiting:
                self._call()
