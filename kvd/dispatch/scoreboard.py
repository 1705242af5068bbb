"""
What the workers do at this moment, in memory that all processes share.

Each worker has a row that it alone writes, one aligned word of eight bytes per
store: whoever reads meanwhile sees the old number or the new one, never half
of each (``struct.pack_into`` copies byte by byte, and tears). The words of one
row belong to different moments, so two of them need not fit together.

Rows begin on a cache line of their own, so that no worker's counting slows
another's. They belong to a worker's place and outlive its process: what has been
counted is counted on by the replacement, so that no sum ever goes back; what was
open or in progress has died, which the replacement says. Until then nobody should
ask what the worker that is gone is doing now: who is there, the supervisor marks behind
the rows, and counts there what a worker that stands still cannot count.

Where this process may have it, the memory is one that programs in the kernel read too
(`kvd.dispatch.programs.least_busy`).
"""

from __future__ import annotations

import mmap
import os
import sys
import time
from dataclasses import dataclass
from math import frexp, inf
from typing import Final, NamedTuple

from kvd.dispatch.histogram import BUCKET_OF_EXPONENT, BUCKETS, LEAST_EXPONENT
from kvd.net.bpf import create_map

WORD_BYTES: Final = 8
ROW_WORDS: Final = 64
"""
Eight cache lines of 64 bytes, a whole number of the pairs that x86 prefetches
together.
"""

ROWS_TOGETHER: Final = 8
"""
There is memory for a multiple of so many rows, and for one behind them: whoever reads
so many at once stays within.
"""

(
    ACCEPTED,
    OPEN,
    BEGUN,
    DONE,
    _BYTES_IN,
    _BYTES_OUT,
    _BUSY,
    _AWAKE,
    _BEAT,
    _STARTS,
    _SERVING,  # seconds, as a float of 64 bits
    _LATENCY,
) = range(12)
_DELAY = _LATENCY + BUCKETS
assert _DELAY + BUCKETS <= ROW_WORDS

# Before the rows, one that says how many are in use, how many there are, how many have
# ever been in use, and which date it was when the monotonic clock began.
_IN_USE, _ROWS, _EVER, _EPOCH = range(4)
_HEAD_BYTES: Final = ROW_WORDS * WORD_BYTES

# The word of a duration, by its exponent.
_LATENCY_WORD = tuple(_LATENCY + bucket for bucket in BUCKET_OF_EXPONENT)
_DELAY_WORD = tuple(_DELAY + bucket for bucket in BUCKET_OF_EXPONENT)


class RequestWords(NamedTuple):
    """
    Where in a row a request is counted, and the connection that it came with.
    """

    accepted: int
    begun: int
    done: int
    bytes_in: int
    bytes_out: int
    serving: int
    """A float of 64 bits."""
    latency: int
    """The first of the buckets."""


WORDS_OF_REQUESTS: Final = RequestWords(
    ACCEPTED, BEGUN, DONE, _BYTES_IN, _BYTES_OUT, _SERVING, _LATENCY
)
"""
For `kvd.http.fast_path`, which counts for itself.
"""

# The exponent of 0 is 0, which is that of 0.5 too.
_A_NANOSECOND = 1e-9


@dataclass(frozen=True, slots=True)
class Counts:
    """
    A row as it was read, of a worker that is there.
    """

    starts: int
    """Processes that have been in this place, this one included; all sums go
    over all of them."""
    accepted: int
    """Connections."""
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
    """In which it did not wait for events."""
    silent_seconds: float
    """Since it last began or ended to wait: a worker waits for a second at
    most, so more than that is one event that takes long."""


@dataclass(frozen=True, slots=True)
class Sums:
    """
    What has been counted in a worker's place by all of its processes, whether or
    not there is one now. None of the numbers ever becomes less.
    """

    starts: int
    stalls: int
    """How often a process made no turn, and others took its connections."""
    accepted: int
    requests: int
    bytes_in: int
    bytes_out: int
    busy_seconds: float
    """In turns of the reactor that have ended."""
    serving_seconds: float
    """All requests together, from the end of the head to the end of the reply."""
    latency: list[int]
    """How many requests took how long, in the buckets of `kvd.dispatch.histogram`."""
    loop_delay: list[int]
    """How many turns of the reactor took how long, from waking to waiting: what
    had come meanwhile had to wait for so long."""


class Loads(NamedTuple):
    """
    What each worker has to do at this moment.
    """

    ready: list[int]
    """The numbers of those who count, ascending."""
    connections: list[int]
    """Open ones, of every worker."""
    requests: list[int]
    """Those in progress, of every worker."""


