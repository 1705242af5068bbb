"""
Slows down whoever fails to prove who it is, by network address.

Each address that has failed a few times waits before its next attempt, twice as long
after each failure. Attempts that wait do so one behind the other, so ten at once gain
nothing. What waits is bounded, for an address and for all together; what comes beyond
is refused at once. Durations are measured by the monotonic clock, and the table
forgets.

Credentials that were verified before, and tokens that exist, never wait: behind one
address there may be a whole company.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.errors import TooManyRequests

FREE_FAILURES: Final = 5
FIRST_DELAY_SECONDS: Final = 0.1
MOST_DELAY_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 600.0
"""
How long after its last failure an address is forgotten.
"""

MOST_ADDRESSES: Final = 4096
MOST_ATTEMPTS: Final = 32
"""
Of one address at the same time.
"""

MOST_ATTEMPTS_IN_ALL: Final = 128

MOST_WAIT_SECONDS: Final = 20.0
"""
Clients that are refused at once can do something else meanwhile.
"""


class _Record:
    """
    What is known of an address.
    """

    __slots__ = ("attempts", "failures", "last", "next")

    def __init__(self) -> None:
        self.failures = 0
        self.last = 0.0
        self.next = 0.0
        """When the next attempt may begin."""
        self.attempts = 0
        """How many wait or are being verified."""


class Throttle:
    """
    The attempts of all addresses of a process.
    """

    def __init__(self, clock: IReactorTime) -> None:
        """
        Args:
            clock: Monotonic.
        """
        self._clock = clock
        self._records: OrderedDict[str, _Record] = OrderedDict()
        self._attempts = 0

    def begin(self, network: str) -> Deferred[None] | None:
        """
        An attempt that may fail. `end` must be called for it, unless this raises.

        Returns:
            Fires when it may go on; None: at once.

        Raises:
            TooManyRequests: Too many wait already.
        """
        now = self._clock.seconds()
        record = self._record(network, now)
        if (
            record.attempts >= MOST_ATTEMPTS
            or self._attempts >= MOST_ATTEMPTS_IN_ALL
            or record.next - now > MOST_WAIT_SECONDS
        ):
            raise TooManyRequests(
                "Too many attempts to log in are waiting, from this address or in all;"
                " try again later.",
                max(1, math.ceil(record.next - now)),
            )
        record.attempts += 1
        self._attempts += 1
        begins = max(now, record.next)
        record.next = begins + self._delay(record)
        # Of an address without failures `next` is now, if not earlier.
        return deferLater(self._clock, begins - now) if begins > now else None

    def end(self, network: str, *, failed: bool) -> None:
        """
        An attempt is over.
        """
        self._attempts -= 1
        record = self._records[network]
        record.attempts -= 1
        if failed:
            now = self._clock.seconds()
            record.failures += 1
            record.last = now
            record.next = max(record.next, now + self._delay(record))
        elif not record.attempts and not record.failures:
            del self._records[network]

    @staticmethod
    def _delay(record: _Record) -> float:
        beyond = record.failures - FREE_FAILURES
        if beyond < 0:
            return 0.0
        # The exponent is bounded, or the number would be too large for a float.
        return min(FIRST_DELAY_SECONDS * 2.0 ** min(beyond, 32), MOST_DELAY_SECONDS)

    def _record(self, network: str, now: float) -> _Record:
        record = self._records.pop(network, None)
        if record is None or (
            not record.attempts and now - record.last > FORGET_SECONDS
        ):
            record = _Record()
            self._make_room()
        self._records[network] = record
        return record

    def _make_room(self) -> None:
        while len(self._records) >= MOST_ADDRESSES:
            # Those with attempts stay; there are fewer of them than records.
            oldest = next(n for n, r in self._records.items() if not r.attempts)
            del self._records[oldest]
