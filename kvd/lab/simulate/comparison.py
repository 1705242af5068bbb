"""
Measured figures compared with simulated ones.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from math import fsum

from kvd.lab.measuring.figures import percentile
from kvd.lab.simulate.balancing import ALONE, Fleet


@dataclass(frozen=True, slots=True)
class Trial:
    """
    A load that is measured and simulated.
    """

    title: str
    times: str
    """As a setting of the sleep store."""
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Measures:
    """
    The figures that are compared.
    """

    seconds: float
    """The makespan."""
    jain: float
    """Jain's index of the requests of the workers."""
    busiest: float
    """The requests of the busiest worker, divided by the mean."""


def median(runs: Sequence[Measures]) -> Measures:
    """
    The median of each figure.
    """
    return Measures(
        **{
            field.name: statistics.median(getattr(run, field.name) for run in runs)
            for field in fields(Measures)
        }
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """
    One policy under one load, measured and simulated.
    """

    failed: int
    """Requests without the right reply."""
    measured: Measures
    simulated: Sequence[Measures]
    """One for each run."""


@dataclass(frozen=True, slots=True)
class Line:
    """
    One figure of both.
    """

    name: str
    measured: float
    simulated: float
    """The mean."""
    low: float
    """Nine tenths of the runs lie between this ..."""
    high: float
    """... and this."""

    @property
    def deviation(self) -> float:
        """
        The part by which the measured value exceeds the simulated one.
        """
        return self.measured / self.simulated - 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """
    All policies with one load.
    """

    trial: Trial
    workers: int
    pairs: Mapping[str, Pair]
    reference: str
    """The policy by whose makespan the others' are divided."""
    fleet: Fleet = ALONE
    """The machines."""

    @property
    def title(self) -> str:
        """
        What was compared.
        """
        return f"{self.workers} workers, {self.trial.title}{self.fleet.title}"

    def lines(self, policy: str) -> Iterator[Line]:
        """
        All figures of one policy.
        """
        pair, reference = self.pairs[policy], self.pairs[self.reference]
        for field in fields(Measures):
            yield _line(
                field.name,
                getattr(pair.measured, field.name),
                [getattr(run, field.name) for run in pair.simulated],
            )
        yield _line(
            f"to {self.reference}",
            pair.measured.seconds / reference.measured.seconds,
            [
                run.seconds / other.seconds
                for run, other in zip(pair.simulated, reference.simulated, strict=True)
            ],
        )


def _line(name: str, measured: float, runs: Sequence[float]) -> Line:
    mean = fsum(runs) / len(runs)
    return Line(name, measured, mean, percentile(runs, 0.05), percentile(runs, 0.95))
