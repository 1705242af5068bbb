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
        self._networks: dict[Callable[[], None], str] = {}

    def __len__(self) -> int:
        return len(self._networks)

    def add(self, end: Callable[[], None], network: str) -> None:
        """
        A handshake waits for its client. It may have been added before.

        Args:
            end: Ends it, to make room.
            network: Whose it is (`kvd.access.networks`).
        """
        if end in self._networks:
            return
        self._networks[end] = network
        self._ends.setdefault(network, {})[end] = None
        if len(self._networks) > MOST_HALF_DONE:
            most = max(self._ends, key=lambda each: len(self._ends[each]))
            oldest = next(iter(self._ends[most]))
            self.discard(oldest)
            oldest()

    def discard(self, end: Callable[[], None]) -> None:
        """
        A handshake is complete, or its client is gone. It need not have been added.
        """
        network = self._networks.pop(end, None)
        if network is None:
            return
        ends = self._ends[network]
        del ends[end]
        if not ends:
            del self._ends[network]
