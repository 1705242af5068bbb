"""
The comparison of policies as tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from kvd.lab.bench.dispatch import Compared
from kvd.lab.bench.dispatch_plan import Plan
from kvd.lab.bench.hand_over import HandOverCost
from kvd.lab.bench.run import Rounds, failure_lines
from kvd.lab.measuring.table import milliseconds, percent, show_lines, show_table
from kvd.lab.measuring.targets import TARGET_COLUMNS, Target

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
    "in a batch\nµs",
    "single\nµs",
    "connections/s\nat most",
)


def plan_line(plan: Plan) -> str:
    """
    What is measured.
    """
    mean = f"{plan.mean_seconds * 1e3:g} ms"
    return (
        f"{plan.workers} workers, each busy for {mean} with a request on average, so"
        f" {plan.bound:,.0f} requests/s at most; each figure is the median of"
        f" {plan.rounds} rounds of {plan.seconds:g} s"
    )


def show_compared(compared: Compared, console: Console) -> None:
    """
    Print all policies under one load.
    """
    case = compared.case
    lines = [cells(rounds) for rounds in compared.policies]
    show_table(f"{case.name}: {case.title}", COLUMNS, lines, console)
    show_lines(failures(compared), console)


def cells(rounds: Rounds) -> Sequence[str]:
    """
    A line of the table.
    """
    return (
        rounds.policy,
        f"{rounds.rate:,.0f}",
        *(milliseconds(rounds.latency(share)) for share in (0.5, 0.99, 1.0)),
        f"{rounds.median(lambda run: run.balance):.4f}",
        f"{rounds.median(lambda run: run.balance_of_connections):.4f}",
        percent(rounds.median(lambda run: run.idle_while_others_queue), 1),
        percent(rounds.median(lambda run: run.utilisation)),
        str(rounds.failed),
    )


def failures(compared: Compared) -> Sequence[str]:
    """
    A line for each reason why requests failed.
    """
    return [
        line
        for rounds in compared.policies
        for line in failure_lines(rounds.policy, *(run.report for run in rounds.runs))
    ]


def show_hand_over(costs: Sequence[HandOverCost], console: Console) -> None:
    """
    Print what connections cost the supervisor.
    """
    show_table(
        "The supervisor's processor time for a connection",
        HAND_OVER_COLUMNS,
        [hand_over_cells(cost) for cost in costs],
        console,
    )


def hand_over_cells(cost: HandOverCost) -> Sequence[str]:
    """
    A line of the table.
    """
    return (
        cost.policy,
        f"{cost.seconds * 1e6:.1f}",
        f"{cost.single_seconds * 1e6:.0f}",
        f"{cost.connections_per_second:,.0f}",
    )


def show_targets(targets: Sequence[Target], console: Console) -> None:
    """
    Print the figures to reach.
    """
    lines = [target.cells() for target in targets]
    show_table("Targets", TARGET_COLUMNS, lines, console)
