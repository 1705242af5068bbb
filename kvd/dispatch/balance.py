"""
How evenly something is spread.
"""

from __future__ import annotations

from collections.abc import Sequence


def jain_index(shares: Sequence[float]) -> float:
    """
    Jain's index of fairness: 1 where all shares are equal, 1/n where one of n
    has everything (Jain, Chiu and Hawe, DEC-TR-301, 1984). Where there is
    nothing to share, nobody is treated unfairly: 1.
    """
    squares = sum(share * share for share in shares)
    if not squares:
        return 1.0
    return sum(shares) ** 2 / (len(shares) * squares)
