"""
How much memory the kernel uses for all connections of the machine over TCP
(``net.ipv4.tcp_mem``, tcp(7)).

At the second of three bounds the kernel gives all sockets less memory; at the third it
drops what arrives, and then every client waits for retransmissions. Clients that read
nothing bring it there, if each may have all that its socket takes: 10,000 of them had
2.2 GiB, and a small GET of anybody else took half a second. So while the kernel uses
more than half of the first bound, kvd gives it little at a time for clients that it
waits for.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

USAGE: Final = "/proc/net/sockstat"
BOUNDS: Final = "/proc/sys/net/ipv4/tcp_mem"

_HELD: Final = re.compile(rb"^TCP: .*\bmem (\d+)", re.MULTILINE)


class TCPMemory:
    """
    Compares what the kernel uses with its bounds. To ask takes 2 microseconds.
    """

    def __init__(self, usage: str = USAGE, bounds: str = BOUNDS) -> None:
        """
        Args:
            usage: A file in the form of ``/proc/net/sockstat``.
            bounds: One in the form of ``tcp_mem``. If it is missing, as in a container,
                the default of the kernel counts.
        """
        self._usage: int | None = None
        with suppress(OSError):
            self._usage = os.open(usage, os.O_RDONLY | os.O_CLOEXEC)
        self._most_pages = _first_bound(bounds) // 2

    def is_short(self) -> bool:
        """
        Whether the kernel uses more than half of the first bound; False where it does
        not say.
        """
        if self._usage is None:
            return False
        try:
            found = _HELD.search(os.pread(self._usage, 1024, 0))
        except OSError:
            return False
        return found is not None and int(found[1]) > self._most_pages

    def close(self) -> None:
        """
        Ask no more.
        """
        if self._usage is not None:
            os.close(self._usage)
            self._usage = None


def _first_bound(path: str) -> int:
    """
    In pages.
    """
    try:
        return int(Path(path).read_text().split()[0])
    except (OSError, ValueError, IndexError):
        # Three quarters of a sixteenth of the memory (tcp_init_mem of the kernel).
        return os.sysconf("SC_PHYS_PAGES") * 3 // 64
