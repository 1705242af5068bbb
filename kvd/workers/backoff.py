"""
How long to wait before something that ended is started anew.
"""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 30.0


class Backoff:
    """
    Growing pauses while a process dies at its start.

    A process that had begun to work is replaced at once, but at most once per
    `FIRST_SECONDS`: clients wait for it, and it did not die of its start.
    """

    def __init__(self) -> None:
        self._failed_starts = 0

    def pause_after(self, lived_seconds: float, worked: bool) -> float:
        """
        How many seconds to wait, after a life of so many.

        Args:
            lived_seconds: From its start to its end.
            worked: Whether it had got to its work.
        """
        if worked:
            self._failed_starts = 0
            return max(0.0, FIRST_SECONDS - lived_seconds)
        self._failed_starts += 1
        if self._failed_starts == 1:
            return 0.0
        return float(
            min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(self._failed_starts - 2, 20))
        )