class Row:
    """
    One worker's row, in the hands of that worker.
    """

    __slots__ = ("_seconds", "_words", "epoch_ns")

    def __init__(self, words: memoryview, epoch_ns: int) -> None:
        """
        Args:
            words: The row's words, of format ``Q``, as the predecessor left them;
                zeroes for the first.
            epoch_ns: See `Scoreboard.epoch_ns`.
        """
        self.epoch_ns = epoch_ns
        self._words = words
        self._seconds = words.cast("B").cast("d")
        words[OPEN] = words[_AWAKE] = 0
        words[BEGUN] = words[DONE]
        words[_BEAT] = time.monotonic_ns()
        words[_STARTS] += 1

    @property
    def words(self) -> memoryview:
        """
        All of it, for whoever counts in a way of his own.
        """
        return self._words

    def opened(self) -> None:
        """
        A connection has begun.
        """
        # In this order: whoever takes what is accepted for no longer on its way finds
        # it here.
        self._words[OPEN] += 1
        self._words[ACCEPTED] += 1

    def closed(self) -> None:
        """
        A connection has ended.
        """
        self._words[OPEN] -= 1

    def began(self) -> None:
        """
        A request has begun.
        """
        self._words[BEGUN] += 1

    def finished(self, seconds: float) -> None:
        """
        A request has ended, or was broken off.

        Args:
            seconds: How long it took.
        """
        words = self._words
        words[DONE] += 1
        exponent = frexp(seconds + _A_NANOSECOND)[1]
        words[_LATENCY_WORD[exponent - LEAST_EXPONENT]] += 1
        self._seconds[_SERVING] += seconds

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
            took = now - words[_AWAKE]
            words[_BUSY] += took
            words[_AWAKE] = 0
            exponent = frexp(took * 1e-9 + _A_NANOSECOND)[1]
            words[_DELAY_WORD[exponent - LEAST_EXPONENT]] += 1
        words[_BEAT] = now

    @property
    def turn(self) -> int:
        """
        A number that the present turn of the reactor has, and no earlier one had; 0
        where no reactor says when it waits.
        """
        return int(self._words[_AWAKE])

    def woke(self) -> None:
        """
        The worker has events, or nothing to wait for.
        """
        self._words[_AWAKE] = time.monotonic_ns()


def lone_row() -> Row:
    """
    A row that nobody else can read.
    """
    words = memoryview(bytearray(ROW_WORDS * WORD_BYTES)).cast("Q")
    return Row(words, _epoch_ns())


def _epoch_ns() -> int:
    return time.time_ns() - time.monotonic_ns()


