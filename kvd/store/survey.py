"""
A survey: a walk over all values of a store that counts them, and finds those that were
used least recently.

**Counting while others write.** Each process adds up what it has added and removed
(`kvd.store.usage`). If a survey has seen values of S bytes, while A bytes were added
and R removed, then at its end the values take at most S + A bytes, because a value that
is there was seen or was added meanwhile; and at least S - R, because a value that was
seen is there or was removed meanwhile. What was known before is corrected to be within
these bounds. Where nothing was known, the middle is taken. If nobody writes, both
bounds are the truth.

**Candidates.** A survey keeps the values of each quota whose access times are oldest,
at most `MOST_CANDIDATES` of them. That list stays right when the survey is over: all
other values were used later, and whatever is used or written after it is younger. So
the evictor takes them in order, and skips those whose access time has changed. It needs
another survey only when the list is used up, and no index of the whole store.

An access time that is ahead of the clock (because the clock was set back) counts as
the present, and is changed to it: otherwise the value would stay for that long.
"""

from __future__ import annotations

import heapq
import os
import stat
from collections.abc import Callable, Generator, Sequence
from typing import Final, NamedTuple

from kvd.model.keys import Key
from kvd.settings import Quota
from kvd.store.reading import AHEAD_NS, note_read
from kvd.store.usage import quota_of, taken_by
from kvd.store.walk import Span, walk

MOST_CANDIDATES: Final = 65536
"""
The most values that are remembered for a quota: some 16 MiB.
"""


class Candidate(NamedTuple):
    """
    A value that may be removed.
    """

    accessed_ns: int
    inode: int
    key: Key


class Seen(NamedTuple):
    """
    What a survey has seen of a quota.
    """

    taken: int
    values: int


class Survey:
    """
    A walk in short steps.
    """

    def __init__(
        self,
        root: int,
        quotas: Sequence[Quota],
        now_ns: Callable[[], int],
        expired: Callable[[Sequence[int], Candidate], bool],
        most: int = MOST_CANDIDATES,
    ) -> None:
        """
        Args:
            root: The store's folder.
            quotas: The first is that of the whole store.
            now_ns: The time of day, which access times are compared with.
            expired: Called with the numbers of its quotas and a value that has lived
                longer than it may; returns whether it was removed.
            most: How many candidates are kept for a quota.
        """
        self._root = root
        self._quotas = quotas
        self._prefixes = [quota.prefix for quota in quotas[1:]]
        self._now_ns = now_ns
        self._expired = expired
        self._most = most
        self._taken = [0] * len(quotas)
        self._values = [0] * len(quotas)
        # The youngest first: the next one to be left out.
        self._heaps: list[list[tuple[int, int, Key]]] = [[] for _ in quotas]
        self._steps = self._walk()

    def step(self) -> bool:
        """
        Look at some values more.

        Returns:
            Whether there are more.

        Raises:
            OSError: The walk cannot continue.
        """
        return next(self._steps, None) is not None

    def close(self) -> None:
        """
        End the walk.
        """
        self._steps.close()

    def seen(self, quota: int) -> Seen:
        """
        What was seen of a quota.
        """
        return Seen(self._taken[quota], self._values[quota])

    def candidates(self, quota: int) -> list[Candidate]:
        """
        The values of a quota that were used least recently, in that order.
        """
        return sorted(
            Candidate(-negative, inode, key)
            for negative, inode, key in self._heaps[quota]
        )

    def _walk(self) -> Generator[bool, None, None]:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)
        for batch in walk(root, b"", Span()):
            now_ns = self._now_ns()
            for name in batch.names:
                try:
                    status = os.stat(name, dir_fd=batch.folder, follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    key = Key(batch.prefix + name)
                    self._see(key, status, now_ns, batch.folder, name)
            yield True

    def _see(
        self, key: Key, status: os.stat_result, now_ns: int, folder: int, name: bytes
    ) -> None:
        taken = taken_by(status.st_size)
        accessed_ns = status.st_atime_ns
        if accessed_ns > now_ns + 2 * AHEAD_NS:
            accessed_ns = _bring_back(folder, name, status)
        quota = quota_of(self._prefixes, key)
        quotas = (0, quota) if quota else (0,)
        ttl_seconds = self._quotas[quota].ttl_seconds
        if ttl_seconds is not None and (
            now_ns - status.st_mtime_ns > ttl_seconds * 1e9
            and self._expired(quotas, Candidate(accessed_ns, status.st_ino, key))
        ):
            return
        for each in quotas:
            self._taken[each] += taken
            self._values[each] += 1
            if self._quotas[each].evicts:
                self._remember(each, accessed_ns, status.st_ino, key)

    def _remember(self, quota: int, accessed_ns: int, inode: int, key: Key) -> None:
        heap = self._heaps[quota]
        if len(heap) < self._most:
            heapq.heappush(heap, (-accessed_ns, inode, key))
        elif -accessed_ns > heap[0][0]:
            heapq.heapreplace(heap, (-accessed_ns, inode, key))


def _bring_back(folder: int, name: bytes, status: os.stat_result) -> int:
    """
    Set the access time of a file to the present.

    Returns:
        Its access time now.
    """
    try:
        file = os.open(
            name,
            os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC,
            dir_fd=folder,
        )
    except OSError:  # Gone, or not readable.
        return status.st_atime_ns
    try:
        note_read(file)
        return os.fstat(file).st_atime_ns
    finally:
        os.close(file)
