"""
Tests for `kvd.ipc.histogram`.
"""

from __future__ import annotations

from itertools import pairwise

import pytest

from kvd.ipc.histogram import BOUNDS_SECONDS, BUCKETS, highest, quantile


def counted(**buckets: int) -> list[int]:
    """
    A histogram; ``b3=5`` has 5 in bucket 3.
    """
    return [buckets.get(f"b{bucket}", 0) for bucket in range(BUCKETS)]


def test_bounds_double_from_microseconds_to_minutes() -> None:
    """
    And the last bucket has all that is longer.
    """
    assert (2**-17, 128.0) == (BOUNDS_SECONDS[0], BOUNDS_SECONDS[-1])
    assert all(b == 2 * a for a, b in pairwise(BOUNDS_SECONDS))
    assert BUCKETS == len(BOUNDS_SECONDS) + 1


def test_nothing_has_no_quantile() -> None:
    """
    Nor anything that was longest.
    """
    assert quantile(counted(), 0.5) is None
    assert highest(counted()) is None


@pytest.mark.parametrize(
    ("counts", "share", "seconds"),
    [
        (counted(b17=100), 1.0, 1.0),
        (counted(b17=100), 0.5, 2**-0.5),
        (counted(b10=50, b17=50), 0.5, BOUNDS_SECONDS[10]),
        (counted(b10=99, b17=1), 0.99, BOUNDS_SECONDS[10]),
        (counted(b10=98, b17=2), 1.0, 1.0),
        ([0] * (BUCKETS - 1) + [3], 0.5, 128.0),
    ],
)
def test_quantiles_come_from_the_buckets(
    counts: list[int], share: float, seconds: float
) -> None:
    """
    Within a factor of two, and never more than the longest bound.
    """
    assert seconds == pytest.approx(quantile(counts, share))


def test_the_longest_is_bounded_by_its_bucket() -> None:
    """
    However few there are.
    """
    assert 1.0 == highest(counted(b0=1000, b17=1))
    assert 128.0 == highest([0] * (BUCKETS - 1) + [1])
