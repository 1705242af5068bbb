"""
Slows down whoever fails to prove who it is, by network address.

Each address that has failed a few times waits before its next attempt, twice as long
after each failure. Attempts that wait do so in a line: only the first of a line has its
turn, and the next one gets its own when that has ended, so each failure delays all that
are behind it, and ten at once gain nothing. Each process has a line for an address.
Their turns follow each other, whichever process they are at, and a turn is put off if
an attempt at another process has failed since it was given. Durations are measured by
the monotonic clock, which all processes share, and the table forgets.

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
from collections import deque
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from kvd.access.counting import CountingMemory
from kvd.access.logins import Logins
from kvd.errors import RefusedLater, TooManyRequests

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
milliseconds of processor time, so those of one address take 0.3 percent of a processor.
With more than 600 connections that guess, each has one a minute
(`MOST_REFUSAL_SECONDS`): of 10,000, they take 5 percent.
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
    """When the next attempt may begin that has no turn yet."""

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


Rank = tuple[bool, int]
"""
Which address comes first, the least: whether nobody has logged in from there, and how
often it has failed.
"""


class Attempt:
    """
    An attempt to log in, from its begin to its end.
    """

    __slots__ = ("began", "goes_on", "network", "turn", "verifies")

    def __init__(self, network: str, began: float, *, verifies: bool) -> None:
        self.network = network
        self.began = began
        self.verifies = verifies
        self.goes_on = False
        """Whether its turn has come."""
        self.turn: Deferred[None] = Deferred()
        """Fires when its turn comes; fails with `TooManyRequests` if it is refused, and
        is over."""


class _Line:
    """
    The attempts of an address at this process. It has no time of its own for those
    behind the first one: how long they wait is known when that has ended.
    """

    __slots__ = ("behind", "delay_seconds", "first", "network", "rank", "timer")

    def __init__(self, network: str) -> None:
        self.network = network
        self.rank: Rank = (True, 0)
        self.first: Attempt | None = None
        """It waits for its turn, waits for other addresses, or goes on."""
        self.behind: deque[Attempt] = deque()
        self.timer: IDelayedCall | None = None
        """Of the turn of the first one."""
        self.delay_seconds = 0.0
        """How long after it the next attempt of any process begins, as far as was known
        when its turn was reserved."""

    def __len__(self) -> int:
        return len(self.behind) + (self.first is not None)

    @property
    def last_waiting(self) -> Attempt | None:
        """
        The last one that does not go on yet.
        """
        if self.behind:
            return self.behind[-1]
        return None if self.first is None or self.first.goes_on else self.first


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
        self._lines: dict[str, _Line] = {}
        """Of each address that has attempts here."""
        self._attempts_in_all = 0
        self._due: list[_Line] = []
        """Those whose first attempt only waits for others to be verified."""
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
        line = self._lines.get(network)
        if line is None:
            line = _Line(network)
        line.rank = self._rank(network, failures)
        seconds = failures.next - now + len(line.behind) * failures.delay_seconds
        if (
            len(line) >= MOST_ATTEMPTS
            or seconds > MOST_WAIT_SECONDS
            or not self._has_room(line.rank)
        ):
            raise _too_many(seconds)
        self._lines[network] = line
        self._attempts_in_all += 1
        attempt = Attempt(network, now, verifies=verifies)
        line.behind.append(attempt)
        if line.first is None:
            self._advance(line)
        return attempt

    def end(self, attempt: Attempt, *, failed: bool) -> None:
        """
        An attempt that went on is over.
        """
        line = self._lines[attempt.network]
        now = self._clock.seconds()
        failures = self._failures(attempt.network, now)
        if failed:
            failures = _Failures(failures.number + 1, now, failures.next)
            following = max(failures.next, now + failures.delay_seconds)
            failures = failures._replace(next=following)
            self._store(attempt.network, failures)
        line.rank = self._rank(attempt.network, failures)
        line.first = None
        self._attempts_in_all -= 1
        self._advance(line)
        if attempt.verifies:
            self._verify_next()

    def is_slowed(self, network: str) -> bool:
        """
        Whether attempts from an address have to wait, for whatever it is told of them.

        Those that this process has not answered yet count like failures: who gives up
        an attempt, or has it refused, gains no other one by that.
        """
        if network in self._refusals:
            return True
        failures = self._failures(network, self._clock.seconds())
        unanswered = len(self._lines.get(network, ()))
        return failures.number + unanswered >= FREE_FAILURES

    # -- turns ----------------------------------------------------------------

    def _advance(self, line: _Line) -> None:
        """
        None of its attempts is the first one any more: the next one is.
        """
        now = self._clock.seconds()
        failures = self._failures(line.network, now)
        begins = max(now, failures.next)
        while line.behind and begins - line.behind[0].began > MOST_WAIT_SECONDS:
            self._refuse(line.behind.popleft(), begins - now)
        if not line.behind:
            del self._lines[line.network]
            return
        line.first, line.delay_seconds = line.behind.popleft(), failures.delay_seconds
        if line.delay_seconds:
            following = begins + line.delay_seconds
            self._store(line.network, failures._replace(next=following))
        if begins > now:
            line.timer = self._clock.callLater(begins - now, self._turn_came, line)
        else:
            self._go_on_if_free(line)

    def _turn_came(self, line: _Line) -> None:
        line.timer = None
        failures = self._failures(line.network, self._clock.seconds())
        if failures.delay_seconds > line.delay_seconds:
            # An attempt at another process has failed meanwhile.
            assert line.first is not None
            line.behind.appendleft(line.first)
            line.first = None
            self._advance(line)
        else:
            self._go_on_if_free(line)

    def _go_on_if_free(self, line: _Line) -> None:
        assert line.first is not None
        if line.first.verifies and self._is_verifying:
            self._due.append(line)
        else:
            self._go_on(line.first)

    def _go_on(self, attempt: Attempt) -> None:
        attempt.goes_on = True
        if attempt.verifies:
            self._is_verifying = True
        attempt.turn.callback(None)

    def _verify_next(self) -> None:
        self._is_verifying = False
        if self._due:
            # Of equals, the one that is due for longest.
            line = min(self._due, key=lambda line: line.rank)
            self._due.remove(line)
            assert line.first is not None
            self._go_on(line.first)

    # -- room -----------------------------------------------------------------

    def _rank(self, network: str, failures: _Failures) -> Rank:
        return not self._logins.has_address(network), failures.number

    def _has_room(self, rank: Rank) -> bool:
        if self._attempts_in_all < MOST_ATTEMPTS_IN_ALL:
            return True
        waiting = [
            (line.rank, last.began, line.network)
            for line in self._lines.values()
            if (last := line.last_waiting) is not None
        ]
        last_rank, _, network = max(waiting, default=((False, 0), 0.0, ""))
        if last_rank <= rank:
            return False
        self._drop_last(self._lines[network])
        return True

    def _drop_last(self, line: _Line) -> None:
        attempt = line.last_waiting
        assert attempt is not None
        if line.behind:
            line.behind.pop()
        else:
            if line.timer is not None:
                line.timer.cancel()
            else:
                self._due.remove(line)
            del self._lines[line.network]
        now = self._clock.seconds()
        self._refuse(attempt, self._failures(line.network, now).next - now)

    def _refuse(self, attempt: Attempt, seconds: float) -> None:
        self._attempts_in_all -= 1
        attempt.turn.errback(_too_many(seconds))

    def refusal(self, network: str, reason: BaseException) -> RefusedLater:
        """
        What refuses an attempt for what `begin` has raised, or a verification: after a
        while, and behind the refusals of the same address that are due before. Its
        address is slowed down until then, also if nobody waits for it.
        """
        now = self._clock.seconds()
        behind = self._refusals.get(network, 0.0) + REFUSAL_GAP_SECONDS
        due = min(max(now + REFUSAL_SECONDS, behind), now + MOST_REFUSAL_SECONDS)
        is_watched = network in self._refusals
        self._refusals[network] = due
        if not is_watched:
            self._forget_refusals(network)
        return RefusedLater(reason, due - now)

    def _forget_refusals(self, network: str) -> None:
        # One timer for each address, not for each refusal: whoever hangs up leaves
        # nothing else.
        seconds = self._refusals[network] - self._clock.seconds()
        if seconds > 0:
            self._clock.callLater(seconds, self._forget_refusals, network)
        else:
            del self._refusals[network]

    # -- what all processes know ----------------------------------------------

    def _failures(self, network: str, now: float) -> _Failures:
        tag, slot = self._table.slot(network)
        found, last, number, following = self._table.words[slot : slot + 4].tolist()
        failures = _Failures(number, last / _NANOSECONDS, following / _NANOSECONDS)
        if found != tag:
            return _Failures()
        waits = network in self._lines or failures.next > now
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
