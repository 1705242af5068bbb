"""
The curve of tiny requests as a table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from kvd.lab.bench.run import failure_lines
from kvd.lab.bench.small import Outcome, Plan, Point
from kvd.lab.measuring.table import milliseconds, show_lines, show_table

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
        f"PUTs of a byte over {plan.clients} kept connections, null store; each"
        f" figure is the median of {plan.rounds} rounds of {plan.seconds:g} s"
    )


def show_curve(outcome: Outcome, console: Console) -> None:
    """
    Print the curve.
    """
    show_table("Tiny requests over workers", COLUMNS, lines(outcome), console)
    show_lines(failures(outcome), console)


def lines(outcome: Outcome) -> Sequence[Sequence[str]]:
    """
    The lines of the table, each policy compared with its first point.
    """
    firsts = {point.policy: point for point in reversed(outcome.points)}
    return [_cells(point, firsts[point.policy]) for point in outcome.points]


def _cells(point: Point, first: Point) -> Sequence[str]:
    return (
        str(point.workers),
        point.policy,
        f"{point.rate:,.0f}",
        f"{point.rate / first.rate if first.rate else 0.0:.2f}",
        milliseconds(point.latency(0.5)),
        milliseconds(point.latency(0.99)),
        f"{point.median(lambda run: run.balance):.3f}",
        f"{point.median(lambda run: run.worker_cores):.2f}",
        f"{point.median(lambda run: run.load_cores):.2f}",
        str(point.failed),
    )


def failures(outcome: Outcome) -> Sequence[str]:
    """
    A line for each reason why requests failed.
    """
    return [
        line
        for point in outcome.points
        for line in failure_lines(
            f"{point.policy}, {point.workers} workers",
            *(run.report for run in point.runs),
        )
    ]
