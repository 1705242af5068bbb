"""
Figures that kvd is to reach, beside what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

REACHED: Final = "reached"
MISSED: Final = "not reached"

TARGET_COLUMNS: Final = ("figure", "measured", "target", "")


@dataclass(frozen=True, slots=True)
class Target:
    """
    A figure and its limit.
    """

    name: str
    measured: float
    limit: float
    at_least: bool
    """Else: at most."""
    style: str = "{:.2f}"
    """How both are shown."""

    @property
    def reached(self) -> bool:
        """
        Never where nothing was measured.
        """
        if math.isnan(self.measured):
            return False
        if self.at_least:
            return self.measured >= self.limit
        return self.measured <= self.limit

    def cells(self) -> Sequence[str]:
        """
        A line of a table.
        """
        sign = "at least" if self.at_least else "at most"
        return (
            self.name,
            "-" if math.isnan(self.measured) else self.style.format(self.measured),
            f"{sign} {self.style.format(self.limit)}",
            verdict(self.reached),
        )


def verdict(reached: bool) -> str:
    """
    In a table; a page colours these words.
    """
    return REACHED if reached else MISSED
