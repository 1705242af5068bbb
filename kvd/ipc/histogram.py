"""
Histograms of durations, in buckets that are each twice as wide as the one before.

Adding a duration takes the exponent of a float and one store. Histograms are added or
subtracted number by number. So workers can count in shared memory, and a process that
reads it twice knows what happened in between. The price is that a duration is known
only within a factor of two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_LEAST: Final = -17
_MOST: Final = 7

BOUNDS_SECONDS: Final = tuple(2.0**e for e in range(_LEAST, _MOST + 1))
"""
The upper bounds of all buckets but the last, which has none: from 8 µs, below which
nothing is worth distinguishing, to 128 s. What lies on a bound is above it.
"""

BUCKETS: Final = len(BOUNDS_SECONDS) + 1

# From 2**-30, which is about a nanosecond, to far beyond what a clock can say.
LEAST_EXPONENT: Final = -30
BUCKET_OF_EXPONENT: Final = tuple(
    min(max(exponent - _LEAST, 0), BUCKETS - 1)
    for exponent in range(LEAST_EXPONENT, 64)
)
"""
The bucket of a duration by its exponent, which `math.frexp` gives; the first entry
is that of `LEAST_EXPONENT`.
"""


def quantile(counts: Sequence[int], share: float) -> float | None:
    """
    The duration that a share of all stayed below, in seconds; None for none. Within
    its bucket it is estimated: as if the durations in it grew by equal factors.

    Args:
        counts: One for each bucket.
        share: From 0 to 1.
    """
    rank = share * sum(counts)
    below = 0
    for bucket, count in enumerate(counts):
        if count and below + count >= rank:
            if bucket == BUCKETS - 1:
                return BOUNDS_SECONDS[-1]
            inside = (rank - below) / count
            return float(BOUNDS_SECONDS[bucket] * 2 ** (inside - 1))
        below += count
    return None


def highest(counts: Sequence[int]) -> float | None:
    """
    A bound of the longest duration, in seconds: it was shorter than this, and at
    least half as long, unless it is in the first or the last bucket. None for none.
    """
    for bucket in range(BUCKETS - 1, -1, -1):
        if counts[bucket]:
            return BOUNDS_SECONDS[min(bucket, BUCKETS - 2)]
    return None
