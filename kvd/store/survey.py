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

**Candidates.** A survey remembers the values of each quota whose access times are
oldest, at most `MOST_CANDIDATES` of them (`kvd.store.candidates`). That list stays
right when the survey is over: all other values were used later, and whatever is used or
written after it is younger. So the evictor takes them in order, and skips those whose
access time has changed. It needs another survey only when the list is used up, and no
index of the whole store.

An access time that is ahead of the clock (because the clock was set back) counts as
the present, and is changed to it: otherwise the value would stay for that long.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import Final, NamedTuple

from kvd.model.keys import Key
from kvd.settings import Quota
from kvd.store.candidates import NEVER, Candidate, Candidates, make_candidates
from kvd.store.looking import look
from kvd.store.reading import AHEAD_NS, note_read
from kvd.store.usage import quota_of
from kvd.store.walk import Batch, Span, walk

MOST_CANDIDATES: Final = 1 << 20
"""
The most values that are remembered for a quota: 64 MiB with keys of 40 bytes. A survey
looks at all values for those that it remembers; of up to so many, it is all of them.
"""


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
        self._prefixes = tuple(quota.prefix for quota in quotas[1:])
        self._now_ns = now_ns
        self._expired = expired
        self._taken = [0] * len(quotas)
        self._values = [0] * len(quotas)
        self.candidates: list[Candidates] = [make_candidates(most) for _ in quotas]
        """Those of each quota that were found so far."""
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

    def _walk(self) -> Generator[bool, None, None]:
        root = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._root)
        for batch in walk(root, b"", Span()):
            # Quotas are those of whole folders.
            quota = quota_of(self._prefixes, batch.prefix)
            self._look(batch, (0, quota) if quota else (0,))
            yield True

    def _look(self, batch: Batch, quotas: Sequence[int]) -> None:
        now_ns = self._now_ns()
        ttl_seconds = self._quotas[quotas[-1]].ttl_seconds
        expired_ns = NEVER if ttl_seconds is None else now_ns - int(ttl_seconds * 1e9)
        # Below a prefix that refuses, nothing makes room for values elsewhere either.
        may_go = self._quotas[quotas[-1]].evicts
        lists = tuple(
            self.candidates[q] for q in quotas if may_go and self._quotas[q].evicts
        )
        values, taken, notable = look(
            batch.folder,
            batch.prefix,
            list(batch.names),
            lists,
            expired_ns,
            now_ns + 2 * AHEAD_NS,
        )
        for name, accessed_ns, changed_ns, inode, bytes_taken in notable:
            if accessed_ns > now_ns + 2 * AHEAD_NS:
                accessed_ns = _bring_back(batch.folder, name, accessed_ns)
            one = accessed_ns, inode, Key(batch.prefix + name)
            if changed_ns < expired_ns and self._expired(quotas, one):
                values -= 1
                taken -= bytes_taken
                continue
            for each in lists:
                each.remember(*one)
        for quota in quotas:
            self._values[quota] += values
            self._taken[quota] += taken


def _bring_back(folder: int, name: bytes, accessed_ns: int) -> int:
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
        return accessed_ns
    try:
        note_read(file)
        return os.fstat(file).st_atime_ns
    finally:
        os.close(file)
