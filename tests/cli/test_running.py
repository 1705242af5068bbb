"""
Tests for `kvd.cli.running`.
"""

from __future__ import annotations

import gc

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from kvd.cli.running import each


class EachTests(SynchronousTestCase):
    """
    `each` works on several things at once.
    """

    def test_what_is_closed_may_still_get_what_it_waited_for(self) -> None:
        """
        It cleans up, works no more, and nothing is logged.
        """
        waits: list[Deferred[None]] = []
        done: list[str] = []

        async def work(thing: str) -> None:
            waits.append(Deferred())
            try:
                await waits[-1]
                done.append(thing)
            except GeneratorExit:
                done.append(f"not {thing}")
                raise

        working = each("abc", work, lambda thing, error: thing, jobs=2)
        waiting = working.send(None)
        assert isinstance(waiting, Deferred)

        working.close()
        assert ["not a", "not b"] == done
        while waits:
            waits.pop().callback(None)

        assert ["not a", "not b"] == done
        # An error that nobody handled is logged as its Deferred is freed.
        del waiting, working
        gc.collect()
        assert [] == self.flushLoggedErrors()
