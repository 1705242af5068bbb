"""
The scoreboard: what each worker is doing, in memory that all processes share.

Each worker has a row that only it writes (`kvd.ipc.row`), on cache lines of its own, so
that the counting of one worker does not slow another. A row belongs to a worker number
and outlives its process. The next process with that number continues the sums, so that
no sum ever decreases, and resets the counts of open connections and requests in
progress, which died with the old process. Until then those counts are stale. So the
supervisor marks behind the rows which workers take connections; there it also counts
stalls, which a stalled worker cannot count.

If this process has the privilege, programs in the kernel can read the memory too
(`kvd.dispatch.programs.least_busy`).
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from collections.abc import Iterator, Sequence
from functools import reduce
from math import inf
from operator import add
from typing import Final, Protocol

from kvd.ipc.counts import Counts, Loads, MethodSums, Sums
from kvd.ipc.histogram import BUCKETS
from kvd.ipc.row import (
    ACCEPTED,
    AWAKE,
    BATCH_WORD,
    BEAT,
    BEGUN,
    BUSY,
    BYTES_IN,
    BYTES_OUT,
    DELAY,
    DONE,
    METHOD,
    METHOD_WORDS,
    METHODS,
    OPEN,
    REFUSED,
    ROW_WORDS,
    STARTS,
    STATUS_WORD,
    SYNCS,
    UPLOADS,
    WORD_BYTES,
    Row,
    clock_epoch_ns,
)
from kvd.native import compiled
from kvd.net.bpf import create_map

ROWS_TOGETHER: Final = 8
"""
The memory is rounded up to a multiple of this many rows, plus one, so that a program
that reads this many rows at once stays within it.
"""

# The words of the header, which precedes the rows: how many rows are in use, how many
# there are, how many have ever been in use, and the date when the monotonic clock
# began.
_IN_USE, _ROWS, _EVER, _EPOCH = range(4)
_HEAD_BYTES: Final = ROW_WORDS * WORD_BYTES

Tasks = tuple[tuple[int, ...], tuple[int, ...]]
"""
The open connections, and the requests in progress, of each worker.
"""


class ReadTasks(Protocol):
    """
    Reads a scoreboard.
    """

    def __call__(
        self,
        words: memoryview,
        row_words: int,
        count: int,
        opened: int,
        begun: int,
        done: int,
        /,
    ) -> Tasks:
        """
        Read the open connections, and the requests in progress, of all workers.

        Args:
            words: Of the scoreboard.
            row_words: How many words a row has.
            count: How many workers there are. The row of the first follows a header
                that is as long as a row.
            opened: The word of the open connections.
            begun: The word of the requests that have begun.
            done: The word of those that have ended.
        """


def read_tasks_in_python(
    words: memoryview,
    row_words: int,
    count: int,
    opened: int,
    begun: int,
    done: int,
    /,
) -> Tasks:
    """
    See `ReadTasks`.
    """
    end = (count + 1) * row_words
    connections, begins, ends = (
        words[row_words + word : end : row_words].tolist()
        for word in (opened, begun, done)
    )
    # The words were not read at the same moment.
    both = zip(begins, ends, strict=True)
    return tuple(connections), tuple(max(0, begin - end) for begin, end in both)


class ReadReady(Protocol):
    """
    Reads which workers can take a connection soon.
    """

    def __call__(
        self,
        words: memoryview,
        marks: memoryview,
        row_words: int,
        count: int,
        awake: int,
        beat: int,
        since_ns: int,
        woken_since_ns: int,
        /,
    ) -> tuple[int, ...]:
        """
        The numbers of the workers that are marked and give signs of life, ascending.

        Args:
            words: Of the scoreboard.
            marks: A byte for each worker: whether it takes connections.
            row_words: As for `ReadTasks`.
            count: How many workers there are.
            awake: The word for when a worker woke; 0: it waits for events.
            beat: The word for when it began to wait.
            since_ns: A worker that waits has begun after this time.
            woken_since_ns: Another has woken after this time.
        """


def read_ready_in_python(
    words: memoryview,
    marks: memoryview,
    row_words: int,
    count: int,
    awake: int,
    beat: int,
    since_ns: int,
    woken_since_ns: int,
    /,
) -> tuple[int, ...]:
    """
    See `ReadReady`.
    """
    end = (count + 1) * row_words
    wokes, beats = (
        words[row_words + word : end : row_words].tolist() for word in (awake, beat)
    )
    signs = zip(marks[:count].tolist(), wokes, beats, strict=True)
    return tuple(
        worker
        for worker, (takes, woke, beat) in enumerate(signs)
        if takes and (woke > woken_since_ns if woke else beat > since_ns)
    )


_dispatch: Final = compiled("_dispatch")

read_tasks: Final[ReadTasks] = (
    read_tasks_in_python if _dispatch is None else _dispatch.tasks
)
read_ready: Final[ReadReady] = (
    read_ready_in_python if _dispatch is None else _dispatch.ready
)

# Longer than any machine runs, and fewer nanoseconds than 63 bits hold.
_LONG_SECONDS: Final = 1e9


class Scoreboard:
    """
    The rows of all workers.
    """

    def __init__(self, descriptor: int) -> None:
        """
        Map a scoreboard that `create_scoreboard` has made.

        Args:
            descriptor: The descriptor of its memory; the caller closes it, now or
                later.
        """
        # The kernel does not report the size of a map's memory, so the header has it.
        at = _ROWS * WORD_BYTES
        with mmap.mmap(descriptor, _HEAD_BYTES) as head:
            rows = int.from_bytes(head[at : at + WORD_BYTES], sys.byteorder)
        self._memory = mmap.mmap(descriptor, _size(rows))
        self._words = memoryview(self._memory).cast("Q")
        self._marks = memoryview(self._memory)[_marks_start(rows) :]
        self._stalls = self._words[_stalls_start(rows) // WORD_BYTES :]

    @property
    def rows(self) -> int:
        """
        How many rows there are.
        """
        return int(self._words[_ROWS])

    @property
    def workers(self) -> int:
        """
        How many rows are in use. The supervisor may change it, up to `rows`; all
        processes see the change.
        """
        return int(self._words[_IN_USE])

    @workers.setter
    def workers(self, workers: int) -> None:
        self._words[_EVER] = max(self._words[_EVER], workers)
        self._words[_IN_USE] = workers

    @property
    def epoch_ns(self) -> int:
        """
        The date at which the monotonic clock began, in nanoseconds since the epoch, as
        known when the daemon started. Dates that the daemon's processes derive from it
        stay in order when the wall clock is set.
        """
        return int(self._words[_EPOCH])

    def mark(self, worker: int, takes: bool) -> None:
        """
        Mark whether a worker takes connections. The supervisor calls this, since it
        knows at once when a worker is gone or leaving; the worker's row shows neither.
        """
        self._marks[worker] = takes

    def count_stall(self, worker: int) -> None:
        """
        Count a stall: the supervisor has found that a worker makes no turn, and other
        workers take its connections.
        """
        self._stalls[worker] += 1

    def takers(self) -> int:
        """
        How many workers take connections.
        """
        return sum(self._marks[: self.workers])

    def loads(self, seconds: float, turn_seconds: float = inf) -> Loads:
        """
        How busy all workers are, and which of them can take a connection soon.

        All parts have the same number of workers, also while that number changes.

        Args:
            seconds: A worker that waits for events is ready if it began to wait within
                this time.
            turn_seconds: A worker that has events is ready if it woke within this time,
                and within `seconds`.
        """
        count = self.workers
        now = time.monotonic_ns()
        words = self._words
        ready = read_ready(
            words, self._marks, ROW_WORDS, count, AWAKE, BEAT,
            now - int(min(seconds, _LONG_SECONDS) * 1e9),
            now - int(min(seconds, turn_seconds, _LONG_SECONDS) * 1e9),
        )  # fmt: skip
        return Loads(ready, *read_tasks(words, ROW_WORDS, count, OPEN, BEGUN, DONE))

    @property
    def words_of_loads(self) -> tuple[memoryview, memoryview, Sequence[int]]:
        """
        Where `loads` is read: all words; a byte for each worker, whether it takes
        connections; how many words a row has, and the words of the number of workers,
        and of the open connections, the requests that have begun and those that have
        ended, of when it woke and of when it began to wait.
        """
        at = (ROW_WORDS, _IN_USE, OPEN, BEGUN, DONE, AWAKE, BEAT)
        return self._words, self._marks, at

    def silent_seconds(self) -> list[float]:
        """
        The time since each worker last began or ended to wait.
        """
        count = self.workers
        now = time.monotonic_ns()
        return [max(0, now - max(sign)) / 1e9 for sign in self._signs(count)]

    def own_row(self, worker: int) -> Row:
        """
        A worker's row, for the worker to write. It begins with nothing open.
        """
        return Row(self._row(worker), self.epoch_ns)

    def counts(self, worker: int) -> Counts:
        """
        What a worker is doing, and what has been counted for it.
        """
        words = self._row(worker).tolist()
        now = time.monotonic_ns()
        awake = words[AWAKE]
        busy = words[BUSY] + (max(0, now - awake) if awake else 0)
        return Counts(
            starts=words[STARTS],
            accepted=words[ACCEPTED],
            open=words[OPEN],
            requests=words[DONE],
            # The two words were not read at the same moment.
            in_progress=max(0, words[BEGUN] - words[DONE]),
            uploads=words[UPLOADS],
            bytes_in=words[BYTES_IN],
            bytes_out=words[BYTES_OUT],
            busy_seconds=busy / 1e9,
            silent_seconds=max(0, now - max(awake, words[BEAT])) / 1e9,
        )

    def sums(self) -> list[Sums]:
        """
        The sums of every worker number that was ever in use. Those that still are come
        first; the others keep their sums, so that no total ever decreases.
        """
        rows = [self._row(worker) for worker in range(self._words[_EVER])]
        return [
            _sums(row.tolist(), row.cast("B").cast("d"), stalls)
            for row, stalls in zip(rows, self._stalls, strict=False)
        ]

    def accepted_by(self, worker: int) -> int:
        """
        How many connections all processes with this worker number have accepted.
        """
        return int(self._words[(worker + 1) * ROW_WORDS + ACCEPTED])

    def batches(self, worker: int) -> memoryview:
        """
        Two words of a worker's row: the last batch of connections that it is done with,
        and the last that it refused, of all processes with this worker number. They
        must be read in this order, since what it refused was written before. `tasks`
        has the connections of the first, if it is read afterwards.

        The caller releases it, before this is closed.
        """
        start = (worker + 1) * ROW_WORDS + BATCH_WORD
        assert REFUSED == BATCH_WORD + 1
        return self._words[start : start + 2]

    @property
    def words_of_tasks(self) -> tuple[memoryview, int, int, int, int, int]:
        """
        Where `tasks` is read: all words, how many a row has, and the words of the
        number of workers, and of the open connections, the requests that have begun and
        those that have ended in each row.
        """
        return self._words, ROW_WORDS, _IN_USE, OPEN, BEGUN, DONE

    def tasks(self) -> Tasks:
        """
        The open connections, and the requests in progress, of each worker.
        """
        words = self._words
        return read_tasks(words, ROW_WORDS, words[_IN_USE], OPEN, BEGUN, DONE)

    def _row(self, worker: int) -> memoryview:
        start = (worker + 1) * ROW_WORDS
        return self._words[start : start + ROW_WORDS]

    def _signs(self, count: int) -> Iterator[tuple[int, int]]:
        """
        When each worker woke, 0 while it waits, and when it last began to wait.
        """
        return zip(self._column(AWAKE, count), self._column(BEAT, count), strict=True)

    def _column(self, word: int, count: int) -> list[int]:
        end = (count + 1) * ROW_WORDS
        return self._words[ROW_WORDS + word : end : ROW_WORDS].tolist()

    def close(self) -> None:
        """
        Unmap the memory. No row may be in use any more.
        """
        self._marks.release()
        self._stalls.release()
        self._words.release()
        self._memory.close()


def _sums(words: list[int], seconds: memoryview[float], stalls: int) -> Sums:
    methods = tuple(
        MethodSums(
            statuses=tuple(words[at + STATUS_WORD : at + METHOD_WORDS]),
            seconds=seconds[at],
            latency=tuple(words[at + 1 : at + STATUS_WORD]),
        )
        for at in range(METHOD, METHOD + len(METHODS) * METHOD_WORDS, METHOD_WORDS)
    )
    return Sums(
        starts=words[STARTS],
        stalls=stalls,
        accepted=words[ACCEPTED],
        requests=words[DONE],
        bytes_in=words[BYTES_IN],
        bytes_out=words[BYTES_OUT],
        busy_seconds=words[BUSY] / 1e9,
        methods=methods,
        total=reduce(add, methods),
        sync_seconds=words[SYNCS] / 1e9,
        syncs=words[SYNCS + 1 : SYNCS + 1 + BUCKETS],
        loop_delay=words[DELAY : DELAY + BUCKETS],
    )


def _marks_start(rows: int) -> int:
    return (1 + rounded_up(rows) + 1) * ROW_WORDS * WORD_BYTES


def create_scoreboard(workers: int, rows: int = 0) -> int:
    """
    Create the memory for a scoreboard.

    Args:
        workers: How many rows are in use.
        rows: How many rows there are, if more. A row that was never written takes no
            memory, unless the memory is the kernel's.

    Returns:
        A descriptor, which the caller closes. Child processes do not inherit it, but it
        can be sent.
    """
    rows = max(workers, rows)
    is_plain = False
    try:
        descriptor = create_map(_size(rows))
    except OSError:
        # Only programs in the kernel need that memory, and the kernel would refuse to
        # load them too.
        descriptor = os.memfd_create("kvd scoreboard", os.MFD_CLOEXEC)
        is_plain = True
    try:
        if is_plain:
            os.ftruncate(descriptor, _size(rows))
        with (
            mmap.mmap(descriptor, _HEAD_BYTES) as head,
            memoryview(head).cast("Q") as words,
        ):
            words[_IN_USE] = words[_EVER] = workers
            words[_ROWS] = rows
            # A machine without a battery-backed clock may not know the date yet.
            words[_EPOCH] = max(0, clock_epoch_ns())
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def rounded_up(rows: int) -> int:
    """
    Round up to a multiple of `ROWS_TOGETHER`.
    """
    return -(-rows // ROWS_TOGETHER) * ROWS_TOGETHER


def _stalls_start(rows: int) -> int:
    # Behind a byte for each row, in whole words.
    return _marks_start(rows) + -(-rows // WORD_BYTES) * WORD_BYTES


def _size(rows: int) -> int:
    return _stalls_start(rows) + rows * WORD_BYTES
