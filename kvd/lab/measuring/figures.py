"""
Medians over rounds, ratios of rounds, and percentiles.

A round has one run of everything that is compared, and the order changes from round to
round. What is compared are runs of one round, which are seconds apart: a busy moment of
the machine lasts longer, and slows both.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


def rotated(things: Sequence[T], by: int) -> Sequence[T]:
    """
    The same in the same order, beginning with another: so that none always comes after
    the same.
    """
    by %= len(things)
    return [*things[by:], *things[:by]]


def median(values: Sequence[float]) -> float:
    """
    The median; not a number if one of the values is none.
    """
    return math.nan if any(map(math.isnan, values)) else statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """
    The smallest of the values that at least this share of them does not exceed
    (the nearest rank): always one that was seen. Not a number where there are none.
    """
    if not values:
        return math.nan
    rank = max(1, math.ceil(share * len(values)))
    return sorted(values)[rank - 1]


def ratios(ours: Sequence[float], others: Sequence[float]) -> Sequence[float]:
    """
    The ratio of each round; not a number where the divisor is 0.
    """
    pairs = zip(ours, others, strict=True)
    return [a / b if b else math.nan for a, b in pairs]


@dataclass(frozen=True, slots=True)
class Spread:
    """
    A figure over all rounds.
    """

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """
    Of at least one value.
    """
    return Spread(median(values), min(values), max(values))
