"""
How often a user or an address may ask: requests per second, over all workers.

Each has a slot in memory that all workers share, with the moment at which all that it
asked would have been due, had it asked evenly (the generic cell rate algorithm of ATM).
A request is refused if that is more than a burst ahead of now. The burst is what may be
asked in a second.

Two processes that count for one slot at the same moment may lose one of the two. Slots
are found by a hash with a random key; where too many are in use, the one that is due
first is used for somebody else, who then begins anew.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import secrets
from typing import Final

from twisted.internet.interfaces import IReactorTime

from kvd.errors import TooManyRequests

SLOTS: Final = 4096
WAYS: Final = 4
"""
How many slots may be somebody's.
"""

BURST_NANOSECONDS: Final = 10**9

_NANOSECONDS: Final = 1e9


class Rates:
    """
    Counts requests.

    Made before workers are forked, it is one for all of them.
    """

    def __init__(self) -> None:
        # A slot has the hash of its name, and the moment, each a word, which a process
        # stores at once.
        self._memory: Final = memoryview(mmap.mmap(-1, 16 * SLOTS)).cast("Q")
        self._key: Final = secrets.token_bytes(16)

    def check(self, name: str, per_second: float, clock: IReactorTime) -> None:
        """
        Count a request.

        Args:
            name: Who asks, for a sentence.
            per_second: How often that may be.
            clock: Monotonic.

        Raises:
            TooManyRequests: There were too many; this one is not counted.
        """
        wait_seconds = self.wait_seconds(name, per_second, clock.seconds())
        if wait_seconds:
            raise TooManyRequests(
                f"{name} may send {per_second:g} requests per second: try again later.",
                max(1, math.ceil(wait_seconds)),
            )

    def wait_seconds(self, name: str, per_second: float, now: float) -> float:
        """
        Count a request.

        Args:
            name: Who asks.
            per_second: How often that may be.
            now: In seconds, by the monotonic clock.

        Returns:
            0, or in how many seconds it may be asked again; then it is not counted.
        """
        digest = hashlib.blake2b(name.encode(), key=self._key, digest_size=16).digest()
        # Never 0, which is an empty slot.
        tag = int.from_bytes(digest[:8], "little") | 1
        first = WAYS * (int.from_bytes(digest[8:], "little") % (SLOTS // WAYS))
        memory, now_ns = self._memory, int(now * _NANOSECONDS)
        slot = self._slot(tag, first)
        due = max(memory[2 * slot + 1], now_ns) if memory[2 * slot] == tag else now_ns
        ahead_ns = due - now_ns
        step_ns = int(_NANOSECONDS / per_second)
        # Of a rate such as 3, the steps are not all of a second.
        beyond_ns = ahead_ns + step_ns - BURST_NANOSECONDS
        if beyond_ns > 0:
            return beyond_ns / _NANOSECONDS
        memory[2 * slot] = tag
        memory[2 * slot + 1] = due + step_ns
        return 0.0

    def _slot(self, tag: int, first: int) -> int:
        memory = self._memory
        slots = range(first, first + WAYS)
        for slot in slots:
            if memory[2 * slot] == tag:
                return slot
        return min(slots, key=lambda slot: memory[2 * slot + 1])
