"""
How much the values of a store take, counted by all its processes in shared memory.

A *quota* is a limit on what the values below a prefix take: the first one is that of
the whole store, whose prefix is empty; the prefixes of the others do not overlap. What
a value takes is its length, rounded up to blocks of 4 KiB, and one block at least
(`taken_by`). That is what most file systems allocate for it, and it can be known before
the first byte of a value has come.

An upload *reserves* what its value will take before it begins, by one atomic step on
the shared number of bytes *taken*. So the values and the uploads together never exceed
a limit, however many processes write. When a value is published, what it replaced is
given back; when it is discarded, what it had reserved.

    words of a cell (64 bytes, a cache line)
    the header              rows, rows in use, quotas, resolution, state, surveyed
    of each quota           taken, limit, values, evicted, evicted bytes, expired
    of each process, quota  held, bytes added, bytes removed, values added, removed,
                            wanted

Each process has a row of counts, which it alone writes:

- what its uploads *hold* of what is taken. When a process was killed, the supervisor,
  or the next process with that row, gives back what it held.
- what it has added and removed, as sums that never decrease, for `kvd.store.survey`
  and for the status.
- how much the uploads *want* that wait for room (`kvd.store.admission`).

The compiled module counts atomically (``kvd/native/usage.c``). Without it, each process
locks the memory for each step; all processes of a daemon do the same.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from kvd.native import compiled

BLOCK_BYTES: Final = 4096

_STEADY_TRIES: Final = 20

UNLIMITED: Final = 1 << 62
"""
The limit of a quota that has none.
"""

EVICTOR_ROW: Final = 0
"""
The row of the process that removes values; those of workers follow.
"""

_CELL_WORDS: Final = 8
_WORD_BYTES: Final = 8

_ROWS, _USED_ROWS, _QUOTAS, _RESOLUTION, _STATE, _SURVEYED = range(6)
_TAKEN, _LIMIT, _VALUES, _EVICTED, _EVICTED_BYTES, _EXPIRED = range(6)
(
    _HELD,
    _BYTES_ADDED,
    _BYTES_REMOVED,
    _VALUES_ADDED,
    _VALUES_REMOVED,
    _WANTED,
) = range(6)
WORDS: Final = (
    *(_CELL_WORDS, _RESOLUTION, _TAKEN, _LIMIT, _HELD),
    *(_BYTES_ADDED, _BYTES_REMOVED, _VALUES_ADDED, _VALUES_REMOVED),
)
"""
Those that ``kvd/native/usage.c`` reads and writes.
"""


class State:
    """
    What is known of the bytes that are taken.
    """

    COUNTING: Final = 0
    """The values are being counted for the first time."""
    ESTIMATED: Final = 1
    """The same, but the last daemon has left its count."""
    COUNTED: Final = 2


class Counts(NamedTuple):
    """
    What all processes have counted for a quota.
    """

    taken: int
    """Bytes of values and uploads."""
    limit: int
    held: int
    """Bytes of these that uploads have reserved."""
    bytes_added: int
    """Bytes of all values that were ever published, since the memory was made."""
    bytes_removed: int
    """Bytes of all values that were replaced or removed."""
    values_added: int
    values_removed: int
    wanted: int
    """Bytes that uploads wait for."""

    @property
    def values_taken(self) -> int:
        """
        Bytes of values alone.
        """
        return self.taken - self.held

    def added_since(self, before: Counts) -> int:
        """
        Bytes of the values that were published since then.
        """
        return self.bytes_added - before.bytes_added

    def removed_since(self, before: Counts) -> int:
        """
        Bytes of the values that were replaced or removed since then.
        """
        return self.bytes_removed - before.bytes_removed


class Evictions(NamedTuple):
    """
    What the evictor has removed from a quota.
    """

    values: int
    bytes: int
    expired: int


class Usage(Protocol):
    """
    Counts what one process does.
    """

    def reserve(self, key: bytes, taken: int, /) -> bool:
        """
        Reserve bytes of the quotas of a key, and hold them.

        Returns:
            Whether all of them have so many left; if not, nothing is reserved.
        """

    def release(self, key: bytes, taken: int, /) -> None:
        """
        Give back bytes that were reserved.
        """

    def published(self, key: bytes, taken: int, replaced: int, /) -> None:
        """
        Count a value that was published.

        Args:
            key: Its key.
            taken: What it takes, and no less was reserved for it.
            replaced: What the value took that it replaced; below 0: there was none.
        """

    def removed(self, key: bytes, taken: int, /) -> None:
        """
        Count a value that was removed.
        """

    def correct(self, quota: int, taken: int, /) -> None:
        """
        Add to the bytes that a quota has taken, which were counted wrong.
        """


def taken_by_blocks(length: int) -> int:
    """
    See `taken_by`. Without a C compiler, this does what ``kvd/native/usage.c`` does.
    """
    return max(1, -(-length // BLOCK_BYTES)) * BLOCK_BYTES


def quota_in_python(prefixes: tuple[bytes, ...], key: bytes, /) -> int:
    """
    See `quota_of`. Without a C compiler, this does what ``kvd/native/usage.c`` does.
    """
    for number, prefix in enumerate(prefixes):
        if key.startswith(prefix):
            return number + 1
    return 0


_native = compiled("_fast_path")
quota_of: Callable[[tuple[bytes, ...], bytes], int] = (
    quota_in_python if _native is None else _native.quota_of
)
"""
The number of the quota that a key has beside that of the whole store; 0: none.

