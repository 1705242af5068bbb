"""
Comparisons that nobody made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kvd.lab.bench import dispatch, dispatch_plan, small
from kvd.lab.bench.hand_over import HandOverCost
from kvd.lab.bench.load import Report
from kvd.lab.bench.run import Rounds, Run
from kvd.lab.bench.sampling import Sample, Work

MACHINE = {"measured": "2026-01-01 00:00", "processor": "2 x slow"}

PLAN = dispatch_plan.Plan(
    policies=["roundrobin", "leastbusy"], loads=list(dispatch_plan.LOADS), workers=2,
    clients=8, mean_seconds=0.004, seconds=2.0, rounds=3, hand_over=True,
)  # fmt: skip

SMALL_PLAN = small.Plan(["shared", "reuseport"], [1, 2], clients=4, seconds=2, rounds=1)


def timed(rate: float, late: int = 0, failures: dict[str, int] | None = None) -> Report:
    """
    Of two seconds that were given, with so many requests per second in them.
    """
    latencies = [0.01] * (round(2 * rate) + late)
    return Report(
        began=10.0, ended=12.5, latencies=latencies, failures=failures or {},
        cpu_seconds=0.5, late=late, given_seconds=2.0,
    )  # fmt: skip


def a_run(policy: str, rate: float, requests: Sequence[int] = (50, 50)) -> Run:
    """
    Of two workers: the second has no client from 11 to 12 while the first has two.
    """
    samples = [
        Sample(10.0, (1, 1), (2, 2), (0, 0), (0.0, 0.0)),
        Sample(11.0, (1, 0), (2, 0), (10, 10), (1.0, 0.5)),
        Sample(12.0, (1, 1), (2, 2), (30, 10), (2.0, 0.5)),
        Sample(12.6, (0, 0), (0, 0), (40, 20), (2.2, 0.7)),
    ]
    return Run(policy, timed(rate), Work(samples, requests, 1.0, 0.1, (5, 5)))


def compared(load: str, rates: Mapping[str, Sequence[float]]) -> dispatch.Compared:
    """
    Policies with the rates of their rounds.
    """
    (case,) = (case for case in PLAN.cases() if case.name == load)
    return dispatch.Compared(
        case,
        [
            Rounds(policy, [a_run(policy, rate) for rate in rounds])
            for policy, rounds in rates.items()
        ],
    )


def an_outcome() -> dispatch.Outcome:
    """
    All loads.
    """
    rates = {"roundrobin": [100.0, 90, 110], "leastbusy": [160.0, 180, 170]}
    return dispatch.Outcome(
        PLAN,
        [compared(load, rates) for load in dispatch_plan.LOADS],
        [HandOverCost("leastbusy", [20e-6, 10e-6, 60e-6], 100e-6)],
    )


def a_curve() -> small.Outcome:
    """
    Of two policies, 1 and 2 workers.
    """
    points = [
        small.Point(policy, [a_run(policy, rate * workers)], workers)
        for workers in (1, 2)
        for policy, rate in (("shared", 100), ("reuseport", 120))
    ]
    return small.Outcome(SMALL_PLAN, points, timed(300))
