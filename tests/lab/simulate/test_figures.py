"""
Tests for `kvd.lab.simulate.figures` and `kvd.lab.simulate.laboratory`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from kvd.dispatch.policies.roundrobin import RoundRobin
from kvd.lab.simulate.engine import Simulation
from kvd.lab.simulate.figures import Figures, average, figures
from kvd.lab.simulate.laboratory import ONE_QUEUE, simulate_case
from kvd.lab.simulate.load import open_load
from kvd.lab.simulate.outcome import BadChoice
from kvd.lab.simulate.plan import Case
from kvd.lab.simulate.presets import PRESETS
from tests.lab.simulate.policies import LeastLoaded, Odd

UNEVEN = open_load([3.0, 1.0, 1.0], [0.0, 1.0, 2.0])
"""
As in the engine's tests: under turns the third waits for a second.
"""

EXPECTED = Figures(
    makespan=4.0,
    regret=pytest.approx(1 / 3),  # type: ignore[arg-type]  # compares as a float
    wait_mean=pytest.approx(1 / 3),  # type: ignore[arg-type]
    wait_p50=0.0,
    wait_p99=1.0,
    wait_regret=pytest.approx(1 / 3),  # type: ignore[arg-type]
    utilisation=0.625,
    jain_connections=0.9,
    jain_requests=0.9,
    jain_machines=1.0,
    all_busy=0.25,
    tail=0.0,
    idle_while_queued=0.25,
    wasted=0.125,
)


def test_figures_of_a_small_run() -> None:
    """
    Counted by hand.
    """
    outcome = Simulation(UNEVEN, RoundRobin(), 2).run()

    assert EXPECTED == figures(outcome, bound=UNEVEN.bound(2), reference=0.0)


def test_runs_are_averaged() -> None:
    """
    Each figure for itself.
    """
    outcome = Simulation(UNEVEN, RoundRobin(), 2).run()
    one = figures(outcome, 3.0, 0.0)
    other = replace(one, makespan=6.0)

    assert replace(one, makespan=5.0) == average([one, other])


def test_each_policy_stands_beside_the_reference() -> None:
    """
    With the same load, and over all seeds.
    """
    seeds: list[int] = []
    case = Case("", 2, lambda seed: seeds.append(seed) or UNEVEN)  # type: ignore[func-returns-value]
    rows = list(
        simulate_case(case, {"turns": RoundRobin(), "least": LeastLoaded()}, [1, 2])
    )

    assert [1, 2] == seeds
    assert [ONE_QUEUE, "turns", "least"] == [row.policy for row in rows]
    assert EXPECTED == rows[1].figures
    assert rows[0].figures == rows[2].figures


def test_a_policy_that_errs_is_named() -> None:
    """
    As the operator wrote it.
    """
    case = Case("", 2, lambda seed: UNEVEN)
    with pytest.raises(BadChoice, match=r"^policy odd chose 7, which"):
        list(simulate_case(case, {"odd": Odd(lambda view: 7)}, [1]))


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_made(name: str) -> None:
    """
    Each case with its workers; the large ones are made, not run.
    """
    for case in PRESETS[name].cases:
        load = case.make(1)
        assert case.workers / case.fleet.machines in (8, 32)
        assert load.first[len(load.begins)] == len(load.services)
