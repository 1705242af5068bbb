"""
Tests for `kvd.lab.measuring.table`.
"""

from __future__ import annotations

import math

import pytest

from kvd.lab.measuring.table import decimal_size, milliseconds, percent


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, "1 B"), (1000, "1 kB"), (40_000_000, "40 MB"), (1 << 30, "1.07374 GB")],
)
def test_sizes_are_decimal(count: int, expected: str) -> None:
    """
    As the articles give them.
    """
    assert expected == decimal_size(count)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.00034, "0.34"),
        (0.0101, "10.1"),
        (0.25, "250"),
        (-1e-9, "0.00"),
        (math.nan, "-"),
    ],
)
def test_milliseconds_have_three_digits(seconds: float, expected: str) -> None:
    """
    As long as these are worth anything.
    """
    assert expected == milliseconds(seconds)


def test_a_percentage_is_never_minus_nothing() -> None:
    """
    Nor is it a figure where none was measured.
    """
    assert ("0 %", "12.5 %", "-") == (
        percent(-1e-9),
        percent(0.125, 1),
        percent(math.nan),
    )
