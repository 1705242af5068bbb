"""
What a daemon needs for a store with limits: the memory in which its processes count,
and the process that counts the values and removes some.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kvd.errors import BadSetting
from kvd.interfaces import IBoundedStoreMaker, IStoreMaker
from kvd.model.keys import escape
from kvd.settings import Bounds, Settings, User
from kvd.store.file import open_root, opening
from kvd.store.totals import Total, TotalsFile, open_totals
from kvd.store.usage import EVICTOR_ROW, UNLIMITED, State, UsageMemory, create_usage
from kvd.system.privileges import acting_as
from kvd.workers.changes import ROWS
from kvd.workers.loading import row_of_worker

if TYPE_CHECKING:
    from kvd.workers.evictor import EvictorProcess


@dataclass(frozen=True)
class Bounding:
    """
    Descriptors, which stay open as long as the daemon runs.
    """

    usage: int
    """Of the memory of `kvd.store.usage`."""
    root: int
    """Of the store's folder."""
    totals: int
    """Of its file of totals, which is locked."""
    bounds: Bounds

    @cached_property
    def _memory(self) -> UsageMemory:
        return UsageMemory(self.usage)

    def described(self) -> list[dict[str, Any]]:
        """
        What the values of each quota take, as plain data.
        """
        memory = self._memory
        described = []
        for number, quota in enumerate(self.bounds.quotas):
            counts, evictions = memory.counts(number), memory.evictions(number)
            described.append(
                {
                    "prefix": f"/{escape(quota.prefix)}",
                    "taken": counts.taken,
                    "uploads": counts.held,
                    "limit": quota.max_size,
                    "evicts": quota.evicts,
                    "values": memory.values(number),
                    "evicted": evictions.values,
                    "evicted_bytes": evictions.bytes,
                    "expired": evictions.expired,
                    "counted": memory.state == State.COUNTED,
                }
            )
        return described

    def ended(self, worker: int) -> None:
        """
        Give back what the uploads of a worker held whose process has ended. It may have
        no successor.
        """
        prefixes = [quota.prefix for quota in self.bounds.quotas[1:]]
        self._memory.usage(prefixes, row_of_worker(worker))

    def totals_now(self) -> list[tuple[int, int]]:
        """
        What the values and uploads of each quota take, in bytes, and the number of the
        values.
        """
        memory = self._memory
        return [
            (memory.counts(number).taken, memory.values(number))
            for number in range(len(self.bounds.quotas))
        ]

    def estimate(self, totals: Sequence[Total]) -> None:
        """
        Take these as the totals until the values have been counted.
        """
        memory = self._memory
        prefixes = [quota.prefix for quota in self.bounds.quotas[1:]]
        counting = memory.usage(prefixes, EVICTOR_ROW)
        for quota, total in enumerate(totals):
            counting.correct(quota, total.taken - memory.counts(quota).taken)
            memory.set_values(quota, total.values)
        memory.state = State.ESTIMATED

    def evictor(self, settings: Settings, reactor: Any) -> EvictorProcess:
        """
        The process, not started yet.
        """
        # Not at the top: clients wait until they are served, and not for this.
        from kvd.workers.evictor import EvictorProcess

        return EvictorProcess(settings, (self.usage, self.root, self.totals), reactor)


def open_bounding(
    settings: Settings,
    maker: IStoreMaker,
    user: User | None,
    locked: int | None = None,
) -> Bounding:
    """
    Open what a store with limits needs.

    Args:
        settings: All settings, with limits.
        maker: That of the store, which is prepared.
        user: The user that this process will switch to.
        locked: The descriptor of the store's file of totals, if this process has
            inherited it.

    Raises:
        BadSetting: The store cannot have limits.
        StoreUnusable: The store cannot be opened.
    """
    bounds = settings.bounds
    assert bounds is not None
    if not IBoundedStoreMaker.providedBy(maker):
        raise BadSetting(
            f"the store {settings.store} can have no limits: leave out --max-size,"
            " --min-free, --ttl and --quota, or use file:PATH"
        )
    path = settings.bounded_store.path
    with ExitStack() as opened, acting_as(user), opening(path):
        root = open_root(path)
        opened.callback(os.close, root)
        totals = open_totals(root, settings.modes) if locked is None else locked
        opened.callback(os.close, totals)
        known = TotalsFile(totals).read([quota.prefix for quota in bounds.quotas])
        limits = [
            UNLIMITED if quota.max_size is None else quota.max_size
            for quota in bounds.quotas
        ]
        usage = create_usage(limits, row_of_worker(ROWS))
        opened.callback(os.close, usage)
        bounding = Bounding(usage, root, totals, bounds)
        if known is not None:
            bounding.estimate(known)
        opened.pop_all()
    return bounding
