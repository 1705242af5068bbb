"""
Slows down whoever fails to prove who it is, by network address.

Each address that has failed a few times waits before its next attempt, twice as long
after each failure. Attempts that wait do so one behind the other, so ten at once gain
nothing, also if they come to several processes. Durations are measured by the monotonic
clock, which all processes share, and the table forgets.

A process verifies one password after the other. Of those that are due, the next one is
of an address that has logged in before, if there is one, then of the address that has
failed least. What waits at a process is bounded, for an address and for all together.
Where there is no more room, the attempt that would be the last one is refused for one
that would come before it: whoever guesses from however many addresses refuses nobody
who has failed less. A refusal does not come at once: whoever tries again and again
would keep a process busy with refusals.

Tokens that exist never wait. Passwords that any process has verified before do not
either, except from an address that is being slowed down and has never logged in
(`Throttle.is_slowed`): there they are attempts like all others, or whoever guesses and
gives up each guess that is not answered at once would learn them. Behind an address
that has logged in there may be a whole company.
"""

from __future__ import annotations

import math
from collections import Counter
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.access.counting import CountingMemory
from kvd.access.logins import Logins
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


Rank = tuple[bool, int, int]
"""
Which of several attempts comes first, the least: whether nobody has logged in from its
address, how often that has failed, and its number.
"""


class Attempt:
    """
    An attempt to log in, from its begin to its end.
    """

    __slots__ = ("network", "rank", "timer", "turn", "verifies")

    def __init__(self, network: str, rank: Rank, *, verifies: bool) -> None:
        self.network = network
        self.rank = rank
        self.verifies = verifies
        self.turn: Deferred[None] | None = Deferred()
        """Fires when it may go on; fails with `TooManyRequests` if it makes room for
        another, and is over. None: it goes on at once."""
        self.timer: Any = None

    def __lt__(self, other: Attempt) -> bool:
        return self.rank < other.rank


class Throttle:
    """
    The attempts of all addresses.
    """

    def __init__(self, clock: IReactorTime, memory: CountingMemory) -> None:
        """
        Args:
            clock: Monotonic.
            memory: In which all processes count failures, and know who has logged in.
        """
        self._clock = clock
        # A slot has the hash of the address, then what `_Failures` has.
        self._table = memory.failures
        self._logins = Logins(memory)
        self._numbers = count()
        self._attempts: Counter[str] = Counter()
        """How many of each address wait or are being verified, at this process."""
        self._attempts_in_all = 0
        self._waiting: set[Attempt] = set()
        """Those that do not go on yet."""
        self._due: list[Attempt] = []
        """A heap of those among them that only wait for others to be verified."""
        self._is_verifying = False
        self._refusals: dict[str, float] = {}
        """When the last refusal of each address is due."""

    def begin(self, network: str, *, verifies: bool) -> Attempt:
        """
        An attempt that may fail. `end` must be called for it when it went on.

        Args:
            network: Where it comes from.
            verifies: Whether it is a password to be verified, which only one attempt
                can be at a time.

        Raises:
            TooManyRequests: Too many wait already.
        """
        now = self._clock.seconds()
        failures = self._failures(network, now)
        rank = (
            not self._logins.has_address(network),
            failures.number,
            next(self._numbers),
        )
        if (
            self._attempts[network] >= MOST_ATTEMPTS
            or failures.next - now > MOST_WAIT_SECONDS
            or not self._has_room(rank)
        ):
            raise _too_many(failures.next - now)
        self._attempts[network] += 1
        self._attempts_in_all += 1
        begins = max(now, failures.next)
        if failures.number:
            following = begins + failures.delay_seconds
            self._store(network, failures._replace(next=following))
        # Of an address without failures `next` is now, if not earlier.
        attempt = Attempt(network, rank, verifies=verifies)
        self._waiting.add(attempt)
        if begins > now:
            attempt.timer = self._clock.callLater(
                begins - now, self._is_due_now, attempt
            )
        elif self._may_go_on(attempt):
            attempt.turn = None
        return attempt

    def is_slowed(self, network: str) -> bool:
        """
        Whether attempts from an address have to wait, for whatever it is told of them.

        Those that this process has not answered yet count like failures: who gives up
        an attempt, or has it refused, gains no other one by that.
        """
        if network in self._refusals:
            return True
        failures = self._failures(network, self._clock.seconds())
        return failures.number + self._attempts[network] >= FREE_FAILURES

    def _has_room(self, rank: Rank) -> bool:
        if self._attempts_in_all < MOST_ATTEMPTS_IN_ALL:
            return True
        last = max(self._waiting, default=None, key=lambda attempt: attempt.rank)
        if last is None or last.rank < rank:
            return False
        self._waiting.remove(last)
        if last in self._due:
            self._due.remove(last)
            heapify(self._due)
        else:
            last.timer.cancel()
        self._forget(last)
        assert last.turn is not None
        last.turn.errback(_too_many(last.rank[1] * FIRST_DELAY_SECONDS))
        return True

    def _is_due_now(self, attempt: Attempt) -> None:
        if self._may_go_on(attempt):
            assert attempt.turn is not None
            attempt.turn.callback(None)

    def _may_go_on(self, attempt: Attempt) -> bool:
        """
        It is due: whether it goes on, or waits until others are verified.
        """
        if attempt.verifies:
            if self._is_verifying:
                heappush(self._due, attempt)
                return False
            self._is_verifying = True
        self._waiting.remove(attempt)
        return True

    def _verify_next(self) -> None:
        self._is_verifying = False
        if self._due:
            self._is_due_now(heappop(self._due))

    def _forget(self, attempt: Attempt) -> None:
        self._attempts_in_all -= 1
        self._attempts[attempt.network] -= 1
        if not self._attempts[attempt.network]:
            del self._attempts[attempt.network]

    def refuse(self, network: str, error: BaseException) -> Deferred[Any]:
        """
        Fails with what `begin` has raised, or a verification, after a while, and behind
        the refusals of the same address that are due before.
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

    def end(self, attempt: Attempt, *, failed: bool) -> None:
        """
        An attempt that went on is over.
        """
        self._forget(attempt)
        if failed:
            now = self._clock.seconds()
            before = self._failures(attempt.network, now)
            failures = _Failures(before.number + 1, now, before.next)
            following = max(failures.next, now + failures.delay_seconds)
            self._store(attempt.network, failures._replace(next=following))
        if attempt.verifies:
            self._verify_next()

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


def _too_many(seconds: float) -> TooManyRequests:
    return TooManyRequests(
        "Too many attempts to log in are waiting, from this address or in all; try"
        " again later.",
        max(1, math.ceil(seconds)),
    )
