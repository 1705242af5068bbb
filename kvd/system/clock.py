"""
Durations are measured by the monotonic clock, which nobody can set.

Twisted's reactors go by the time of day. If that is set back by an hour, no timeout
fires for an hour; if it is set forward, all fire at once. kvd's own reactors go by the
monotonic clock, and so does twistd's while it runs kvd. The time of day is read where a
date is shown or sent, and nowhere else.
"""

from __future__ import annotations

import time
from typing import Any


def measure_monotonically(reactor: Any) -> None:
    """
    Switch a reactor that Twisted has made to the monotonic clock.

    Calls that are scheduled already keep their moment.

    Args:
        reactor: The reactor of this process, running or not.
    """
    if reactor.seconds is time.monotonic:
        return
    ahead = time.monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        # All are moved by the same amount, so their order stays.
        call.time += ahead
        call.seconds = time.monotonic
    reactor.seconds = time.monotonic
