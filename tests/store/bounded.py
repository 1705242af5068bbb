"""
File stores with limits, and what counts and evicts for them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence

from twisted.internet.defer import execute

from kvd.interfaces import IStore
from kvd.model.keys import Key
from kvd.settings import DEFAULT_MODES, Bounds, Quota
from kvd.store.admission import Admission
from kvd.store.evicting import Evictor
from kvd.store.file import FileStore
from kvd.store.locks import KeyLocks, LockFile
from kvd.store.removing import Remover
from kvd.store.totals import TotalsFile, open_totals
from kvd.store.usage import UNLIMITED, UsageMemory, create_usage, taken_by
from kvd.store.waiting import OffReactor, Underway
from tests.store.cases import FileStoreCase

SECOND_NS = 1_000_000_000


class BoundedCase(FileStoreCase):
    """
    A test case with file stores that have limits. Its evictor works when told, and in
    the time of the files.
    """

    max_size: int | None = None
    min_free = 0
    evicts = False
    ttl_seconds: float | None = None
    quotas: Sequence[Quota] = ()

    def setUp(self) -> None:
        super().setUp()
        self.bounds = Bounds(
            (Quota(b"", self.max_size, self.evicts, self.ttl_seconds), *self.quotas),
            self.min_free,
        )
        limits = [quota.max_size or UNLIMITED for quota in self.bounds.quotas]
        usage = create_usage(limits, 8)
        self.addCleanup(os.close, usage)
        self.memory = UsageMemory(usage)
        self.rows = 0
        self.totals = -1
        self.later_ns = 0
        """How far the evictor's clock is ahead."""

    def make_store(self) -> IStore:
        return self.open_bounded()

    def open_bounded(self, off_reactor: OffReactor = execute) -> FileStore:
        """
        Open a store, like one more process.
        """
        self.rows += 1
        admission = Admission(self.memory, self.bounds, self.rows, self.clock)
        store = FileStore(
            self.path,
            self.durability,
            self.clock,
            off_reactor,
            writes_back=False,
            admission=admission,
        )
        self.addCleanup(store.close)
        return store

    def evictor(
        self, now_ns: Callable[[], int] | None = None, most: int = 1000
    ) -> Evictor:
        """
        One that works for this store.
        """
        root = self.folder()
        lock = LockFile(root)
        self.addCleanup(lock.close)
        if self.totals < 0:
            self.totals = open_totals(root, DEFAULT_MODES)
            self.addCleanup(os.close, self.totals)
        return Evictor(
            root,
            Remover(root, lock, KeyLocks(lock, self.clock, Underway())),
            self.memory,
            0,
            self.bounds,
            TotalsFile(self.totals),
            seconds=self.clock.seconds,
            now_ns=now_ns or self.now_ns,
            most_candidates=most,
        )

    def now_ns(self) -> int:
        """
        The evictor's time of day: one at which no value is protected any more.
        """
        return time.time_ns() + 10 * SECOND_NS + self.later_ns

    def at(self, name: str) -> str:
        """
        The path of something in the store.
        """
        return os.path.join(self.path, name)

    def use_at(self, name: str | Key, seconds: float) -> None:
        """
        Let a value be as if it had been used this many seconds after its publication.
        """
        path = self.at(os.fsdecode(name))
        published_ns = os.stat(path).st_mtime_ns
        os.utime(path, ns=(published_ns + int(seconds * SECOND_NS), published_ns))

    def take_steps(self, evictor: Evictor, steps: int = 50) -> None:
        """
        Let an evictor work until it has nothing to do.
        """
        for _ in range(steps):
            self.clock.advance(evictor.step())

    def really_taken(self, prefix: str = "") -> int:
        """
        What the values take, as their files say.
        """
        return sum(
            taken_by(os.path.getsize(self.at(name)))
            for name in self.found()
            if name.startswith(prefix) and os.path.isfile(self.at(name))
        )
