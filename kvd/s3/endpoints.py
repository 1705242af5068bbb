"""
The endpoints of an engine, and the choice among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from twisted.internet.interfaces import IReactorTime

FIRST_PAUSE_SECONDS: Final = 10.0
LONGEST_PAUSE_SECONDS: Final = 60.0
"""
At least half of each, so that a check comes before the next request
(`kvd.s3.health.CHECK_SECONDS`).
"""


SETTLE_SECONDS: Final = 30.0
"""
How long an endpoint that could not be reached is not chosen after it answers again, if
there is another. A node of SeaweedFS that returns serves what it had, until it has
heard what was changed meanwhile: a value that was replaced, or none where there is one.
"""


class Endpoint:
    """
    A gateway of the engine.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.active = 0
        """How many requests it is serving."""
        self.failures = 0
        """How often it failed since it last answered."""
        self.down_until = 0.0
        self.was_away = False
        """Whether it could not be reached since it last answered."""
        self.settled_at = 0.0

    def is_settled(self, now: float) -> bool:
        """
        Whether it has answered for long enough.
        """
        return not self.was_away and self.settled_at <= now


class Endpoints:
    """
    Chooses the endpoint with the fewest requests, in turn where they have as many. One
    that failed is left alone for a time that grows with each failure, and one that
    could not be reached for some time after that, unless this is so of all.
    """

    def __init__(
        self, urls: Sequence[str], clock: IReactorTime, random: Random
    ) -> None:
        self.all = [Endpoint(url) for url in urls]
        self._clock = clock
        self._random = random
        self._turn = 0

    def choose(self, preferred: Endpoint | None = None) -> Endpoint:
        """
        The endpoint for the next request.

        Args:
            preferred: Chosen unless it failed.
        """
        now = self._clock.seconds()
        if preferred is not None and preferred.down_until <= now:
            return preferred
        self._turn = (self._turn + 1) % len(self.all)
        rotated = self.all[self._turn :] + self.all[: self._turn]
        able = [each for each in rotated if each.down_until <= now]
        if not able:
            return min(rotated, key=lambda each: each.down_until)
        settled = [each for each in able if each.is_settled(now)]
        return min(settled or able, key=lambda each: each.active)

    def failed(self, endpoint: Endpoint, *, away: bool = True) -> None:
        """
        An endpoint failed.

        Args:
            away: Whether it could not be reached, or did not answer.
        """
        endpoint.was_away = endpoint.was_away or away
        # Bounded, because a float has a largest exponent.
        pause = FIRST_PAUSE_SECONDS * 2.0 ** min(endpoint.failures, 10)
        pause = min(pause, LONGEST_PAUSE_SECONDS) * self._random.uniform(0.5, 1.0)
        endpoint.failures += 1
        endpoint.down_until = self._clock.seconds() + pause

    def worked(self, endpoint: Endpoint) -> None:
        """
        An endpoint has answered.
        """
        endpoint.failures = 0
        endpoint.down_until = 0.0
        if endpoint.was_away:
            endpoint.was_away = False
            endpoint.settled_at = self._clock.seconds() + SETTLE_SECONDS
