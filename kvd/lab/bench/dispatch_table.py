"""
The comparison of policies as a person reads it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from kvd.lab.bench.dispatch import Compared, Plan, Seen
from kvd.lab.bench.handing import HandOverCost
from kvd.lab.bench.table import milliseconds, percent, plain_table
from kvd.lab.bench.wanted import Wanted

COLUMNS: Final = (
    "policy",
    "requests\n/s",
    "p50\nms",
    "p99\nms",
    "max\nms",
    "Jain's:\nrequests",
    "Jain's:\nconnections",
    "idle while\nothers queue",
    "workers\nbusy",
    "failed",
)

HAND_OVER_COLUMNS: Final = (
    "policy",
    "of many\nµs",
    "alone\nµs",
    "connections/s\nat most",
)

WANTED_COLUMNS: Final = ("figure", "seen", "wanted", "")


def plan_line(plan: Plan) -> str:
    """
    What is measured.
    """
    mean = f"{plan.mean_seconds * 1e3:g} ms"
    return (
        f"{plan.workers} workers that a request keeps for {mean} on average, so"
        f" {plan.bound:,.0f} requests/s at most; each figure is the median of"
        f" {plan.rounds} rounds of {plan.seconds:g} s"
    )


def show_compared(compared: Compared, console: Console) -> None:
    """
    Print all policies under one load.
    """
    case = compared.case
    console.print(f"\n{case.name}: {case.title}\n", style="bold", highlight=False)
    console.print(plain_table(COLUMNS, [cells(seen) for seen in compared.seen]))
    for line in failures(compared):
        console.print(line, highlight=False, markup=False)


def cells(seen: Seen) -> Sequence[str]:
    """
    A line of the table.
    """
    return (
        seen.policy,
        f"{seen.rate:,.0f}",
        *(milliseconds(seen.latency(share)) for share in (0.5, 0.99, 1.0)),
        f"{seen.middle(lambda run: run.balance):.4f}",
        f"{seen.middle(lambda run: run.balance_of_connections):.4f}",
        percent(seen.middle(lambda run: run.idle_while_others_queue), 1),
        percent(seen.middle(lambda run: run.utilisation)),
        str(seen.failed),
    )


def failures(compared: Compared) -> Sequence[str]:
    """
    A line for each reason why requests failed.
    """
    return [
        f"{seen.policy}: {count} failed: {reason}"
        for seen in compared.seen
        for run in seen.runs
        for reason, count in sorted(run.report.failures.items())
    ]


def show_hand_over(costs: Sequence[HandOverCost], console: Console) -> None:
    """
    Print what connections cost the supervisor.
    """
    console.print("\nThe supervisor's processor time for a connection\n", style="bold")
    lines = [hand_over_cells(cost) for cost in costs]
    console.print(plain_table(HAND_OVER_COLUMNS, lines))


def hand_over_cells(cost: HandOverCost) -> Sequence[str]:
    """
    A line of the table.
    """
    return (
        cost.policy,
        f"{cost.seconds * 1e6:.1f}",
        f"{cost.alone_seconds * 1e6:.0f}",
        f"{cost.connections_per_second:,.0f}",
    )


def show_wanted(wanted: Sequence[Wanted], console: Console) -> None:
    """
    Print what is to be reached.
    """
    console.print("\nFigures to reach\n", style="bold")
    lines = [figure.cells() for figure in wanted]
    console.print(plain_table(WANTED_COLUMNS, lines, words=("figure", "")))
