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


class Endpoints:
    """
    Chooses the endpoint with the fewest requests, in turn where they have as many. One
    that failed is left alone for a time that grows with each failure, unless all have
    failed.
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
        return min(able, key=lambda each: each.active)

    def failed(self, endpoint: Endpoint) -> None:
        """
        An endpoint did not answer.
        """
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