class Scoreboard:
    """
    The rows of all workers.
    """

    def __init__(self, descriptor: int) -> None:
        """
        Map a scoreboard that `create_scoreboard` has made.

        Args:
            descriptor: Of its memory; the caller's to close, now or later.
        """
        # Of the kernel's memory nobody else says how large it is.
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
        How many there are.
        """
        return int(self._words[_ROWS])

    @property
    def workers(self) -> int:
        """
        How many rows are in use. The supervisor may change it, up to as many as there
        are; everybody sees it.
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
        it was when the daemon started. What all its processes date by it stays in
        order, whoever sets the clock.
        """
        return int(self._words[_EPOCH])

    def mark(self, worker: int, takes: bool) -> None:
        """
        Say whether a worker takes connections. The supervisor does, which knows at
        once who is gone, and who is about to go; its row tells neither.
        """
        self._marks[worker] = takes

    def count_stall(self, worker: int) -> None:
        """
        A worker has made no turn for so long that others take its connections. The
        supervisor sees that.
        """
        self._stalls[worker] += 1

    def takers(self) -> int:
        """
        How many workers take connections.
        """
        return sum(self._marks[: self.workers])

    def loads(self, seconds: float, turn_seconds: float = inf) -> Loads:
        """
        What all workers have to do, and who of them counts: who takes connections, and
        is there to take one soon.

        As many workers in each part, also while their number is being changed.

        Args:
            seconds: Who waits for events counts if that has begun so recently.
            turn_seconds: Who has events counts if it has woken so recently, and within
                `seconds`.
        """
        count = self.workers
        now = time.monotonic_ns()
        since = now - seconds * 1e9
        woken_since = now - min(seconds, turn_seconds) * 1e9
        signs = zip(
            self._column(_AWAKE, count), self._column(_BEAT, count), strict=True
        )
        marks = self._marks[:count].tolist()
        return Loads(
            ready=[
                worker
                for worker, (takes, (woke, beat)) in enumerate(
                    zip(marks, signs, strict=True)
                )
                if takes and (woke > woken_since if woke else beat > since)
            ],
            connections=self._column(OPEN, count),
            requests=self._in_progress(count),
        )

    def silent_seconds(self) -> list[float]:
        """
        For how long each worker has neither begun nor ended to wait.
        """
        count = self.workers
        now = time.monotonic_ns()
        signs = zip(
            self._column(_AWAKE, count), self._column(_BEAT, count), strict=True
        )
        return [max(0, now - max(sign)) / 1e9 for sign in signs]

    def own_row(self, worker: int) -> Row:
        """
        A worker's row for the worker itself, which begins with nothing open.
        """
        return Row(self._row(worker), self.epoch_ns)

    def counts(self, worker: int) -> Counts:
        """
        What the worker in a place is doing, and has done.
        """
        words = self._row(worker).tolist()
        now = time.monotonic_ns()
        awake = words[_AWAKE]
        busy = words[_BUSY] + (max(0, now - awake) if awake else 0)
        return Counts(
            starts=words[_STARTS],
            accepted=words[ACCEPTED],
            open=words[OPEN],
            requests=words[DONE],
            # The two are not of one moment.
            in_progress=max(0, words[BEGUN] - words[DONE]),
            bytes_in=words[_BYTES_IN],
            bytes_out=words[_BYTES_OUT],
            busy_seconds=busy / 1e9,
            silent_seconds=max(0, now - max(awake, words[_BEAT])) / 1e9,
        )

    def sums(self) -> list[Sums]:
        """
        What was counted in every place that was ever in use. Those that still are come
        first; the others keep what was done in them, so that no total ever goes back.
        """
        rows = [self._row(worker) for worker in range(self._words[_EVER])]
        return [
            _sums(row.tolist(), row.cast("B").cast("d")[_SERVING], stalls)
            for row, stalls in zip(rows, self._stalls, strict=False)
        ]

    def accepted_by(self, worker: int) -> int:
        """
        How many connections there have been in a worker's place.
        """
        return int(self._words[(worker + 1) * ROW_WORDS + ACCEPTED])

    def connections(self) -> list[int]:
        """
        The open connections of every worker.
        """
        return self._column(OPEN, self.workers)

    def requests(self) -> list[int]:
        """
        The requests in progress of every worker.
        """
        return self._in_progress(self.workers)

    def _in_progress(self, count: int) -> list[int]:
        begun, done = self._column(BEGUN, count), self._column(DONE, count)
        return [max(0, b - d) for b, d in zip(begun, done, strict=True)]

    def _row(self, worker: int) -> memoryview:
        start = (worker + 1) * ROW_WORDS
        return self._words[start : start + ROW_WORDS]

    def _column(self, word: int, count: int) -> list[int]:
        end = (count + 1) * ROW_WORDS
        return self._words[ROW_WORDS + word : end : ROW_WORDS].tolist()

    def close(self) -> None:
        """
        Give the memory back. No row may be in use any more.
        """
        self._marks.release()
        self._stalls.release()
        self._words.release()
        self._memory.close()


def _sums(words: list[int], serving_seconds: float, stalls: int) -> Sums:
    return Sums(
        starts=words[_STARTS],
        stalls=stalls,
        accepted=words[ACCEPTED],
        requests=words[DONE],
        bytes_in=words[_BYTES_IN],
        bytes_out=words[_BYTES_OUT],
        busy_seconds=words[_BUSY] / 1e9,
        serving_seconds=serving_seconds,
        latency=words[_LATENCY : _LATENCY + BUCKETS],
        loop_delay=words[_DELAY : _DELAY + BUCKETS],
    )


def _marks_start(rows: int) -> int:
    return (1 + rounded_up(rows) + 1) * ROW_WORDS * WORD_BYTES


def create_scoreboard(workers: int, rows: int = 0) -> int:
    """
    Memory for a scoreboard.

    Args:
        workers: How many rows are in use.
        rows: How many there are, if there are more. Unless the memory is the kernel's,
            one that was never written costs none.

    Returns:
        A descriptor, the caller's to close; not inherited, but it can be sent.
    """
    rows = max(workers, rows)
    try:
        descriptor = create_map(_size(rows))
    except OSError:
        # Nothing is amiss until somebody wants a program that reads it, which the
        # kernel then refuses too.
        descriptor = os.memfd_create("kvd scoreboard", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, _size(rows))
    with (
        mmap.mmap(descriptor, _HEAD_BYTES) as head,
        memoryview(head).cast("Q") as words,
    ):
        words[_IN_USE] = words[_EVER] = workers
        words[_ROWS] = rows
        # A machine without a clock of its own may not know the date yet.
        words[_EPOCH] = max(0, _epoch_ns())
    return descriptor


def rounded_up(rows: int) -> int:
    """
    To a multiple of `ROWS_TOGETHER`.
    """
    return -(-rows // ROWS_TOGETHER) * ROWS_TOGETHER


def _stalls_start(rows: int) -> int:
    # Behind a byte for each row, in whole words.
    return _marks_start(rows) + -(-rows // WORD_BYTES) * WORD_BYTES


def _size(rows: int) -> int:
    return _stalls_start(rows) + rows * WORD_BYTES