Args:
    prefixes: Those of the quotas behind the first.
    key: The key.
"""
taken_by: Callable[[int], int] = (
    taken_by_blocks if _native is None else _native.taken_by
)
"""
What a value of a length takes, in bytes.
"""


class LockedUsage:
    """
    Counts by locking the memory; see `Usage`.
    """

    def __init__(
        self, memory: UsageMemory, descriptor: int, prefixes: Sequence[bytes], row: int
    ) -> None:
        self._memory = memory
        self._descriptor = descriptor
        self._prefixes = tuple(prefixes)
        self._row = row

    def reserve(self, key: bytes, taken: int, /) -> bool:
        quotas = self._quotas_of(key)
        with _Locked(self._descriptor):
            for quota in quotas:
                words = self._memory.quota(quota)
                # It is negative after others have removed what nobody has counted.
                if taken > words[_LIMIT] - max(0, words[_TAKEN]):
                    return False
            for quota in quotas:
                self._memory.quota(quota)[_TAKEN] += taken
        self._hold(quotas, taken)
        return True

    def release(self, key: bytes, taken: int, /) -> None:
        quotas = self._quotas_of(key)
        self._hold(quotas, -taken)
        for quota in quotas:
            self.correct(quota, -taken)

    def published(self, key: bytes, taken: int, replaced: int, /) -> None:
        quotas = self._quotas_of(key)
        self._hold(quotas, -taken)
        for quota in quotas:
            counts = self._memory.row(self._row, quota)
            counts[_BYTES_ADDED] += taken
            counts[_VALUES_ADDED] += 1
        if replaced >= 0:
            self.removed(key, replaced)

    def removed(self, key: bytes, taken: int, /) -> None:
        for quota in self._quotas_of(key):
            counts = self._memory.row(self._row, quota)
            counts[_BYTES_REMOVED] += taken
            counts[_VALUES_REMOVED] += 1
            self.correct(quota, -taken)

    def correct(self, quota: int, taken: int, /) -> None:
        with _Locked(self._descriptor):
            self._memory.quota(quota)[_TAKEN] += taken

    def _quotas_of(self, key: bytes) -> Sequence[int]:
        quota = quota_of(self._prefixes, key)
        return (0, quota) if quota else (0,)

    def _hold(self, quotas: Sequence[int], taken: int) -> None:
        for quota in quotas:
            self._memory.row(self._row, quota)[_HELD] += taken


class _Locked:
    """
    Holds the lock of the memory, which is that of a process: only one thread of each
    counts.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1)


