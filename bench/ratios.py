"""
The figures of runs; nothing here measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.measuring import Outcome, Run, by_contender
from kvd.lab.measuring.figures import Spread, median, ratios, spread


@dataclass(frozen=True)
class Row:
    """
    One server under one load: medians over the rounds.
    """

    contender: str
    rate: float
    bytes_per_second: float
    p50_seconds: float
    p99_seconds: float
    cpu_seconds_per_request: float
    cpu_seconds_per_gb: float | None
    """None where no bodies were moved."""
    server_cores: float
    """Processors that the server used on average."""
    load_cores: float
    errors: int
    """In all rounds together."""
    first_error: str | None


def row(runs: Sequence[Run]) -> Row:
    """
    Sum up the runs of one server.
    """

    def middle(figure: Callable[[Run], float]) -> float:
        return median([figure(run) for run in runs])

    return Row(
        contender=runs[0].contender,
        rate=middle(lambda run: run.rate),
        bytes_per_second=middle(lambda run: run.report.bytes / run.report.seconds),
        p50_seconds=middle(lambda run: run.report.p50_seconds),
        p99_seconds=middle(lambda run: run.report.p99_seconds),
        cpu_seconds_per_request=middle(lambda run: 1 / run.work),
        cpu_seconds_per_gb=middle(
            lambda run: run.server_cpu_seconds / run.report.bytes * 1e9
        )
        if all(run.report.bytes for run in runs)
        else None,
        server_cores=middle(lambda run: run.server_cpu_seconds / run.wall_seconds),
        load_cores=middle(lambda run: run.report.cpu_seconds / run.wall_seconds),
        errors=sum(run.report.errors for run in runs),
        first_error=next(
            (run.report.first_error for run in runs if run.report.errors), None
        ),
    )


@dataclass(frozen=True)
class Ratio:
    """
    kvd divided by a baseline in one respect; more is better.
    """

    figure: str
    """``rate``, ``work`` or ``p99``."""
    against: str
    measured: Spread
    target: float | None

    @property
    def reached(self) -> bool | None:
        """
        Whether the median reaches the target; None without one.
        """
        return None if self.target is None else self.measured.median >= self.target


def rows(outcome: Outcome) -> Sequence[Row]:
    """
    One for each server, kvd first.
    """
    runs = by_contender(outcome.runs)
    return [row(runs[contender.name]) for contender in outcome.workload.contenders]


def ratios_of(outcome: Outcome) -> Sequence[Ratio]:
    """
    The medians of the rounds' ratios: each run of kvd is divided by that of the
    baseline in the same round.
    """
    runs = by_contender(outcome.runs)
    ours = runs[outcome.workload.kvd.name]
    found = []
    for name, targets in outcome.workload.targets.items():
        others = runs[name]
        figures = {
            "rate": (targets.rate, _ratios(ours, others, lambda run: run.rate)),
            "work": (targets.work, _ratios(ours, others, lambda run: run.work)),
            # Less is better.
            "p99": (
                targets.p99,
                _ratios(others, ours, lambda run: run.report.p99_seconds),
            ),
        }
        found += [
            Ratio(figure, name, spread(values), target)
            for figure, (target, values) in figures.items()
        ]
    return found


def _ratios(
    runs: Sequence[Run], others: Sequence[Run], figure: Callable[[Run], float]
) -> Sequence[float]:
    return ratios([figure(run) for run in runs], [figure(run) for run in others])


def ceiling_rate(outcome: Outcome) -> float | None:
    """
    The most that the load reached: with the leanest server that there is, or with
    one of those that were measured.
    """
    if outcome.ceiling is None:
        return None
    return max(outcome.ceiling.rate, *(row.rate for row in rows(outcome)))
