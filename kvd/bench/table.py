"""
The figures as a person reads them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

from kvd.bench.article import Mode, Plan, Run, rate_of
from kvd.bench.load import Report

WIDTH: Final = 120
"""
More than the table takes. A narrower terminal wraps it, which is better than a table
that leaves out what does not fit.
"""

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


def show_plan(plan: Plan, console: Console) -> None:
    """
    Print what is measured.
    """
    console.print(
        f"{plan.requests} PUTs of {spell_bytes(plan.body_bytes)} from {plan.clients}"
        f" clients to {plan.workers} workers with the null store",
        highlight=False,
    )


def show_mode(mode: Mode, body_bytes: int, console: Console) -> None:
    """
    Print the figures of one mode, with all that failed.
    """
    table = Table(
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for name in _COLUMNS:
        justify: JustifyMethod = "left" if name == "policy" else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for run in mode.runs:
        table.add_row(*_cells(run, body_bytes))
    console.print(f"\n{mode.name[0].upper()}{mode.name[1:]}\n", style="bold")
    console.print(table)
    console.print()
    for run in mode.runs:
        _show_failures(run.policy, run.report, console)
        missing = len(run.report.latencies) + run.report.failed - sum(run.work.requests)
        if missing:
            console.print(
                f"{run.policy}: the workers counted"
                f" {abs(missing)} requests {'fewer' if missing > 0 else 'more'}",
                highlight=False,
            )
    if mode.ceiling is not None:
        console.print(ceiling_line(mode.ceiling, mode.runs), highlight=False)
        _show_failures("the load alone", mode.ceiling, console)


def _cells(run: Run, body_bytes: int) -> Sequence[str]:
    requests = run.work.requests
    return (
        run.policy,
        f"{run.rate:.0f}",
        f"{run.rate * body_bytes / 1e9:.2f}",
        *(_milliseconds(run.latency(share)) for share in (0.5, 0.99, 1.0)),
        _of_each(requests),
        str(run.without_work),
        f"{run.balance:.2f}",
        _percent(run.time_under_half_busy),
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


def _show_failures(name: str, report: Report, console: Console) -> None:
    for reason, count in sorted(report.failures.items()):
        console.print(
            f"{name}: {count} failed: {reason}", highlight=False, markup=False
        )


def ceiling_line(ceiling: Report, runs: Sequence[Run]) -> str:
    """
    How far the load is from being the limit.
    """
    line = (
        "The load alone, against a sink that discards:"
        f" {rate_of(ceiling):.0f} requests/s"
    )
    fastest = max((run.rate for run in runs), default=0.0)
    if fastest:
        line += f", {rate_of(ceiling) / fastest:.1f} times the fastest policy"
    return line


def _milliseconds(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{seconds * 1e3:.1f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def _percent(share: float) -> str:
    return "-" if math.isnan(share) else f"{share * 100:.0f} %"


def spell_bytes(count: int) -> str:
    """
    A size with a decimal unit, as articles give them.
    """
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:g} {unit}"
    return f"{count} B"
