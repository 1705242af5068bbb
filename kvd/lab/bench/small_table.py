"""
The curve of tiny requests as a person reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from kvd.lab.bench.load import Report
from kvd.lab.bench.small import Plan, Point
from kvd.lab.bench.table import milliseconds, plain_table

COLUMNS: Final = (
    "workers",
    "policy",
    "requests\n/s",
    "by the\nfirst",
    "p50\nms",
    "p99\nms",
    "Jain's\nindex",
    "cores:\nworkers",
    "cores:\nload",
    "failed",
)


def plan_line(plan: Plan) -> str:
    """
    What is measured.
    """
    return (
        f"PUTs of a byte over {plan.clients} connections that stay, null store; each"
        f" figure is the median of {plan.rounds} rounds of {plan.seconds:g} s"
    )


def show_points(points: Sequence[Point], console: Console) -> None:
    """
    Print the curve.
    """
    firsts: dict[str, Point] = {}
    for point in points:
        firsts.setdefault(point.policy, point)
    lines = [cells(point, firsts[point.policy]) for point in points]
    console.print()
    console.print(plain_table(COLUMNS, lines))
    for line in failures(points):
        console.print(line, highlight=False, markup=False)


def cells(point: Point, first: Point) -> Sequence[str]:
    """
    A line of the table.

    Args:
        point: What it tells of.
        first: Of the same policy, what it is compared with.
    """
    by_first = point.rate / first.rate if first.rate else 0.0
    return (
        str(point.workers),
        point.policy,
        f"{point.rate:,.0f}",
        f"{by_first:.2f}",
        milliseconds(point.middle(lambda run: run.latency(0.5))),
        milliseconds(point.middle(lambda run: run.latency(0.99))),
        f"{point.middle(lambda run: run.balance):.3f}",
        f"{point.middle(lambda run: run.worker_cores):.2f}",
        f"{point.middle(lambda run: run.load_cores):.2f}",
        str(point.failed),
    )


def failures(points: Sequence[Point]) -> Sequence[str]:
    """
    A line for each reason why requests failed.
    """
    return [
        f"{point.policy}, {point.workers} workers: {count} failed: {reason}"
        for point in points
        for run in point.runs
        for reason, count in sorted(run.report.failures.items())
    ]


def alone_line(alone: Report, points: Sequence[Point]) -> str:
    """
    How far the load is from being the limit.
    """
    line = f"The load alone, against a sink: {alone.rate:,.0f} requests/s"
    fastest = max((point.rate for point in points), default=0.0)
    if fastest:
        line += f", {alone.rate / fastest:.1f} times the fastest"
    return line
