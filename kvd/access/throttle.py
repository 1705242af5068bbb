"""
Slows down whoever fails to prove who it is, by network address.

Each address that has failed a few times waits before its next attempt, twice as long
after each failure. Attempts that wait do so one behind the other, so ten at once gain
nothing, also if they come to several processes. What waits at a process is bounded, for
an address and for all together; what comes beyond is refused, but not at once either:
whoever tries again and again would keep a process busy with refusals. Durations are
measured by the monotonic clock, which all processes share, and the table forgets.

Credentials that were verified before, and tokens that exist, never wait: behind one
address there may be a whole company.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.access.counting import CountingMemory
from kvd.errors import TooManyRequests

FREE_FAILURES: Final = 5
FIRST_DELAY_SECONDS: Final = 0.1
MOST_DELAY_SECONDS: Final = 5.0
FORGET_SECONDS: Final = 600.0
"""
How long after its last failure an address is forgotten.
"""

MOST_ATTEMPTS: Final = 32
"""
Of one address at the same time.
"""

MOST_ATTEMPTS_IN_ALL: Final = 128

MOST_WAIT_SECONDS: Final = 20.0
"""
Clients that are refused can do something else meanwhile.
"""

REFUSAL_SECONDS: Final = 1.0
"""
How long one that is refused waits for that, at least.
"""

REFUSAL_GAP_SECONDS: Final = 0.1
"""
Between two refusals of one address at this process: a refusal takes some 0.3
milliseconds of processor time, so with any number of connections that guess, those of
one address take 0.3 percent of a processor.
"""

MOST_REFUSAL_SECONDS: Final = 60.0
"""
The longest that one waits for its refusal.
"""

_NANOSECONDS: Final = 1e9


class _Failures(NamedTuple):
    """
    What is known of an address. Dates are in seconds.
    """

    number: int = 0
    last: float = 0.0
    next: float = 0.0
    """When the next attempt may begin."""

    @property
    def delay_seconds(self) -> float:
        """
        How long after an attempt the next one begins.
        """
        beyond = self.number - FREE_FAILURES
        if beyond < 0:
            return 0.0
        # The exponent is bounded, or the number would be too large for a float.
        return min(FIRST_DELAY_SECONDS * 2.0 ** min(beyond, 32), MOST_DELAY_SECONDS)


class Throttle:
    """
    The attempts of all addresses.
    """

    def __init__(self, clock: IReactorTime, memory: CountingMemory) -> None:
        """
        Args:
            clock: Monotonic.
            memory: In which all processes count failures.
        """
        self._clock = clock
        # A slot has the hash of the address, then what `_Failures` has.
        self._table = memory.failures
        self._attempts: Counter[str] = Counter()
        """How many of each address wait or are being verified, at this process."""
        self._attempts_in_all = 0
        self._refusals: dict[str, float] = {}
        """When the last refusal of each address is due."""

    def begin(self, network: str) -> Deferred[None] | None:
        """
        An attempt that may fail. `end` must be called for it, unless this raises.

        Returns:
            Fires when it may go on; None: at once.

        Raises:
            TooManyRequests: Too many wait already.
        """
        now = self._clock.seconds()
        failures = self._failures(network, now)
        if (
            self._attempts[network] >= MOST_ATTEMPTS
            or self._attempts_in_all >= MOST_ATTEMPTS_IN_ALL
            or failures.next - now > MOST_WAIT_SECONDS
        ):
            raise TooManyRequests(
                "Too many attempts to log in are waiting, from this address or in all;"
                " try again later.",
                max(1, math.ceil(failures.next - now)),
            )
        self._attempts[network] += 1
        self._attempts_in_all += 1
        begins = max(now, failures.next)
        if failures.number:
            following = begins + failures.delay_seconds
            self._store(network, failures._replace(next=following))
        # Of an address without failures `next` is now, if not earlier.
        return deferLater(self._clock, begins - now) if begins > now else None

    def refuse(self, network: str, error: TooManyRequests) -> Deferred[Any]:
        """
        Fails with what `begin` has raised, after a while, and behind the refusals of
        the same address that are due before.
        """
        now = self._clock.seconds()
        behind = self._refusals.get(network, 0.0) + REFUSAL_GAP_SECONDS
        due = min(max(now + REFUSAL_SECONDS, behind), now + MOST_REFUSAL_SECONDS)
        self._refusals[network] = due

        def refuse() -> None:
            if self._refusals.get(network) == due:
                del self._refusals[network]
            raise error

        return deferLater(self._clock, due - now, refuse)

    def end(self, network: str, *, failed: bool) -> None:
        """
        An attempt is over.
        """
        self._attempts_in_all -= 1
        self._attempts[network] -= 1
        if not self._attempts[network]:
            del self._attempts[network]
        if failed:
            now = self._clock.seconds()
            before = self._failures(network, now)
            failures = _Failures(before.number + 1, now, before.next)
            following = max(failures.next, now + failures.delay_seconds)
            self._store(network, failures._replace(next=following))

    def _failures(self, network: str, now: float) -> _Failures:
        tag, slot = self._table.slot(network)
        found, last, number, following = self._table.words[slot : slot + 4].tolist()
        failures = _Failures(number, last / _NANOSECONDS, following / _NANOSECONDS)
        if found != tag:
            return _Failures()
        waits = self._attempts[network] or failures.next > now
        if not waits and now - failures.last > FORGET_SECONDS:
            return _Failures()
        return failures

    def _store(self, network: str, failures: _Failures) -> None:
        words = self._table.words
        tag, slot = self._table.slot(network)
        words[slot + 2] = failures.number
        words[slot + 3] = round(failures.next * _NANOSECONDS)
        words[slot + 1] = round(failures.last * _NANOSECONDS)
        words[slot] = tag
