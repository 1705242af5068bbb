"""
The memory in which all processes of a daemon count what addresses and users do: how
often they ask, how often they fail to log in, who has logged in, and what each of them
has open.

The daemon makes it and keeps it. So it survives workers and fork servers, and a change
of the settings; when a process has ended, the daemon clears what that process had open.

======================  ==========================================================
the header              the key of the hashes; how many processes have counted
`kvd.access.rates`      a `Table`
`kvd.access.throttle`   a `Table`
`kvd.access.logins`     two of them
of each process         a `Table` of what it has open, which it alone writes
======================  ==========================================================

Each name has one of `WAYS` slots, which a hash with a random key gives, so nobody can
choose names that meet. A word is stored at once, and nothing is locked. So two
processes that count for one name at the same moment may count one for two, or each
let one in: a limit is exceeded by as many as there are other processes at most.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
from typing import Final

SLOTS: Final = 4096
"""
Of a table.
"""

WAYS: Final = 4
"""
How many slots may be somebody's.
"""

RATE_WORDS: Final = 2
FAILURE_WORDS: Final = 4
CREDENTIALS_WORDS: Final = 3
ADDRESS_WORDS: Final = 2
OPEN_WORDS: Final = 2

_WORD_BYTES: Final = 8
_HEADER_WORDS: Final = 8
_KEY_BYTES: Final = 16
_PROCESSES: Final = _KEY_BYTES // _WORD_BYTES
_RATES: Final = _HEADER_WORDS
_FAILURES: Final = _RATES + SLOTS * RATE_WORDS
_CREDENTIALS: Final = _FAILURES + SLOTS * FAILURE_WORDS
_ADDRESSES: Final = _CREDENTIALS + SLOTS * CREDENTIALS_WORDS
_OPEN: Final = _ADDRESSES + SLOTS * ADDRESS_WORDS
_ROW_WORDS: Final = SLOTS * OPEN_WORDS


class Table:
    """
    Slots for names: the first word of each is the hash of its name, 0 if there is none;
    the second says which of several may be given to another name: the least.
    """

    __slots__ = ("_key", "_width", "words")

    def __init__(self, words: memoryview, key: bytes, width: int) -> None:
        """
        Args:
            words: Of all slots.
            key: Of the hash.
            width: How many words a slot has.
        """
        self.words = words
        self._key = key
        self._width = width

    def digest(self, name: bytes) -> bytes:
        """
        16 bytes, which nobody can foretell.
        """
        return hashlib.blake2b(name, key=self._key, digest_size=16).digest()

    def hashed(self, name: str | bytes) -> tuple[int, int]:
        """
        The hash of a name, and the first word of the first of its slots.
        """
        digest = self.digest(name.encode() if isinstance(name, str) else name)
        # Never 0, which is an empty slot.
        tag = int.from_bytes(digest[:8], "little") | 1
        group = int.from_bytes(digest[8:], "little") % (SLOTS // WAYS)
        return tag, group * WAYS * self._width

    def slot(self, name: str | bytes) -> tuple[int, int]:
        """
        The hash of a name, and the first word of its slot; of the one that it may have
        if it has none.
        """
        tag, first = self.hashed(name)
        words, width = self.words, self._width
        slots = range(first, first + WAYS * width, width)
        for slot in slots:
            if words[slot] == tag:
                return tag, slot
        return tag, min(slots, key=lambda slot: words[slot + 1])


class OpenCounts:
    """
    How many of something each name has open, in all processes.
    """

    def __init__(
        self, rows: memoryview, processes: memoryview, key: bytes, row: int
    ) -> None:
        """
        Args:
            rows: The words of all processes.
            processes: The word of how many there have been.
            key: Of the hashes.
            row: The number of this process.
        """
        self._rows, self._processes, self._row = rows, processes, row
        own = rows[row * _ROW_WORDS : (row + 1) * _ROW_WORDS]
        self._table = Table(own, key, OPEN_WORDS)
        self._open: dict[str, int] = {}

    def __getitem__(self, name: str) -> int:
        """
        How many it has open.
        """
        tag, first = self._table.hashed(name)
        rows, end = self._rows, self._processes[0] * _ROW_WORDS
        total = 0
        for way in range(first, first + WAYS * OPEN_WORDS, OPEN_WORDS):
            tags = rows[way:end:_ROW_WORDS].tolist()
            if tag in tags:
                counts = rows[way + 1 : end : _ROW_WORDS].tolist()
                pairs = zip(tags, counts, strict=True)
                total += sum(count for other, count in pairs if other == tag)
        # Where all its slots are other names', only this process knows.
        return max(total, self._open.get(name, 0))

    def add(self, name: str) -> None:
        """
        It has one more.
        """
        self._set(name, self._open.get(name, 0) + 1)

    def remove(self, name: str) -> None:
        """
        It has one less.
        """
        self._set(name, self._open[name] - 1)

    def _set(self, name: str, count: int) -> None:
        if count:
            self._open[name] = count
        else:
            del self._open[name]
        if self._processes[0] <= self._row:
            # Each time, since another process may have just set it to less.
            self._processes[0] = self._row + 1
        words = self._table.words
        tag, slot = self._table.slot(name)
        if count and words[slot] not in (0, tag):
            return
        if count:
            words[slot + 1] = count
            words[slot] = tag
        elif words[slot] == tag:
            words[slot] = 0
            words[slot + 1] = 0


class CountingMemory:
    """
    The memory, as a process uses it; processes that are forked from it too.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """
        Args:
            descriptor: Of `create_counting`; None: memory for this process, number 0,
                and what is forked from it.
        """
        if descriptor is None:
            own = create_counting(1)
            try:
                memory = mmap.mmap(own, 0)
            finally:
                os.close(own)
        else:
            memory = mmap.mmap(descriptor, 0)
        self._key = memory[:_KEY_BYTES]
        self._words = memoryview(memory).cast("Q")

    @property
    def rates(self) -> Table:
        """
        For `kvd.access.rates`.
        """
        return Table(self._words[_RATES:_FAILURES], self._key, RATE_WORDS)

    @property
    def failures(self) -> Table:
        """
        For `kvd.access.throttle`.
        """
        return Table(self._words[_FAILURES:_CREDENTIALS], self._key, FAILURE_WORDS)

    @property
    def credentials(self) -> Table:
        """
        For `kvd.access.logins`.
        """
        words = self._words[_CREDENTIALS:_ADDRESSES]
        return Table(words, self._key, CREDENTIALS_WORDS)

    @property
    def addresses(self) -> Table:
        """
        For `kvd.access.logins`.
        """
        return Table(self._words[_ADDRESSES:_OPEN], self._key, ADDRESS_WORDS)

    def open_counts(self, row: int) -> OpenCounts:
        """
        What each name has open.

        Args:
            row: The number of this process. What an earlier one with that number had
                open must have been cleared.
        """
        processes = self._words[_PROCESSES : _PROCESSES + 1]
        return OpenCounts(self._words[_OPEN:], processes, self._key, row)


def create_counting(rows: int) -> int:
    """
    Create the memory.

    Args:
        rows: How many processes there can be at once. A row that was never written
            takes no memory.

    Returns:
        A descriptor, which the caller closes. Child processes do not inherit it, but it
        can be sent.
    """
    descriptor = os.memfd_create("kvd counting", os.MFD_CLOEXEC)
    try:
        os.ftruncate(descriptor, (_OPEN + rows * _ROW_WORDS) * _WORD_BYTES)
        os.pwrite(descriptor, secrets.token_bytes(_KEY_BYTES), 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def clear_row(descriptor: int, row: int) -> None:
    """
    A process has ended: what it had open is so no more.
    """
    header = os.pread(descriptor, _HEADER_WORDS * _WORD_BYTES, 0)
    processes = memoryview(header).cast("Q")[_PROCESSES]
    if row < processes:
        row_bytes = _ROW_WORDS * _WORD_BYTES
        at = _OPEN * _WORD_BYTES + row * row_bytes
        os.pwrite(descriptor, bytes(row_bytes), at)
