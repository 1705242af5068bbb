"""
What the workers do at this moment, in memory that all processes share.

Each worker has a row that it alone writes, one aligned word of eight bytes per
store: whoever reads meanwhile sees the old number or the new one, never half
of each (``struct.pack_into`` copies byte by byte, and tears). The words of one
row belong to different moments, so two of them need not fit together.

Rows begin on a cache line of their own, so that no worker's counting slows
another's. They outlive the worker: its replacement begins with a row of
zeroes, and until then nobody should ask the row of a worker that is gone.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass
from typing import Final

WORD_BYTES: Final = 8
ROW_WORDS: Final = 16
"""
Two cache lines of 64 bytes, the pair that x86 prefetches together.
"""

(
    _ACCEPTED,
    _OPEN,
    _BEGUN,
    _DONE,
    _BYTES_IN,
    _BYTES_OUT,
    _BUSY,
    _AWAKE,
    _BEAT,
) = range(9)


@dataclass(frozen=True, slots=True)
class Counts:
    """
    A row as it was read.
    """

    accepted: int
    """Connections, since the worker began."""
    open: int
    """Connections, now."""
    requests: int
    """Requests that have ended, also those that were broken off."""
    in_progress: int
    """Requests whose head has been read and that have not ended."""
    bytes_in: int
    """Read from connections, heads included."""
    bytes_out: int
    """Taken by the kernel for connections, heads included."""
    busy_seconds: float
    """In which the worker did not wait for events."""
    silent_seconds: float
    """Since it last began or ended to wait: a worker waits for a second at
    most, so more than that is one event that takes long."""


class Row:
    """
    One worker's row, in the hands of that worker.
    """

    __slots__ = ("_words",)

    def __init__(self, words: memoryview) -> None:
        """
        Args:
            words: The row's words, of format ``Q``; set to zero.
        """
        self._words = words
        for word in range(ROW_WORDS):
            words[word] = 0
        words[_BEAT] = time.monotonic_ns()

    def opened(self) -> None:
        """
        A connection has begun.
        """
        self._words[_ACCEPTED] += 1
        self._words[_OPEN] += 1

    def closed(self) -> None:
        """
        A connection has ended.
        """
        self._words[_OPEN] -= 1

    def began(self) -> None:
        """
        A request has begun.
        """
        self._words[_BEGUN] += 1

    def finished(self) -> None:
        """
        A request has ended, or was broken off.
        """
        self._words[_DONE] += 1

    def received(self, count: int) -> None:
        """
        So many bytes have come.
        """
        self._words[_BYTES_IN] += count

    def sent(self, count: int) -> None:
        """
        So many bytes have gone.
        """
        self._words[_BYTES_OUT] += count

    def waits(self) -> None:
        """
        The worker waits for events from now on.
        """
        words = self._words
        now = time.monotonic_ns()
        if words[_AWAKE]:
            words[_BUSY] += now - words[_AWAKE]
            words[_AWAKE] = 0
        words[_BEAT] = now

    def woke(self) -> None:
        """
        The worker has events, or nothing to wait for.
        """
        self._words[_AWAKE] = time.monotonic_ns()


def lone_row() -> Row:
    """
    A row that nobody else can read.
    """
    return Row(memoryview(bytearray(ROW_WORDS * WORD_BYTES)).cast("Q"))


class Scoreboard:
    """
    The rows of all workers.
    """

    def __init__(self, descriptor: int, workers: int) -> None:
        """
        Map a scoreboard that `create_scoreboard` has made.

        Args:
            descriptor: Of its memory; the caller's to close, now or later.
            workers: How many of its rows are in use.
        """
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._words = memoryview(self._memory).cast("Q")
        self.workers = workers
        """How many rows are in use; may change, up to as many as there are."""

    def own_row(self, worker: int) -> Row:
        """
        A worker's row for the worker itself. It begins anew.
        """
        start = worker * ROW_WORDS
        return Row(self._words[start : start + ROW_WORDS])

    def counts(self, worker: int) -> Counts:
        """
        Read a row.
        """
        words = self._words[worker * ROW_WORDS : (worker + 1) * ROW_WORDS].tolist()
        now = time.monotonic_ns()
        awake = words[_AWAKE]
        busy = words[_BUSY] + (max(0, now - awake) if awake else 0)
        return Counts(
            accepted=words[_ACCEPTED],
            open=words[_OPEN],
            requests=words[_DONE],
            # The two are not of one moment.
            in_progress=max(0, words[_BEGUN] - words[_DONE]),
            bytes_in=words[_BYTES_IN],
            bytes_out=words[_BYTES_OUT],
            busy_seconds=busy / 1e9,
            silent_seconds=max(0, now - max(awake, words[_BEAT])) / 1e9,
        )

    def connections(self) -> list[int]:
        """
        The open connections of every worker.
        """
        return self._column(_OPEN)

    def requests(self) -> list[int]:
        """
        The requests in progress of every worker.
        """
        begun, done = self._column(_BEGUN), self._column(_DONE)
        return [max(0, b - d) for b, d in zip(begun, done, strict=True)]

    def _column(self, word: int) -> list[int]:
        return self._words[word : self.workers * ROW_WORDS : ROW_WORDS].tolist()

    def close(self) -> None:
        """
        Give the memory back. No row may be in use any more.
        """
        self._words.release()
        self._memory.close()


def create_scoreboard(rows: int) -> int:
    """
    Memory for a scoreboard. A row that was never written costs none.

    Returns:
        A descriptor, the caller's to close; not inherited, but it can be sent.
    """
    descriptor = os.memfd_create("kvd scoreboard", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, rows * ROW_WORDS * WORD_BYTES)
    return descriptor
