"""
Processes that replace the value of one key in turn, step by step.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from kvd.model.conditions import UNCONDITIONAL
from kvd.model.keys import Key
from kvd.store.file import FileStore
from kvd.store.waiting import OffReactor
from tests.store.stepped import SteppedPool

_TAKEN = -1


class Replacing:
    """
    Some processes, and what a power cut may take from them.

    The values are numbers, each larger than the one before.
    """

    def __init__(
        self,
        key: Key,
        clock: Clock,
        open_store: Callable[[OffReactor], FileStore],
        count: int,
    ) -> None:
        self.key = key
        self.count = count
        self._clock = clock
        self.number = 0
        self.pools = [SteppedPool() for _ in range(count)]
        self.stores = [open_store(pool) for pool in self.pools]
        # For each process, what it published and no sync of it covers yet, in order;
        # and where it has taken what the next sync covers.
        self._uncovered: list[list[int]] = [[] for _ in range(count)]

    def publish(self, which: int) -> None:
        """
        One of them replaces the value.
        """
        self.number += 1
        body = b"%d" % self.number
        upload = self.stores[which].begin_at_once(self.key, len(body))
        upload.write(body)
        answer = upload.commit(UNCONDITIONAL)
        assert not isinstance(answer, Deferred)
        self._uncovered[which].append(self.number)

    def take(self) -> None:
        """
        The syncs of all become due.
        """
        before = [pool.waiting() for pool in self.pools]
        self._clock.pump([1.0] * 5)
        for which, pool in enumerate(self.pools):
            if pool.waiting() > before[which]:
                self._uncovered[which].append(_TAKEN)

    def sync(self, which: int) -> bool:
        """
        One of them syncs, if it has taken what is to be covered.
        """
        if not self.pools[which].waiting():
            return False
        self.pools[which].step()
        uncovered = self._uncovered[which]
        del uncovered[: uncovered.index(_TAKEN) + 1]
        return True

    def do_something(self, choose: random.Random) -> None:
        """
        One step of one of them.
        """
        which = choose.randrange(len(self.stores))
        what = choose.random()
        if what < 0.6:
            self.publish(which)
        elif what < 0.8:
            self.take()
        else:
            self.sync(which)

    def least(self) -> int:
        """
        The oldest value that may be there after a power cut: the one before the first
        that is not covered.
        """
        uncovered = [number for each in self._uncovered for number in each]
        return min([self.number + 1, *(n for n in uncovered if n != _TAKEN)]) - 1

    def close(self) -> None:
        """
        All of them end.
        """
        for pool, store in zip(self.pools, self.stores, strict=True):
            closed = store.close()
            pool.finish()
            assert not isinstance(closed, Deferred) or closed.called
