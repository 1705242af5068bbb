"""
The second article's curve: how many tiny requests more workers serve, where they
share one listening socket and where each has its own.

The clients keep their connections, as that article's did. If the machine has enough
processors for all clients and workers, the curve shows what a worker adds; with fewer
it shows the machine, which the load shares. So the ceiling of the load is measured too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from kvd.lab.bench.load import Load, Report
from kvd.lab.bench.programs import serving
from kvd.lab.bench.run import Rounds, Run, measure_run
from kvd.lab.measuring.figures import rotated

BODY_BYTES: Final = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """
    What is measured.
    """

    policies: Sequence[str]
    workers: Sequence[int]
    """A number for each point of the curve."""
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
class Point(Rounds):
    """
    One policy with so many workers, in all rounds.
    """

    workers: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    The curve.
    """

    plan: Plan
    points: Sequence[Point]
    ceiling: Report
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


def measure(plan: Plan, progress: Callable[[str], object]) -> Iterator[Sequence[Point]]:
    """
    Measure all policies for each number of workers, in interleaved rounds.

    Args:
        plan: What is measured.
        progress: Gets a few words about what is measured next.

    Raises:
        BenchFailed: Something could not be measured at all.
    """
    for workers in plan.workers:
        runs: dict[str, list[Run]] = {policy: [] for policy in plan.policies}
        with ExitStack() as running:
            daemons = {
                policy: running.enter_context(serving(policy, workers))
                for policy in plan.policies
            }
            for number in range(plan.rounds):
                for policy in rotated(plan.policies, number):
                    progress(
                        f"round {number + 1} of {plan.rounds}, {workers}: {policy}"
                    )
                    # No samples: answering them takes time from the daemon.
                    run = measure_run(policy, daemons[policy], plan.load, sampled=False)
                    runs[policy].append(run)
        yield [Point(policy, runs[policy], workers) for policy in plan.policies]
