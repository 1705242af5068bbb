"""
Tests for `kvd.lab.simulate.check`.
"""

from __future__ import annotations

import pytest

from kvd.lab.bench import load as bench
from kvd.lab.simulate.check import TRIALS, as_simulated, measure, measures, simulate
from kvd.lab.simulate.comparison import Comparison, Line, Measures, Pair, median
from kvd.plugins import IPolicyDeclaration, load
from kvd.store.sleep import read_times, time_for


def test_the_simulation_gets_the_requests_that_are_sent() -> None:
    """
    Each with the time that the daemon's store takes for its key.
    """
    sent = bench.Load(requests=5, body_bytes=1, clients=2, keep_alive=False)
    times = read_times("2x1s,9s")
    keys = [b"bench/0/0", b"bench/0/1", b"bench/0/2", b"bench/1/0", b"bench/1/1"]
    load = as_simulated(sent, "2x1s,9s")

    assert [time_for(times, key) for key in keys] == load.services
    assert [0, 3, 5] == load.first
    assert 1 == load.reuse


def test_clients_come_when_they_came() -> None:
    """
    In the order of their coming, each with its own requests.
    """
    sent = bench.Load(requests=3, body_bytes=1, clients=2, keep_alive=True)
    load = as_simulated(sent, "2x1s,9s", begins=[0.25, 0.125], lag=0.0625)
    alike = as_simulated(sent, "2x1s,9s")

    assert [0.125, 0.25] == load.begins
    assert [0, 1, 3] == load.first
    assert [*alike.services[2:], *alike.services[:2]] == load.services
    assert (0, 0.0625) == (load.reuse, load.lag)


def test_measures_of_a_run() -> None:
    """
    Jain's index, and the busiest worker in parts of the mean.
    """
    assert Measures(4.0, 0.9, 4 / 3) == measures(4.0, [2, 1])


def test_deviations_are_from_the_mean_of_the_runs() -> None:
    """
    Also those of the ratio to another policy.
    """
    even, uneven = Measures(2.0, 1.0, 1.0), Measures(3.0, 0.5, 2.0)
    pairs = {
        "turns": Pair(0, Measures(2.5, 1.0, 1.0), [even, even]),
        "hash": Pair(0, Measures(4.0, 0.75, 1.5), [even, uneven]),
    }
    compared = Comparison(TRIALS[0], 2, pairs, "turns")

    assert [
        Line("seconds", 4.0, 2.5, 2.0, 3.0),
        Line("jain", 0.75, 0.75, 0.5, 1.0),
        Line("busiest", 1.5, 1.5, 1.0, 2.0),
        Line("to turns", 1.6, 1.25, 1.0, 1.5),
    ] == list(compared.lines("hash"))
    assert pytest.approx(0.6) == next(compared.lines("hash")).deviation


def test_the_median_of_several_runs_counts() -> None:
    """
    Of each measure: a machine that had something else to do once spoils none.
    """
    runs = [Measures(9.0, 0.5, 1.0), Measures(2.0, 0.75, 2.0), Measures(3.0, 1.0, 9.0)]

    assert Measures(3.0, 0.75, 2.0) == median(runs)


@pytest.mark.integration
def test_a_daemon_does_what_the_simulation_says() -> None:
    """
    Where neither chance nor the machine's speed plays a part: turns, with
    connections that stay.
    """
    trial = TRIALS[0]
    sent = bench.Load(40, 1, 4, trial.keep_alive)
    policy = load(IPolicyDeclaration, "roundrobin")
    run = measure("roundrobin", 2, sent, trial.times)
    simulated = simulate(run.load, policy, 2, 1)

    assert 0 == run.failed
    assert (1.0, 1.0) == (simulated.jain, simulated.busiest)
    assert (1.0, 1.0) == (run.measures.jain, run.measures.busiest)
    assert run.measures.seconds >= simulated.seconds
    assert 0.0 < run.load.begins[0] < run.load.begins[-1]
    assert run.load.lag > 0
