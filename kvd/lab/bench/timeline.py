"""
From samples to what the workers did over time; nothing here measures.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

from kvd.dispatch.balance import jain_index
from kvd.lab.bench.sampling import Sample


def _in_progress(sample: Sample) -> Sequence[int]:
    return sample.in_progress


def spans(
    samples: Sequence[Sample],
    began: float,
    ended: float,
    of: Callable[[Sample], Sequence[int]] = _in_progress,
) -> Iterator[tuple[float, float, Sequence[int]]]:
    """
    Take each sample to hold until the next one, and the first one also before it.

    Args:
        of: What is read of each sample.

    Returns:
        Beginning, end and value, without gaps.
    """
    inside = [sample for sample in samples if sample.seconds < ended]
    start = began
    for sample, following in pairwise(inside):
        end = max(start, following.seconds)
        if end > start:
            yield start, end, of(sample)
        start = end
    if inside and ended > start:
        yield start, ended, of(inside[-1])


def share_of_time(
    samples: Sequence[Sample],
    began: float,
    ended: float,
    holds: Callable[[Sequence[int]], bool],
    of: Callable[[Sample], Sequence[int]] = _in_progress,
) -> float:
    """
    The share of the time in which a condition held, from 0 to 1.

    Args:
        holds: The condition.
        of: What is read of each sample.
    """
    total = held = 0.0
    for start, end, seen in spans(samples, began, ended, of):
        total += end - start
        if holds(seen):
            held += end - start
    return held / total if total else math.nan


def under_half_busy(in_progress: Sequence[int]) -> bool:
    """
    Whether fewer than half of the workers have a request.
    """
    return 2 * sum(map(bool, in_progress)) < len(in_progress)


def idle_while_others_queue(tasks: Sequence[int]) -> bool:
    """
    Whether a worker has no client while another has more than one.

    Clients count, not requests: a worker that blocks for its work has one request in
    progress, and has not yet read those of its other clients. And a worker that waits
    for the next request of its client is not idle because of the policy.
    """
    return min(tasks) == 0 and max(tasks) > 1


def growth(
    samples: Sequence[Sample],
    of: Callable[[Sample], Sequence[float]],
    began: float,
    ended: float,
    columns: int,
) -> list[list[float]]:
    """
    Divide the time into columns, and take sums to grow evenly between two samples.

    Args:
        of: A sum of each worker that never decreases.

    Returns:
        The growth of the sum for each worker and column.
    """
    inside = [sample for sample in samples if of(sample)]
    if not inside:
        return []
    width = (ended - began) / columns
    borders = [began + column * width for column in range(columns + 1)]
    times = [sample.seconds for sample in inside]
    sums = zip(*map(of, inside), strict=True)
    return [
        [after - before for before, after in pairwise(_between(times, own, borders))]
        for own in sums
    ]


def _between(
    times: Sequence[float], values: Sequence[float], moments: Sequence[float]
) -> Iterator[float]:
    for moment in moments:
        after = bisect_left(times, moment)
        if after == 0 or after == len(times):
            yield values[min(after, len(values) - 1)]
            continue
        part = (moment - times[after - 1]) / (times[after] - times[after - 1])
        yield values[after - 1] + part * (values[after] - values[after - 1])


def utilisation(
    samples: Sequence[Sample], began: float, ended: float, columns: int
) -> list[list[float]]:
    """
    Divide the time into columns.

    Returns:
        For each worker and column, the share in which the worker did not wait for
        events.
    """
    width = (ended - began) / columns
    grown = growth(samples, lambda sample: sample.busy_seconds, began, ended, columns)
    return [[min(1.0, max(0.0, part / width)) for part in row] for row in grown]


def balances(
    samples: Sequence[Sample], began: float, ended: float, columns: int
) -> list[float]:
    """
    Divide the time into columns.

    Returns:
        For each column, Jain's index of the requests that ended at the workers.
    """
    grown = growth(samples, lambda sample: sample.ended, began, ended, columns)
    return [jain_index(column) for column in zip(*grown, strict=True)]


def busy_shares(
    samples: Sequence[Sample], began: float, ended: float, columns: int
) -> list[list[float]]:
    """
    Divide the time into columns.

    Returns:
        For each worker and column, the share in which the worker had a request.
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
