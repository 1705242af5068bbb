"""
Durations are measured by a clock that nobody can set.

Twisted's reactors tell the time of day. If that is set back by an hour, no timeout
fires for an hour; if it is set forward, all fire at once. kvd's own reactors tell the
monotonic clock instead, and so does twistd's while it runs kvd. The time of day is read
where a date is shown or sent, and nowhere else.
"""

from __future__ import annotations

import time
from typing import Any


def measure_monotonically(reactor: Any) -> None:
    """
    Have a reactor that somebody else has made tell the monotonic clock.

    Calls that it has scheduled already come when they would have come.

    Args:
        reactor: Of this process, and kvd's to change; running or not.
    """
    if reactor.seconds is time.monotonic:
        return
    ahead = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        # All by the same, so their order stays.
        call.time += ahead
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic
