"""
The second article's curve: how many tiny requests more workers serve, where they
share one listening socket and where each has its own.

The clients keep their connections, as that article's did. With as many processors as
clients and workers want, the curve shows what a worker adds; with fewer it shows the
machine, which the load shares. So the load is measured alone, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import median
from typing import Final

from kvd.lab.bench.dispatch import rotated
from kvd.lab.bench.load import Load, Report
from kvd.lab.bench.programs import Daemon, daemon, send, short_folder, sink
from kvd.lab.bench.run import Run
from kvd.lab.bench.sampling import Sampler

BODY_BYTES: Final = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is measured.
    """

    policies: Sequence[str]
    workers: Sequence[int]
    """One number for each point of the curve."""
    clients: int
    seconds: float
    """Of each run."""
    rounds: int

    @property
    def load(self) -> Load:
        """
        The same for all.
        """
        return Load(0, BODY_BYTES, self.clients, True, self.seconds)


@dataclass(frozen=True, slots=True)
class Point:
    """
    One policy with so many workers, in all rounds.
    """

    policy: str
    workers: int
    runs: Sequence[Run]

    def middle(self, of: Callable[[Run], float]) -> float:
        """
        The median of a figure; not a number if that of a round is none.
        """
        figures = [of(run) for run in self.runs]
        return math.nan if any(map(math.isnan, figures)) else median(figures)

    @property
    def rate(self) -> float:
        """
        Requests per second.
        """
        return self.middle(lambda run: run.report.rate)

    @property
    def failed(self) -> int:
        """
        Requests that failed, of all rounds.
        """
        return sum(run.report.failed for run in self.runs)


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The curve.
    """

    plan: Plan
    points: Sequence[Point]
    alone: Report
    """The load against a server that does nothing."""

    def of(self, policy: str) -> Sequence[Point]:
        """
        One policy's points.
        """
        return [point for point in self.points if point.policy == policy]


def doubled(most: int) -> Sequence[int]:
    """
    1, 2, 4 and so on, and the most.
    """
    powers = (1 << power for power in range(most.bit_length()))
    return sorted({*powers, most})


def measure(plan: Plan, tell: Callable[[str], object]) -> Iterator[Sequence[Point]]:
    """
    Measure for each number of workers all policies, in interleaved rounds.

    Args:
        plan: What is measured.
        tell: Is told what is measured next.

    Raises:
        BenchFailed: Something could not be measured at all.
    """
    for workers in plan.workers:
        runs: dict[str, list[Run]] = {policy: [] for policy in plan.policies}
        with ExitStack() as running:
            daemons = {
                policy: running.enter_context(
                    daemon(policy, workers, running.enter_context(short_folder()))
                )
                for policy in plan.policies
            }
            for number in range(plan.rounds):
                for policy in rotated(plan.policies, number):
                    tell(f"round {number + 1} of {plan.rounds}, {workers}: {policy}")
                    runs[policy].append(_run(policy, daemons[policy], plan.load))
        yield [Point(policy, workers, runs[policy]) for policy in plan.policies]


def _run(policy: str, served: Daemon, load: Load) -> Run:
    with short_folder() as folder:
        # No samples: whoever answers them takes from who is measured.
        sampler = Sampler(served.control.status)
        report = send(served.port, load, folder)
        return Run(policy, report, sampler.finish())


def measure_alone(plan: Plan) -> Report:
    """
    Send the load to a sink.
    """
    with short_folder() as folder, sink(plan.clients) as port:
        return send(port, plan.load, folder)
