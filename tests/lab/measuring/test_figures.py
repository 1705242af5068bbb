"""
Tests for `kvd.lab.measuring.figures`.
"""

from __future__ import annotations

import math

import pytest

from kvd.lab.measuring.figures import (
    Spread,
    median,
    percentile,
    ratios,
    rotated,
    spread,
)


def test_every_round_begins_with_another() -> None:
    """
    No policy always comes after the same.
    """
    assert ["b", "c", "a"] == list(rotated(["a", "b", "c"], 4))


def test_a_median_with_a_value_that_is_none_is_none() -> None:
    """
    The others are not taken for it.
    """
    assert 2 == median([1, 3, 2])
    assert math.isnan(median([1, math.nan, 2]))


def test_ratios_are_of_the_same_round() -> None:
    """
    Nothing is divided by 0.
    """
    assert [2, 0.5] == ratios([4, 1], [2, 2])
    assert math.isnan(ratios([1], [0])[0])


def test_a_spread_is_its_median_and_its_ends() -> None:
    """
    In whichever order the values come.
    """
    assert Spread(3, 1, 9) == spread([9, 1, 3])
    assert Spread(2, 1, 3) == spread([3, 1])


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([3.0], 0.5, 3.0),
        ([3.0], 0.0, 3.0),
        ([2.0, 1.0], 0.5, 1.0),
        ([2.0, 1.0, 3.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.99, 99.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
        ([1.0] * 999 + [7.0], 0.99, 1.0),
    ],
)
def test_percentile_is_a_value_that_was_seen(
    values: list[float], share: float, expected: float
) -> None:
    """
    The nearest rank, whatever the order.
    """
    assert expected == percentile(values, share)


def test_nothing_has_no_percentile() -> None:
    """
    As when every request failed.
    """
    assert math.isnan(percentile([], 0.5))