class UsageMemory:
    """
    The shared memory, mapped in this process.
    """

    def __init__(self, descriptor: int) -> None:
        """
        Args:
            descriptor: From `create_usage`; the caller keeps it open.
        """
        self.descriptor = descriptor
        self.bytes = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._words = memoryview(self.bytes).cast("q")
        self.quotas = int(self._words[_QUOTAS])

    def quota(self, quota: int) -> memoryview:
        """
        The words of a quota.
        """
        return self._cell(1 + quota)

    def row(self, row: int, quota: int) -> memoryview:
        """
        The words of a process for a quota.
        """
        return self._cell(1 + self.quotas * (1 + row) + quota)

    def _cell(self, cell: int) -> memoryview:
        start = cell * _CELL_WORDS
        return self._words[start : start + _CELL_WORDS]

    @property
    def state(self) -> int:
        """
        See `State`.
        """
        return int(self._words[_STATE])

    @state.setter
    def state(self, state: int) -> None:
        self._words[_STATE] = state

    @property
    def surveyed(self) -> bool:
        """
        Whether the evictor that runs has looked at all values, and so knows what can be
        removed.
        """
        return bool(self._words[_SURVEYED])

    @surveyed.setter
    def surveyed(self, surveyed: bool) -> None:
        self._words[_SURVEYED] = surveyed

    @property
    def resolution_seconds(self) -> int:
        """
        How long a read is remembered in the access time of a file before another one is
        noted; 0: reads are not noted.
        """
        return int(self._words[_RESOLUTION])

    @resolution_seconds.setter
    def resolution_seconds(self, seconds: int) -> None:
        self._words[_RESOLUTION] = seconds

    def counts(self, quota: int) -> Counts:
        """
        What all processes have counted for a quota. The numbers are of slightly
        different moments.
        """
        taken, limit = self.quota(quota)[:2].tolist()
        used = self._words[_USED_ROWS]
        rows = [self.row(row, quota).tolist() for row in range(used)]
        sums = [sum(words) for words in zip(*rows, strict=True)]
        return Counts(taken, limit, *(sums[: _WANTED + 1] or (0,) * 6))

    def steady_counts(self, quota: int) -> Counts:
        """
        The same, of one moment if that can be had: counts that did not change while
        they were read.
        """
        counts = self.counts(quota)
        for _ in range(_STEADY_TRIES):
            before, counts = counts, self.counts(quota)
            if counts == before:
                break
        return counts

    def values(self, quota: int) -> int:
        """
        How many values a quota has.
        """
        counts = self.counts(quota)
        base = int(self.quota(quota)[_VALUES])
        return base + counts.values_added - counts.values_removed

    def set_values(self, quota: int, values: int) -> None:
        """
        Correct how many values a quota has.
        """
        self.quota(quota)[_VALUES] += values - self.values(quota)

    def evictions(self, quota: int) -> Evictions:
        """
        What was removed from a quota.
        """
        return Evictions(*self.quota(quota)[_EVICTED : _EXPIRED + 1].tolist())

    def count_evicted(self, quota: int, taken: int) -> None:
        """
        A value was removed to make room. Only the evictor calls this.
        """
        words = self.quota(quota)
        words[_EVICTED] += 1
        words[_EVICTED_BYTES] += taken

    def count_expired(self, quota: int) -> None:
        """
        A value was removed because of its age. Only the evictor calls this.
        """
        self.quota(quota)[_EXPIRED] += 1

    def taken(self, quota: int) -> int:
        """
        The bytes of values and uploads that a quota has.
        """
        return int(self.quota(quota)[_TAKEN])

    def limit(self, quota: int) -> int:
        """
        The limit of a quota.
        """
        return int(self.quota(quota)[_LIMIT])

    def want(self, row: int, quota: int, taken: int) -> None:
        """
        An upload of a process waits for bytes; below 0: it does not any more.
        """
        self.row(row, quota)[_WANTED] += taken

    def usage(self, prefixes: Sequence[bytes], row: int) -> Usage:
        """
        Count what a process does from now on.

        Args:
            prefixes: Those of the quotas behind the first.
            row: The process's own. What the last process with it held is given back.
        """
        assert len(prefixes) + 1 == self.quotas
        assert row < self._words[_ROWS]
        with _Locked(self.descriptor):
            self._words[_USED_ROWS] = max(self._words[_USED_ROWS], row + 1)
        usage: Usage = (
            LockedUsage(self, self.descriptor, prefixes, row)
            if _native is None
            else _native.Usage(self.bytes, tuple(prefixes), row, WORDS)
        )
        for quota in range(self.quotas):
            words = self.row(row, quota)
            held, words[_HELD], words[_WANTED] = words[_HELD], 0, 0
            usage.correct(quota, -held)
        return usage


def create_usage(limits: Sequence[int], rows: int) -> int:
    """
    Create the memory.

    Args:
        limits: Those of the quotas; the first is that of the whole store.
        rows: How many processes there can be at once. A row that was never written
            takes no memory.

    Returns:
        A descriptor, which the caller closes. Child processes do not inherit it, but it
        can be sent.
    """
    cells = 1 + len(limits) * (1 + rows)
    descriptor = os.memfd_create("kvd usage", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, cells * _CELL_WORDS * _WORD_BYTES)
        with (
            mmap.mmap(descriptor, 0) as memory,
            memoryview(memory).cast("q") as words,
        ):
            words[_QUOTAS] = len(limits)
            words[_ROWS] = rows
            for quota, limit in enumerate(limits):
                words[(1 + quota) * _CELL_WORDS + _LIMIT] = limit
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
