"""
Tests for `kvd.lab.measuring.targets`.
"""

from __future__ import annotations

import math

import pytest

from kvd.lab.measuring.targets import Target


@pytest.mark.parametrize(
    ("measured", "at_least", "reached"),
    [
        (1.0, True, True),
        (0.9, True, False),
        (1.0, False, True),
        (1.1, False, False),
        (math.nan, True, False),
        (math.nan, False, False),
    ],
)
def test_a_target_is_reached_or_not(
    measured: float, at_least: bool, reached: bool
) -> None:
    """
    Never where nothing was measured.
    """
    assert reached is Target("any", measured, 1.0, at_least).reached
