"""
Tests for `kvd.lab.simulate.load`.
"""

from __future__ import annotations

import pytest

from kvd.lab.simulate.load import (
    ARRIVALS,
    SERVICES,
    Load,
    arrivals,
    closed_load,
    open_load,
    services,
)


@pytest.mark.parametrize("name", SERVICES)
def test_times_have_the_mean_that_is_wanted(name: str) -> None:
    """
    Whatever their distribution, and the same for the same seed.
    """
    times = services(name, 0.01, 100_000, seed=1)

    assert pytest.approx(0.01, rel=0.05) == sum(times) / len(times)
    assert times == services(name, 0.01, 100_000, seed=1)
    assert (name == "constant") == (times == services(name, 0.01, 100_000, seed=2))


def test_uneven_times_are_those_of_the_evidence() -> None:
    """
    19 of 20 take 2 ms, the last 42 ms.
    """
    times = services("uneven", 0.004, 100_000, seed=1)

    assert {0.002, 0.042} == {round(time, 9) for time in times}
    assert pytest.approx(0.05, abs=0.005) == sum(t > 0.01 for t in times) / 100_000


@pytest.mark.parametrize("name", ARRIVALS)
def test_connections_come_as_often_as_is_wanted(name: str) -> None:
    """
    From the beginning, in order, and the same for the same seed.
    """
    moments = arrivals(name, 100_000, 500.0, seed=1, burst=10)

    assert 100_000 == len(moments)
    assert 0.0 == moments[0]
    assert moments == sorted(moments)
    assert pytest.approx(200, rel=0.05) == moments[-1]
    assert moments == arrivals(name, 100_000, 500.0, seed=1, burst=10)


def test_bursts_come_at_once() -> None:
    """
    The last has what is left.
    """
    moments = arrivals("bursts", 7, 1.0, seed=1, burst=3)

    assert [3, 3, 1] == [moments.count(moment) for moment in sorted(set(moments))]


def test_clients_share_the_requests() -> None:
    """
    As evenly as can be.
    """
    load = closed_load([1.0] * 7, 3)

    assert [0, 3, 5, 7] == load.first
    assert [0.0] * 3 == load.begins


def test_connections_are_counted() -> None:
    """
    One for each client, or as many as its requests need.
    """
    assert 3 == closed_load([1.0] * 7, 3).connections
    assert 7 == closed_load([1.0] * 7, 3, reuse=1).connections
    assert 4 == closed_load([1.0] * 7, 3, reuse=2).connections


@pytest.mark.parametrize(
    ("expected", "load", "workers"),
    [
        # All workers are busy to the end.
        (2.0, open_load([1.0] * 4, [0.0] * 4), 2),
        # One request is longer than all that.
        (5.0, open_load([5.0, 1.0, 1.0], [0.0] * 3), 2),
        # One client has most of the requests.
        (4.0, Load([0.0, 0.0], [0, 4, 5], [1.0] * 5), 2),
        # It also pauses, but not after its last.
        (5.5, Load([0.0, 0.0], [0, 4, 5], [1.0] * 5, 0, [0.5, 9.0]), 2),
        # Most of the work comes late.
        (12.0, open_load([1.0] * 5, [0.0, 10.0, 10.0, 10.0, 10.0]), 2),
    ],
)
def test_the_bound(expected: float, load: Load, workers: int) -> None:
    """
    Counted by hand.
    """
    assert expected == load.bound(workers)
