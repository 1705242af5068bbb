"""
From what was seen to the figures that are shown; nothing here measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from kvd.bench.sampling import Sample


def percentile(values: Sequence[float], share: float) -> float:
    """
    The smallest of the values that at least this share of them does not exceed
    (the nearest rank): always one that was seen. Not a number where nothing was.
    """
    if not values:
        return math.nan
    rank = max(1, math.ceil(share * len(values)))
    return sorted(values)[rank - 1]


def spans(
    samples: Sequence[Sample], began: float, ended: float
) -> Iterator[tuple[float, float, Sequence[int]]]:
    """
    Take each sample for the truth until the next, and the first for what was
    before it.

    Returns:
        Beginning, end and the requests in progress, without gaps.
    """
    inside = [sample for sample in samples if sample.seconds < ended]
    start = began
    for sample, following in pairwise(inside):
        end = max(start, following.seconds)
        if end > start:
            yield start, end, sample.in_progress
        start = end
    if inside and ended > start:
        yield start, ended, inside[-1].in_progress


def share_of_time(
    samples: Sequence[Sample],
    began: float,
    ended: float,
    holds: Callable[[Sequence[int]], bool],
) -> float:
    """
    For how much of the time something held of the requests in progress, from 0
    to 1.
    """
    total = held = 0.0
    for start, end, in_progress in spans(samples, began, ended):
        total += end - start
        if holds(in_progress):
            held += end - start
    return held / total if total else math.nan


def under_half_busy(in_progress: Sequence[int]) -> bool:
    """
    Whether fewer than half of the workers have a request.
    """
    return 2 * sum(map(bool, in_progress)) < len(in_progress)


def busy_shares(
    samples: Sequence[Sample], began: float, ended: float, columns: int
) -> list[list[float]]:
    """
    Divide the time into columns.

    Returns:
        For each worker and column, for how much of it the worker had a request,
        from 0 to 1.
    """
    workers = len(samples[0].in_progress) if samples else 0
    shares = [[0.0] * columns for _ in range(workers)]
    width = (ended - began) / columns
    for start, end, in_progress in spans(samples, began, ended):
        first = int((start - began) / width)
        for column in range(first, columns):
            left = began + column * width
            if left >= end:
                break
            part = (min(end, left + width) - max(start, left)) / width
            if part <= 0:
                continue
            for worker, requests in enumerate(in_progress):
                if requests:
                    shares[worker][column] += part
    return [[min(1.0, share) for share in row] for row in shares]
