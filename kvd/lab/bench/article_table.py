"""
The article's figures as tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console

from kvd.lab.bench.article import Mode, Plan
from kvd.lab.bench.run import Run, ceiling_line, failure_lines
from kvd.lab.measuring.table import (
    decimal_size,
    milliseconds,
    percent,
    show_lines,
    show_table,
)

_FEW: Final = 8

_COLUMNS: Final = (
    "policy",
    "requests\n/s",
    "GB/s",
    "p50\nms",
    "p99\nms",
    "max\nms",
    "requests\nof each\nworker",
    "workers\nwithout\nwork",
    "Jain's\nindex",
    "under\nhalf\nbusy",
    "CPU s: load,\nworkers,\nsupervisor",
    "failed",
)


def plan_line(plan: Plan) -> str:
    """
    What is measured.
    """
    return (
        f"{plan.requests} PUTs of {decimal_size(plan.body_bytes)} from {plan.clients}"
        f" clients to {plan.workers} workers with the null store"
    )


def show_mode(mode: Mode, body_bytes: int, console: Console) -> None:
    """
    Print the figures of one mode, with all failures.
    """
    title = f"{mode.name[0].upper()}{mode.name[1:]}"
    show_table(title, _COLUMNS, [_cells(run, body_bytes) for run in mode.runs], console)
    console.print()
    for run in mode.runs:
        show_lines(failure_lines(run.policy, run.report), console)
        missing = len(run.report.latencies) + run.report.failed - sum(run.work.requests)
        if missing:
            kind = "fewer" if missing > 0 else "more"
            line = f"{run.policy}: the workers counted {abs(missing)} requests {kind}"
            show_lines([line], console)
    if mode.ceiling is not None:
        rates = [run.rate for run in mode.runs]
        show_lines([ceiling_line(mode.ceiling, rates)], console)
        show_lines(failure_lines("the ceiling", mode.ceiling), console)


def _cells(run: Run, body_bytes: int) -> Sequence[str]:
    requests = run.work.requests
    return (
        run.policy,
        f"{run.rate:.0f}",
        f"{run.rate * body_bytes / 1e9:.2f}",
        *(milliseconds(run.latency(share)) for share in (0.5, 0.99, 1.0)),
        _of_each(requests),
        str(run.without_work),
        f"{run.balance:.2f}",
        percent(run.time_under_half_busy),
        f"{run.report.cpu_seconds:.1f}, {run.work.worker_cpu_seconds:.1f},"
        f" {run.work.supervisor_cpu_seconds:.1f}",
        str(run.report.failed),
    )


def _of_each(requests: Sequence[int]) -> str:
    """
    All where they are few, four to a line; else the least and the most.
    """
    if len(requests) > _FEW:
        return f"{min(requests)}..{max(requests)}"
    lines = (requests[at : at + 4] for at in range(0, len(requests), 4))
    return "\n".join(" ".join(map(str, line)) for line in lines)
