"""
The figures of simulations, averaged over runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from math import fsum

from kvd.dispatch.balance import jain_index
from kvd.dispatch.policies.shared import Shared
from kvd.lab.measuring.figures import percentile
from kvd.lab.simulate.engine import Simulation
from kvd.lab.simulate.load import Load
from kvd.lab.simulate.outcome import Outcome


@dataclass(frozen=True, slots=True)
class Figures:
    """
    How one policy did with one load. Shares are of the makespan.
    """

    makespan: float
    """Seconds from the first connection to the last reply."""
    regret: float
    """The part by which that exceeds the bound (`Load.bound`)."""
    wait_mean: float
    """Seconds from the arrival of a request to its service."""
    wait_p50: float
    wait_p99: float
    wait_regret: float
    """Seconds by which the mean exceeds that with one queue for all workers."""
    utilisation: float
    """The share of the time in which a worker serves, over all of them."""
    jain_connections: float
    """Jain's index of the workers' connections."""
    jain_requests: float
    jain_machines: float
    """Jain's index of the machines' requests."""
    all_busy: float
    """The share in which all workers serve."""
    tail: float
    """The share at the end in which few workers serve (`outcome.FEW`)."""
    idle_while_queued: float
    """The share in which a worker is idle while a request waits."""
    wasted: float
    """The share of the workers' time in which a request waits for each idle one."""


def figures(
    outcome: Outcome, bound: float, reference: float, machines: int = 1
) -> Figures:
    """
    The figures of one run.

    Args:
        bound: The shortest possible makespan.
        reference: The mean wait with one queue for all workers.
        machines: Have equal parts of the workers.
    """
    waits = sorted(outcome.waits)
    mean = fsum(waits) / len(waits)
    # If no request takes any time, no time is lost.
    span = outcome.makespan or 1.0
    workers = len(outcome.requests)
    each = workers // machines
    return Figures(
        makespan=outcome.makespan,
        regret=outcome.makespan / bound - 1 if bound else 0.0,
        wait_mean=mean,
        wait_p50=percentile(waits, 0.5),
        wait_p99=percentile(waits, 0.99),
        wait_regret=mean - reference,
        utilisation=fsum(outcome.busy_seconds) / workers / span,
        jain_connections=jain_index(outcome.connections),
        jain_requests=jain_index(outcome.requests),
        jain_machines=jain_index(
            [
                sum(outcome.requests[first : first + each])
                for first in range(0, workers, each)
            ]
        ),
        all_busy=outcome.seconds_with_busy[-1] / span,
        tail=outcome.tail / span,
        idle_while_queued=outcome.idle_while_queued / span,
        wasted=outcome.wasted / workers / span,
    )


def one_queue(load: Load, workers: int) -> Outcome:
    """
    The reference, which no policy beats on average: every request waits in one queue,
    and an idle worker takes the first.

    This is `Shared` with a connection for each request and no lag. In a single run,
    another order may do better by chance.
    """
    return Simulation(replace(load, reuse=1, lag=0.0), Shared(), workers).run()


def mean_wait(outcome: Outcome) -> float:
    """
    Seconds that a request waited.
    """
    return fsum(outcome.waits) / len(outcome.waits)


def average(runs: Sequence[Figures]) -> Figures:
    """
    The mean of each figure.
    """
    return Figures(
        **{
            field.name: fsum(getattr(run, field.name) for run in runs) / len(runs)
            for field in fields(Figures)
        }
    )
