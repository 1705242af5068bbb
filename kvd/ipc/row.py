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
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from kvd.ipc.histogram import BUCKET_OF_EXPONENT, BUCKETS, LEAST_EXPONENT
from kvd.native import compiled

if TYPE_CHECKING:
    from kvd.net.reactor import LoopTimes

WORD_BYTES: Final = 8
ROW_WORDS: Final = 272
"""
34 cache lines of 64 bytes, a whole number of the pairs that x86 prefetches together.
"""

METHODS: Final = ("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "other")
"""
The methods that are counted by their names. Clients can make up any others, so those
are counted together, under the last name.
"""

STATUSES: Final = ("2xx", "3xx", "4xx", "5xx", "499", "501", "507")
"""
The classes of statuses. 499 is no status that kvd sends: the client left before the
reply, as the access log has it. 501 is what kvd does not offer, such as a method, and
also another version of HTTP (505): a client's doing, while 5xx are failures, for which
somebody may be called. 507 is no room: whoever may store values can cause it where
there are quotas.
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
    BATCH_WORD,
    REFUSED,
    UPLOADS,
    DELAY,
) = range(14)
SYNCS = DELAY + BUCKETS
"""
Nanoseconds; then a histogram. `kvd.ipc.syncs` has them written.
"""
METHOD = SYNCS + 1 + BUCKETS
"""
For each method: seconds, as a float of 64 bits; a histogram; a word for each class of
statuses.
"""
STATUS_WORD = 1 + BUCKETS
METHOD_WORDS = STATUS_WORD + len(STATUSES)
assert METHOD + len(METHODS) * METHOD_WORDS <= ROW_WORDS

# The word of a duration, by its exponent.
_DELAY_WORD = tuple(DELAY + bucket for bucket in BUCKET_OF_EXPONENT)

_WORD_OF_METHOD: Final = {
    method: METHOD + METHOD_WORDS * number for number, method in enumerate(METHODS)
}
_WORD_OF_OTHERS: Final = _WORD_OF_METHOD[METHODS[-1]]

CLIENT_LEFT: Final = 499
"""
The status in the access log, never on the wire, of a request whose client left before
the reply.
"""


_NOT_OFFERED: Final = (501, 505)
_NO_ROOM: Final = 507


def _class_of(status: int) -> str:
    if status == CLIENT_LEFT:
        return "499"
    if status in _NOT_OFFERED:
        return "501"
    if status == _NO_ROOM:
        return "507"
    # What is no status at all is a mistake of ours.
    return f"{status // 100}xx" if 200 <= status < 500 else "5xx"


STATUS_WORDS: Final = bytes(
    STATUS_WORD + STATUSES.index(_class_of(status)) for status in range(1000)
)
"""
For each status, the word that counts it among those of its method.
"""


def word_of_method(method: str) -> int:
    """
    The first of the words that count requests with this method.
    """
    return _WORD_OF_METHOD.get(method, _WORD_OF_OTHERS)


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
    uploads: int
    """Requests that store a value, have begun and have not ended."""


WORDS_OF_REQUESTS: Final = RequestWords(
    ACCEPTED, OPEN, BEGUN, DONE, BYTES_IN, BYTES_OUT, UPLOADS
)

_reactor: Final = compiled("_reactor")
_native: Final = compiled("_fast_path")

# Added to each duration: the exponent of 0 is 0, as is that of 0.5.
_A_NANOSECOND = 1e-9


class RequestCounts(Protocol):
    """
    Counts connections and requests in a row. `kvd.http.fast_path` counts with the
    compiled one too.
    """

    def opened(self) -> None:
        """
        A connection has begun.
        """

    def closed(self) -> None:
        """
        A connection has ended.
        """

    def began(self, is_upload: bool, /) -> None:
        """
        A request has begun, which stores a value or does not.
        """

    def finished(
        self, method: int, is_upload: bool, status: int, seconds: float, /
    ) -> None:
        """
        A request has ended, or was aborted.

        Args:
            method: See `word_of_method`.
            is_upload: As when it began.
            status: Of the reply, or `CLIENT_LEFT`.
            seconds: How long it took.
        """

    def received(self, count: int, /) -> None:
        """
        This many bytes have been received.
        """

    def sent(self, count: int, /) -> None:
        """
        This many bytes have been sent.
        """


class CountsInPython:
    """
    See `RequestCounts`. Without a C compiler, this does what ``kvd/native/counts.c``
    does.
    """

    def __init__(self, words: memoryview) -> None:
        """
        Args:
            words: Those of the row.
        """
        self._words = words
        self._seconds = words.cast("B").cast("d")

    def opened(self) -> None:
        # In this order: a reader that no longer counts an accepted connection as on its
        # way must find it open.
        self._words[OPEN] += 1
        self._words[ACCEPTED] += 1

    def closed(self) -> None:
        self._words[OPEN] -= 1

    def began(self, is_upload: bool, /) -> None:
        self._words[BEGUN] += 1
        self._words[UPLOADS] += is_upload

    def finished(
        self, method: int, is_upload: bool, status: int, seconds: float, /
    ) -> None:
        words = self._words
        words[DONE] += 1
        words[UPLOADS] -= is_upload
        words[method + STATUS_WORDS[min(status, len(STATUS_WORDS) - 1)]] += 1
        exponent = frexp(seconds + _A_NANOSECOND)[1]
        words[method + 1 + BUCKET_OF_EXPONENT[exponent - LEAST_EXPONENT]] += 1
        self._seconds[method] += seconds

    def received(self, count: int, /) -> None:
        self._words[BYTES_IN] += count

    def sent(self, count: int, /) -> None:
        self._words[BYTES_OUT] += count


def _counts_in(words: memoryview) -> RequestCounts:
    if _native is None:
        return CountsInPython(words)
    counts: RequestCounts = _native.RequestCounts(
        words,
        WORDS_OF_REQUESTS,
        STATUS_WORDS,
        BUCKET_OF_EXPONENT,
        LEAST_EXPONENT,
        AWAKE,
    )
    return counts


class Row:
    """
    One worker's row, as the worker itself writes it.
    """

    __slots__ = ("_words", "counts", "epoch_ns")

    def __init__(self, words: memoryview, epoch_ns: int) -> None:
        """
        Args:
            words: The row's words, of format ``Q``, as the previous process left them;
                zeroes for the first.
            epoch_ns: See `Scoreboard.epoch_ns`.
        """
        self.epoch_ns = epoch_ns
        self._words = words
        self.counts = _counts_in(words)
        """What counts in this row, for code that counts without these methods."""
        words[OPEN] = words[AWAKE] = words[UPLOADS] = 0
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
        self.counts.opened()

    def closed(self) -> None:
        """
        A connection has ended.
        """
        self.counts.closed()

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

    def began(self, method: str) -> None:
        """
        A request has begun.
        """
        self.counts.began(method == "PUT")

    def finished(self, seconds: float, method: str, status: int) -> None:
        """
        A request has ended, or was aborted.

        Args:
            seconds: How long it took.
            method: The one with which it began.
            status: Of the reply, or `CLIENT_LEFT`.
        """
        at = word_of_method(method)
        self.counts.finished(at, method == "PUT", status, seconds)

    def received(self, count: int) -> None:
        """
        This many bytes have been received.
        """
        self.counts.received(count)

    def sent(self, count: int) -> None:
        """
        This many bytes have been sent.
        """
        self.counts.sent(count)

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
