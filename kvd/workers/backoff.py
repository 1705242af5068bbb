"""
How long to wait before something that ended is started anew.
"""

from __future__ import annotations

from typing import Final

FIRST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 30.0
LIVED_SECONDS: Final = 1.0
"""
Who lived for so long did not die of its start.
"""


class Backoff:
    """
    No pause after a life, growing pauses while it dies young.
    """

    def __init__(self) -> None:
        self._young = 0

    def pause_after(self, lived_seconds: float) -> float:
        """
        How many seconds to wait, after a life of so many.
        """
        if lived_seconds >= LIVED_SECONDS:
            self._young = 0
            return 0.0
        self._young += 1
        if self._young == 1:
            return 0.0
        return float(min(MOST_SECONDS, FIRST_SECONDS * 2 ** min(self._young - 2, 20)))
