"""
One worker's row of the scoreboard: its words, and how the worker itself writes them.

One aligned word of eight bytes is written per store. A process that reads meanwhile
sees the old number or the new one, never half of each (``struct.pack_into`` copies byte
by byte, and tears). The words of one row are written at different moments, so two of
them need not be consistent.
"""

from __future__ import annotations

import time
from math import frexp
from typing import TYPE_CHECKING, Final, NamedTuple

from kvd.ipc.histogram import BUCKET_OF_EXPONENT, BUCKETS, LEAST_EXPONENT
from kvd.native import compiled

if TYPE_CHECKING:
    from kvd.net.reactor import LoopTimes

WORD_BYTES: Final = 8
ROW_WORDS: Final = 80
"""
Ten cache lines of 64 bytes, a whole number of the pairs that x86 prefetches
together.
"""

(
    ACCEPTED,
    OPEN,
    BEGUN,
    DONE,
    BYTES_IN,
    BYTES_OUT,
    BUSY,
    AWAKE,
    BEAT,
    STARTS,
    SERVING,  # seconds, as a float of 64 bits
    BATCH_WORD,
    REFUSED,
    LATENCY,
) = range(14)
DELAY = LATENCY + BUCKETS
assert DELAY + BUCKETS <= ROW_WORDS

# The word of a duration, by its exponent.
_LATENCY_WORD = tuple(LATENCY + bucket for bucket in BUCKET_OF_EXPONENT)
_DELAY_WORD = tuple(DELAY + bucket for bucket in BUCKET_OF_EXPONENT)


class RequestWords(NamedTuple):
    """
    The words of a row that count a request, and the connection that it came with.
    """

    accepted: int
    open: int
    begun: int
    done: int
    bytes_in: int
    bytes_out: int
    serving: int
    """A float of 64 bits."""
    latency: int
    """The first of the buckets."""


WORDS_OF_REQUESTS: Final = RequestWords(
    ACCEPTED, OPEN, BEGUN, DONE, BYTES_IN, BYTES_OUT, SERVING, LATENCY
)
"""
For `kvd.http.fast_path`, which writes these words itself.
"""

_reactor: Final = compiled("_reactor")

# Added to each duration: the exponent of 0 is 0, as is that of 0.5.
_A_NANOSECOND = 1e-9


class Row:
    """
    One worker's row, as the worker itself writes it.
    """

    __slots__ = ("_seconds", "_words", "epoch_ns")

    def __init__(self, words: memoryview, epoch_ns: int) -> None:
        """
        Args:
            words: The row's words, of format ``Q``, as the previous process left them;
                zeroes for the first.
            epoch_ns: See `Scoreboard.epoch_ns`.
        """
        self.epoch_ns = epoch_ns
        self._words = words
        self._seconds = words.cast("B").cast("d")
        words[OPEN] = words[AWAKE] = 0
        words[BEGUN] = words[DONE]
        words[BEAT] = time.monotonic_ns()
        words[STARTS] += 1

    @property
    def words(self) -> memoryview:
        """
        The whole row, for code that counts without these methods.
        """
        return self._words

    @property
    def open(self) -> int:
        """
        How many connections are open.
        """
        return int(self._words[OPEN])

    def opened(self) -> None:
        """
        A connection has begun.
        """
        # In this order: a reader that no longer counts an accepted connection as on its
        # way must find it open.
        self._words[OPEN] += 1
        self._words[ACCEPTED] += 1

    def closed(self) -> None:
        """
        A connection has ended.
        """
        self._words[OPEN] -= 1

    def batch_done(self, number: int) -> None:
        """
        The worker is done with all batches of connections up to this one, except for
        those that it has refused.
        """
        self._words[BATCH_WORD] = number

    def batch_refused(self, number: int) -> None:
        """
        The worker refuses a batch of connections, and has not called `batch_done` for
        it yet.
        """
        self._words[REFUSED] = number

    def began(self) -> None:
        """
        A request has begun.
        """
        self._words[BEGUN] += 1

    def finished(self, seconds: float) -> None:
        """
        A request has ended, or was aborted.

        Args:
            seconds: How long it took.
        """
        words = self._words
        words[DONE] += 1
        exponent = frexp(seconds + _A_NANOSECOND)[1]
        words[_LATENCY_WORD[exponent - LEAST_EXPONENT]] += 1
        self._seconds[SERVING] += seconds

    def received(self, count: int) -> None:
        """
        This many bytes have been received.
        """
        self._words[BYTES_IN] += count

    def sent(self, count: int) -> None:
        """
        This many bytes have been sent.
        """
        self._words[BYTES_OUT] += count

    @property
    def turns(self) -> LoopTimes:
        """
        What counts the turns of the reactor in this row: compiled, where it can be.
        """
        if _reactor is None:
            return self
        turns: LoopTimes = _reactor.Turns(
            self._words, AWAKE, BUSY, BEAT, _DELAY_WORD, LEAST_EXPONENT
        )
        return turns

    def waits(self) -> None:
        """
        The worker waits for events from now on.
        """
        words = self._words
        now = time.monotonic_ns()
        if words[AWAKE]:
            took = now - words[AWAKE]
            words[BUSY] += took
            words[AWAKE] = 0
            exponent = frexp(took * 1e-9 + _A_NANOSECOND)[1]
            words[_DELAY_WORD[exponent - LEAST_EXPONENT]] += 1
        words[BEAT] = now

    @property
    def turn(self) -> int:
        """
        A number that no earlier turn of the reactor had; 0 if no reactor reports when
        it waits.
        """
        return int(self._words[AWAKE])

    def woke(self) -> None:
        """
        The worker has woken: it has events, or nothing to wait for.
        """
        self._words[AWAKE] = time.monotonic_ns()


def lone_row() -> Row:
    """
    A row that no other process can read.
    """
    words = memoryview(bytearray(ROW_WORDS * WORD_BYTES)).cast("Q")
    return Row(words, clock_epoch_ns())


def clock_epoch_ns() -> int:
    """
    The date at which the monotonic clock began, by the wall clock as it is now, in
    nanoseconds since the epoch.
    """
    return time.time_ns() - time.monotonic_ns()
