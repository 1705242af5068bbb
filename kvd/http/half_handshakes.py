"""
Handshakes of TLS that have begun and are not complete.

OpenSSL needs some 70 KiB for one, which a client can have for the first message it
sends, so only some at a time are waited for in each process. When there would be more,
the oldest one of the address that has most of them ends: so a client waits in vain only
if its own address has as many as any other. (Without that bound, 10,000 clients that
send the first message and then nothing took some 700 MiB.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

MOST_HALF_DONE: Final = 256
"""
The most handshakes that may be half done in a process. They take some 18 MiB, and a
client on the other side of the world needs a second if 256 others begin within it.
"""


class HalfHandshakes:
    """
    Those of a process.
    """

    def __init__(self) -> None:
        self._ends: dict[str, dict[Callable[[], None], None]] = {}
        """Of each network, the oldest first."""
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, end: Callable[[], None], network: str) -> None:
        """
        A handshake waits for its client. It may have been added before.

        Args:
            end: Ends it, to make room.
            network: Whose it is (`kvd.access.networks`).
        """
        ends = self._ends.setdefault(network, {})
        if end in ends:
            return
        ends[end] = None
        self._count += 1
        if self._count > MOST_HALF_DONE:
            most = max(self._ends, key=lambda each: len(self._ends[each]))
            oldest = next(iter(self._ends[most]))
            self.discard(oldest, most)
            oldest()

    def discard(self, end: Callable[[], None], network: str) -> None:
        """
        A handshake is complete, or its client is gone. It need not have been added.
        """
        ends = self._ends.get(network)
        if ends is None or end not in ends:
            return
        del ends[end]
        self._count -= 1
        if not ends:
            del self._ends[network]
