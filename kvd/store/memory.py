"""
A store in memory, a test double for other stores.

It can be set to fail and to answer later. Like the real stores, it passes
`kvd.testing.StoreContract`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer

from kvd.errors import StoreFault
from kvd.interfaces import Answer, IListing, IStore, IUpload, IValue
from kvd.model.conditions import UNCONDITIONAL, Conditions
from kvd.model.keys import Key
from kvd.model.values import NO_METADATA, Metadata, Published, ValueInfo
from kvd.store.attribute import new_etag
from kvd.store.faults import absence, folder_conflict, path_conflict

T = TypeVar("T")

SLICE_VALUES = 10


@implementer(IStore)
class MemoryStore:
    """
    A store that keeps its values in a dictionary.
    """

    durability = "process"

    def __init__(
        self, clock: IReactorTime | None = None, delay_seconds: float = 0.0
    ) -> None:
        """
        Args:
            clock: If given, every answer is a Deferred that fires later.
            delay_seconds: How much later.
        """
        self.values: dict[Key, tuple[ValueInfo, bytes]] = {}
        self.uploads = 0
        """How many uploads are neither committed nor discarded."""
        self.fail_writes: Exception | None = None
        """Raised from every write."""
        self.delay_commits: list[Callable[[], None]] | None = None
        """If a list: each commit waits, and appends a function that completes it."""
        self.break_reads_at: int | None = None
        """The offset from which on reads of values fail."""
        self._clock = clock
        self._delay_seconds = delay_seconds

    def answer(self, act: Callable[[], T]) -> Answer[T]:
        """
        Answer with the result of a function: immediately, or after the delay.
        """
        if self._clock is None:
            return act()
        return deferLater(self._clock, self._delay_seconds, act)

    def check_free(self, key: Key) -> None:
        """
        Raises:
            KeyConflict: See `IStore.begin`.
        """
        if any(other.startswith(key + b"/") for other in self.values):
            raise folder_conflict(key)
        for other in self.values:
            if key.startswith(other + b"/"):
                raise path_conflict(key, other)

    def current(self, key: Key) -> ValueInfo | None:
        """
        The current value of a key, described.
        """
        return self.values[key][0] if key in self.values else None

    def begin(
        self,
        key: Key,
        length: int | None,
        metadata: Metadata = NO_METADATA,
        conditions: Conditions = UNCONDITIONAL,
    ) -> Answer[IUpload]:
        def begin() -> IUpload:
            self.check_free(key)
            return self.make_upload(key, length, metadata)

        return self.answer(begin)

    def make_upload(
        self, key: Key, length: int | None, metadata: Metadata
    ) -> MemoryUpload:
        """
        An upload that has begun.
        """
        return MemoryUpload(self, key, length, metadata)

    def open(self, key: Key, whole: bool = False) -> Answer[IValue]:
        def open_value() -> IValue:
            return MemoryValue(self, *self._stored(key))

        return self.answer(open_value)

    def stat(self, key: Key) -> Answer[ValueInfo]:
        return self.answer(lambda: self._stored(key)[0])

    def _stored(self, key: Key) -> tuple[ValueInfo, bytes]:
        if key not in self.values:
            raise absence(key)
        return self.values[key]

    def remove(self, key: Key, conditions: Conditions) -> Answer[None]:
        def remove() -> None:
            conditions.check_change(self._stored(key)[0])
            del self.values[key]

        return self.answer(remove)

    def list(self, prefix: bytes, after: bytes, limit: int | None) -> IListing:
        return MemoryListing(self, prefix, after, limit)

    def close(self) -> Answer[None]:
        return self.answer(lambda: None)


@implementer(IUpload)
class MemoryUpload:
    """
    A value that is being written to memory.
    """

    def __init__(
        self, store: MemoryStore, key: Key, length: int | None, metadata: Metadata
    ) -> None:
        self._store = store
        self._key = key
        self._length = length
        self._metadata = metadata
        self._body = bytearray()
        self._ended = self._committing = False
        store.uploads += 1

    def write(self, chunk: bytes) -> Answer[None]:
        def write() -> None:
            if self._store.fail_writes is not None:
                raise self._store.fail_writes
            self._body += chunk

        return self._store.answer(write)

    def fileno(self) -> int | None:
        return None

    def commit(self, conditions: Conditions) -> Answer[Published]:
        self._committing = True
        delayed = self._store.delay_commits
        if delayed is None:
            return self._store.answer(lambda: self._commit(conditions))
        waiting: Deferred[None] = Deferred()
        delayed.append(lambda: waiting.callback(None))
        return waiting.addCallback(lambda _: self._commit(conditions))

    def _commit(self, conditions: Conditions) -> Published:
        store, key, size = self._store, self._key, len(self._body)
        self._end()
        if self._length not in (None, size):
            raise StoreFault(f"{size} bytes came, not {self._length}.")
        replaced = store.current(key)
        conditions.check_change(replaced)
        store.check_free(key)
        changed = time.time()
        if replaced is not None:
            changed = max(changed, replaced.changed)
        info = ValueInfo(key, size, new_etag(), changed, self._metadata)
        store.values[key] = info, bytes(self._body)
        return Published(info, created=replaced is None)

    def discard(self) -> None:
        if not self._committing:
            self._end()

    def _end(self) -> None:
        self._store.uploads -= not self._ended
        self._ended = True


@implementer(IValue)
class MemoryValue:
    """
    A value that was in memory when it was opened.
    """

    def __init__(self, store: MemoryStore, info: ValueInfo, body: bytes) -> None:
        self.info = info
        self._store = store
        self._body = body

    def fileno(self) -> int | None:
        return None

    def read(self, offset: int, count: int) -> Answer[bytes]:
        def read() -> bytes:
            end = self._store.break_reads_at
            if end is not None and offset >= end:
                raise StoreFault("The value cannot be read any further.")
            return self._body[offset:end][:count]

        return self._store.answer(read)

    def close(self) -> None:
        pass


@implementer(IListing)
class MemoryListing:
    """
    A walk over the values at the time when it began.
    """

    def __init__(
        self, store: MemoryStore, prefix: bytes, after: bytes, limit: int | None
    ) -> None:
        self._store = store
        self._slice_values = SLICE_VALUES if limit is None else limit
        self._values = [
            info
            for key, (info, _) in sorted(store.values.items())
            if key.startswith(prefix) and (limit is None or key > after)
        ][:limit]

    def next_slice(self) -> Answer[Sequence[ValueInfo]]:
        def next_slice() -> Sequence[ValueInfo]:
            taken = self._values[: self._slice_values]
            del self._values[: self._slice_values]
            return taken

        return self._store.answer(next_slice)

    def close(self) -> None:
        self._values.clear()
