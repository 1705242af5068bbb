"""
How long a connection waits, and for what.

At any time it waits for exactly one thing, and for each there is a bound:

======  ============================  =================================
waits   left when                     after its time
======  ============================  =================================
IDLE    the first byte of a head      closed
HEAD    the head is complete          408, closed
BODY    the body is complete          408, upload discarded, closed
STORE   the store answers             (the store has bounds of its own)
TURN    others had their time         (we are slow then, not the client)
READER  the kernel took the reply     aborted
LINGER  the client closed             closed
======  ============================  =================================

BODY, READER and LINGER start anew with every byte that moves: out of the kernel, not
into it, whose buffers hold a minute's worth of a slow reader's bytes. All connections
are asked a few times a second, so that a request pays for no timer.

A reader that takes `READER_BYTES` within its time makes progress. Where it may have
read more than that before our kernel hears of it, it gets so much more time: from a
client on the same machine that read 1,000 bytes a second, nothing was heard for 103
seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, TypeAlias

from kvd.settings import Limits

LINGER_SECONDS: Final = 30.0
LINGER_SILENT_SECONDS: Final = 3.0
"""
A half that we closed waits for the client's: so long in all, and so long in
silence.
"""

READER_BYTES: Final = 60_000
"""
What a slow reader reads: by default, 1,000 bytes a second.
"""


class Waits(Enum):
    """
    What a connection waits for; the module's docstring has the table.
    """

    IDLE = "a request"
    HEAD = "the rest of a head"
    BODY = "the rest of a body"
    STORE = "an answer of the store"
    TURN = "its next time slice"
    READER = "the client to read"
    LINGER = "the client to close"


_PROGRESS_COUNTS: Final = frozenset((Waits.BODY, Waits.READER, Waits.LINGER))


Bounds: TypeAlias = Mapping[Waits, float]
"""
How many seconds each wait may last.
"""


def bounds_of(limits: Limits) -> Bounds:
    """
    The bounds for all connections.
    """
    return {
        Waits.IDLE: limits.idle_seconds,
        Waits.HEAD: limits.head_seconds,
        Waits.BODY: limits.body_seconds,
        Waits.STORE: float("inf"),
        Waits.TURN: float("inf"),
        Waits.READER: limits.reader_seconds,
        Waits.LINGER: LINGER_SILENT_SECONDS,
    }


class Patience:
    """
    Knows what is waited for, and when that has lasted too long.
    """

    __slots__ = ("_began", "_bounds", "_moved", "_since", "waits")

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._bounds = bounds
        self.waits = Waits.IDLE
        self._since = self._began = now
        self._moved = 0

    def wait(self, waits: Waits, now: float) -> None:
        """
        Wait for this from now on. What was waited for already goes on, except
        that each request is awaited anew.
        """
        if waits is not self.waits or waits is Waits.IDLE:
            self.waits = waits
            self._since = self._began = now

    def asked(self, then: float) -> None:
        """
        A request came at this time: the next is awaited since then, if not since later.
        """
        if self.waits is Waits.IDLE and then > self._since:
            self._since = self._began = then

    def bound(self) -> float:
        """
        How many seconds the present wait may last.
        """
        return self._bounds[self.waits]

    def lasted(self, now: float) -> float:
        """
        How many seconds the present wait has lasted, or since something moved in it.
        """
        return now - self._since

    def is_over(self, now: float, moved: int, unheard_bytes: int = 0) -> bool:
        """
        Whether the present wait has lasted too long.

        Args:
            now: The time.
            moved: How many bytes the connection has moved in its life.
            unheard_bytes: What a reader may have read without our knowing.
        """
        if moved != self._moved:
            self._moved = moved
            if self.waits in _PROGRESS_COUNTS:
                self._since = now
        if self.waits is Waits.LINGER and now - self._began >= LINGER_SECONDS:
            return True
        times = max(1.0, unheard_bytes / READER_BYTES)
        return self.lasted(now) >= self._bounds[self.waits] * times
