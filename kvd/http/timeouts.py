"""
How long a connection waits in each of its states (`kvd.http.states`).

=============  =================================
state          after its time
=============  =================================
PROXY          closed
HANDSHAKE      closed
IDLE           closed
HEAD           408, closed
BODY           408, upload discarded, closed
STORE          (the store has bounds of its own)
DELAY          (kvd is late then, not the client)
SLICE          (kvd is slow then, not the client)
SENDING        aborted
RELAY          aborted, if it is the client that is waited for, not the store
CLOSING        aborted
LINGER         closed
=============  =================================

The time of BODY starts anew with every byte that comes, which the connection says
(`Timeouts.start`). That of SENDING, RELAY, CLOSING and LINGER starts anew with every
byte that moves: out of the kernel, not into it, whose buffers hold a minute's worth of
a slow reader's bytes. All connections are checked a few times a second, so that no
request pays for a timer.

A reader that takes `READER_BYTES` within its time makes progress. Where the client may
read more than that before this kernel hears of it, it gets as many times more time:
from a client on the same machine that read 1,000 bytes a second, nothing was heard for
103 seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

from kvd.http.states import State
from kvd.settings import Limits

LINGER_SECONDS: Final = 30.0
LINGER_SILENT_SECONDS: Final = 3.0
"""
How long kvd waits for a client to close after kvd has closed its own half: in all, and
without a byte from the client.
"""

READER_BYTES: Final = 60_000
"""
What a slow reader reads: by default, 1,000 bytes a second.
"""

_PROGRESS_COUNTS: Final = frozenset(
    (State.SENDING, State.RELAY, State.CLOSING, State.LINGER)
)

Bounds: TypeAlias = Mapping[State, float]
"""
How many seconds each state may last.
"""


def bounds_of(limits: Limits) -> Bounds:
    """
    The bounds for all connections.
    """
    never = float("inf")
    return {
        State.PROXY: limits.head_seconds,
        State.HANDSHAKE: limits.head_seconds,
        State.IDLE: limits.idle_seconds,
        State.HEAD: limits.head_seconds,
        State.BODY: limits.body_seconds,
        State.STORE: never,
        State.DELAY: never,
        State.SLICE: never,
        State.SENDING: limits.reader_seconds,
        State.RELAY: limits.reader_seconds,
        State.CLOSING: limits.reader_seconds,
        State.LINGER: LINGER_SILENT_SECONDS,
        State.BROKEN: never,
        State.CLOSED: never,
    }


class Timeouts:
    """
    Knows how long a connection has been waiting, and when that is too long.
    """

    __slots__ = ("_began", "_bounds", "_moved", "_since")

    def __init__(self, bounds: Bounds, now: float) -> None:
        self._bounds = bounds
        self._since = self._began = now
        self._moved = 0

    def start(self, now: float) -> None:
        """
        A wait begins.
        """
        self._since = self._began = now

    def start_from(self, then: float) -> None:
        """
        The wait began at this time, if not later.
        """
        if then > self._since:
            self._since = self._began = then

    def bound(self, state: State) -> float:
        """
        How many seconds a state may last.
        """
        return self._bounds[state]

    def lasted(self, now: float) -> float:
        """
        How many seconds the wait has lasted, or since something moved in it.
        """
        return now - self._since

    def is_over(
        self, state: State, now: float, moved: int, unheard_bytes: int = 0
    ) -> bool:
        """
        Whether the present wait has lasted too long.

        Args:
            state: What is waited for.
            now: The time.
            moved: How many bytes the connection has received and sent in all.
            unheard_bytes: What a reader may have read without this kernel knowing.
        """
        if moved != self._moved:
            self._moved = moved
            if state in _PROGRESS_COUNTS:
                self._since = now
        if state is State.LINGER and now - self._began >= LINGER_SECONDS:
            return True
        times = max(1.0, unheard_bytes / READER_BYTES)
        return self.lasted(now) >= self._bounds[state] * times
