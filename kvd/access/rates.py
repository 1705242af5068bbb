"""
How often a user or an address may ask: requests per second, over all workers.

Each has a slot in memory that all workers share, with the moment at which all that it
asked would have been due, had it asked evenly (the generic cell rate algorithm of ATM).
A request is refused if that is more than a burst ahead of now. The burst is what may be
asked in a second.

`kvd.access.counting` has the memory. A name whose slot is given to another begins anew.
"""

from __future__ import annotations

import math
from typing import Final

from twisted.internet.interfaces import IReactorTime

from kvd.access.counting import CountingMemory
from kvd.errors import TooManyRequests

BURST_NANOSECONDS: Final = 10**9

_NANOSECONDS: Final = 1e9


class Rates:
    """
    Counts requests.
    """

    def __init__(self, memory: CountingMemory) -> None:
        """
        Args:
            memory: In which all processes count.
        """
        # A slot has the hash of its name, and the moment.
        self._table: Final = memory.rates

    def check(self, name: str, per_second: float, clock: IReactorTime) -> None:
        """
        Count a request.

        Args:
            name: Who asks, for a sentence.
            per_second: How often that may be.
            clock: Monotonic.

        Raises:
            TooManyRequests: There were too many; this one is not counted.
        """
        wait_seconds = self.wait_seconds(name, per_second, clock.seconds())
        if wait_seconds:
            raise TooManyRequests(
                f"{name} may send {per_second:g} requests per second: try again later.",
                max(1, math.ceil(wait_seconds)),
            )

    def wait_seconds(self, name: str, per_second: float, now: float) -> float:
        """
        Count a request.

        Args:
            name: Who asks.
            per_second: How often that may be.
            now: In seconds, by the monotonic clock.

        Returns:
            0, or in how many seconds it may be asked again; then it is not counted.
        """
        tag, slot = self._table.slot(name)
        words, now_ns = self._table.words, int(now * _NANOSECONDS)
        due = max(words[slot + 1], now_ns) if words[slot] == tag else now_ns
        ahead_ns = due - now_ns
        step_ns = int(_NANOSECONDS / per_second)
        # Of a rate such as 3, the steps are not all of a second.
        beyond_ns = ahead_ns + step_ns - BURST_NANOSECONDS
        if beyond_ns > 0:
            return beyond_ns / _NANOSECONDS
        words[slot] = tag
        words[slot + 1] = due + step_ns
        return 0.0
