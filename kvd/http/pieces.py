"""
How much of a reply's body the kernel is given at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FILE_BYTES: Final = 1024 * 1024
"""
The most of a file that is sent in one turn of the reactor.
"""

SHORT_BYTES: Final = 16 * 1024
"""
The same while the kernel is short of memory for TCP; also what a client that kvd waits
for may have unsent in the kernel then.
"""


class Pieces:
    """
    The pieces of all connections of a process.
    """

    bytes = FILE_BYTES
    """How much of a file to send at a time."""

    most_unsent: int | None = None
    """How much of a reply may wait in the kernel; None: as much as the kernel takes."""

    def __init__(self, is_short: Callable[[], bool] = lambda: False) -> None:
        """
        Args:
            is_short: Whether the kernel is short of memory.
        """
        self._is_short = is_short
        self.changed: Callable[[int], object] = lambda size: None
        """Called with each new size of pieces."""

    def measure(self) -> None:
        """
        Find out how large pieces may be now.
        """
        size = SHORT_BYTES if self._is_short() else FILE_BYTES
        if size != self.bytes:
            self.bytes = size
            self.most_unsent = None if size == FILE_BYTES else size
            self.changed(size)
