"""
From runs to the figures that are shown; nothing here measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from bench.measuring import Outcome, Run, by_contender


@dataclass(frozen=True)
class Spread:
    """
    A figure of all rounds.
    """

    median: float
    least: float
    most: float


def spread(values: Sequence[float]) -> Spread:
    """
    Of at least one value.
    """
    return Spread(median(values), min(values), max(values))


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
    cpu_seconds_per_gb: float
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
        return median(map(figure, runs))

    return Row(
        contender=runs[0].contender,
        rate=middle(lambda run: run.rate),
        bytes_per_second=middle(lambda run: run.report.bytes / run.report.seconds),
        p50_seconds=middle(lambda run: run.report.p50_seconds),
        p99_seconds=middle(lambda run: run.report.p99_seconds),
        cpu_seconds_per_request=middle(lambda run: 1 / run.work),
        cpu_seconds_per_gb=middle(
            lambda run: run.server_cpu_seconds / run.report.bytes * 1e9
        ),
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
    kvd beside another server in one respect; more is better.
    """

    figure: str
    """``rate``, ``work`` or ``p99``."""
    against: str
    seen: Spread
    target: float | None

    @property
    def reached(self) -> bool | None:
        """
        Whether the median reaches the target; None without one.
        """
        return None if self.target is None else self.seen.median >= self.target


def rows(outcome: Outcome) -> Sequence[Row]:
    """
    One for each server, kvd first.
    """
    runs = by_contender(outcome.runs)
    return [row(runs[contender.name]) for contender in outcome.workload.contenders]


def ratios(outcome: Outcome) -> Sequence[Ratio]:
    """
    The medians of the rounds' ratios: each run of kvd is divided by that of the
    other server in the same round.
    """
    runs = by_contender(outcome.runs)
    ours = runs[outcome.workload.kvd.name]
    found = []
    for name, target in outcome.workload.targets.items():
        pairs = list(zip(ours, runs[name], strict=True))
        figures = {
            "rate": (target.rate, [a.rate / b.rate for a, b in pairs]),
            "work": (target.work, [a.work / b.work for a, b in pairs]),
            "p99": (
                target.p99,
                [b.report.p99_seconds / a.report.p99_seconds for a, b in pairs],
            ),
        }
        found += [
            Ratio(figure, name, spread(values), wanted)
            for figure, (wanted, values) in figures.items()
        ]
    return found


def load_alone_rate(outcome: Outcome) -> float:
    """
    The most that the load reached: with the leanest server that there is, or with
    one of those that were measured.
    """
    return max(outcome.ceiling.rate, *(row.rate for row in rows(outcome)))
