"""
Tests for `kvd.lab.bench.timeline`.
"""

from __future__ import annotations

import math

import pytest

from kvd.lab.bench.sampling import Sample
from kvd.lab.bench.timeline import (
    balances,
    busy_shares,
    growth,
    idle_while_others_queue,
    share_of_time,
    spans,
    under_half_busy,
    utilisation,
)


def samples(*rows: tuple[float, tuple[int, ...]]) -> list[Sample]:
    """
    Samples as they would have been taken.
    """
    return [Sample(seconds, in_progress) for seconds, in_progress in rows]


def test_samples_cover_the_run_without_gaps() -> None:
    """
    Those taken before it and after it count only for their part within.
    """
    taken = samples((9, (0,)), (11, (1,)), (12, (2,)), (14, (3,)))

    assert [(10, 11, (0,)), (11, 12, (1,)), (12, 13, (2,))] == list(
        spans(taken, 10, 13)
    )


def test_a_late_first_sample_stands_for_what_was_before() -> None:
    """
    Nobody else knows.
    """
    assert [(10, 13, (1,))] == list(spans(samples((12, (1,))), 10, 13))


def test_without_samples_nothing_is_reported() -> None:
    """
    Neither that somebody was busy nor that nobody was.
    """
    assert math.isnan(share_of_time([], 0, 1, under_half_busy))
    assert [] == busy_shares([], 0, 1, 4)


@pytest.mark.parametrize(
    ("in_progress", "expected"),
    [
        ((1, 0), False),
        ((0, 0), True),
        ((9, 0, 0), True),
        ((1, 0, 2, 0), False),
        ((4, 0, 0, 0), True),
        ((1,), False),
    ],
)
def test_half_of_the_workers(in_progress: tuple[int, ...], expected: bool) -> None:
    """
    Counts workers, not requests.
    """
    assert expected is under_half_busy(in_progress)


def test_time_counts_not_samples() -> None:
    """
    A sample that was true for longer weighs more.
    """
    taken = samples((0, (1, 1)), (1, (0, 0)), (4, (1, 1)))

    assert 0.6 == pytest.approx(share_of_time(taken, 0, 5, under_half_busy))


def test_busy_time_is_divided_into_columns() -> None:
    """
    Each worker's by itself.
    """
    taken = samples((0, (1, 0)), (1.5, (0, 3)), (3, (0, 0)))

    assert [[1, 0.5, 0, 0], [0, 0.5, 1, 0]] == busy_shares(taken, 0, 4, 4)


@pytest.mark.parametrize("columns", [1, 3, 7, 100])
def test_columns_add_up_to_the_time(columns: int) -> None:
    """
    However many there are.
    """
    taken = samples((0, (1,)), (0.1, (0,)), (0.4, (2,)), (0.9, (0,)))

    (row,) = busy_shares(taken, 0, 1, columns)

    assert 0.6 == pytest.approx(sum(row) / columns)
    assert all(0 <= share <= 1 for share in row)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        ((1, 1), False),
        ((0, 1), False),
        ((0, 2), True),
        ((1, 9), False),
        ((0, 0), False),
        ((0,), False),
        ((3, 1, 0), True),
    ],
)
def test_idle_while_others_queue(tasks: tuple[int, ...], expected: bool) -> None:
    """
    Nobody can help the one client of another worker.
    """
    assert expected is idle_while_others_queue(tasks)


def summed(*rows: tuple[float, tuple[int, ...]]) -> list[Sample]:
    """
    Samples of the requests that ended and of as many busy seconds.
    """
    return [Sample(at, (), (), sums, tuple(map(float, sums))) for at, sums in rows]


def test_sums_grow_evenly_between_samples() -> None:
    """
    What was before the first sample and after the last is not known, and nothing.
    """
    taken = summed((1, (0, 10)), (3, (4, 10)))

    grown = growth(taken, lambda sample: sample.ended, 0, 4, 4)

    assert [[0, 2, 2, 0], [0, 0, 0, 0]] == grown


def test_utilisation_is_a_share_of_each_column() -> None:
    """
    Never more than all of it, although samples come a little late.
    """
    taken = summed((0, (0, 0)), (2, (1, 0)), (4, (4, 0)))

    assert [[0.5, 1.0], [0, 0]] == utilisation(taken, 0, 4, 2)


def test_balance_over_time() -> None:
    """
    One worker does all at first, then both the same; where nothing ended, nobody is
    treated unfairly.
    """
    taken = summed((0, (0, 0)), (1, (5, 0)), (2, (8, 3)), (3, (8, 3)))

    assert [0.5, 1, 1] == balances(taken, 0, 3, 3)


def test_without_sums_nothing_is_drawn() -> None:
    """
    As where the load ended before a sample was taken.
    """
    assert [] == utilisation([], 0, 1, 4)
    assert [] == balances([], 0, 1, 4)
