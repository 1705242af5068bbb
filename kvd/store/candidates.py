"""
The values that may be removed to make room, in the order of their use.

A survey (`kvd.store.survey`) may find more of them than memory should hold. So a list
keeps those that were used least recently, up to a number, and leaves out the others.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import islice
from typing import Final, Protocol, TypeAlias

from kvd.model.keys import Key
from kvd.native import compiled

ALWAYS: Final = (1 << 63) - 1
NEVER: Final = -(1 << 63)
"""
Times before which, and after which, all files are.
"""


Candidate: TypeAlias = tuple[int, int, Key]
"""
A value that may be removed: its access time in nanoseconds, its inode, and its key.
"""


class Candidates(Protocol):
    """
    The values that were used least recently, at most a certain number. Those of equal
    times are in the order of their inodes.

    When a value was left out, all that were used later are: so no gap opens where some
    are taken.
    """

    def __len__(self) -> int: ...

    def remember(self, accessed_ns: int, inode: int, key: bytes, /) -> None:
        """
        Add a value, unless there are as many as may be that were used before it.
        """

    def oldest(self, count: int, /) -> list[Candidate]:
        """
        Those that were used least recently, in this order, at most so many.
        """

    def drop(self, count: int, /) -> None:
        """
        Leave out as many of those that were used least recently.
        """

    def take(self, count: int, /) -> Candidates:
        """
        Move as many of those that were used least recently, or all, into a list of
        their own.
        """


class PlainCandidates:
    """
    See `Candidates`. Without a C compiler, this does what ``kvd/native/candidates.c``
    does.
    """

    def __init__(self, most: int, /) -> None:
        """
        Args:
            most: How many values are kept; at least 1.
        """
        self._most = most
        # The youngest first: the next one to be left out.
        self._heap: list[tuple[int, int, Key]] = []
        # The oldest last; nothing, while there is a heap.
        self._sorted: list[tuple[int, int, Key]] = []
        self._until_ns = ALWAYS

    def __len__(self) -> int:
        return len(self._heap) + len(self._sorted)

    def remember(self, accessed_ns: int, inode: int, key: bytes, /) -> None:
        if accessed_ns > self._until_ns:
            return
        if self._sorted:
            # Sorted, it is a heap.
            self._heap, self._sorted = self._sorted, []
        heapq.heappush(self._heap, (-accessed_ns, -inode, Key(key)))
        if len(self._heap) > self._most:
            self._until_ns = -heapq.heappop(self._heap)[0]

    def oldest(self, count: int, /) -> list[Candidate]:
        self._sort()
        return [
            (-accessed_ns, -inode, key)
            for accessed_ns, inode, key in islice(reversed(self._sorted), count)
        ]

    def drop(self, count: int, /) -> None:
        self._sort()
        del self._sorted[max(0, len(self._sorted) - count) :]

    def take(self, count: int, /) -> PlainCandidates:
        self._sort()
        taken = PlainCandidates(self._most)
        rest = max(0, len(self._sorted) - count)
        taken._sorted = self._sorted[rest:]
        del self._sorted[rest:]
        return taken

    def _sort(self) -> None:
        if self._heap:
            self._sorted, self._heap = sorted(self._heap), []


_native = compiled("_fast_path")
make_candidates: Callable[[int], Candidates] = (
    PlainCandidates if _native is None else _native.Candidates
)
"""
Make an empty list for at most so many values: a compiled one, where there is one. That
takes 24 bytes for each value and the bytes of its key.
"""
