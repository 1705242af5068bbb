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

from kvd.lab.bench.article import Mode, Plan
from kvd.lab.bench.load import Report
from kvd.lab.bench.run import Run

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
    table = plain_table(_COLUMNS, [_cells(run, body_bytes) for run in mode.runs])
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


def plain_table(
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    words: Sequence[str] = ("policy",),
) -> Table:
    """
    A table in the way of all measurements.

    Args:
        columns: Their headings.
        lines: Of cells.
        words: The columns that hold words; others hold numbers, and end alike.
    """
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in columns:
        justify: JustifyMethod = "left" if name in words else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table


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
        f"The load alone, against a sink that discards: {ceiling.rate:.0f} requests/s"
    )
    fastest = max((run.rate for run in runs), default=0.0)
    if fastest:
        line += f", {ceiling.rate / fastest:.1f} times the fastest policy"
    return line


def milliseconds(seconds: float) -> str:
    """
    To a tenth, as long as that is worth anything.
    """
    if math.isnan(seconds):
        return "-"
    return f"{seconds * 1e3:.1f}" if seconds < 0.1 else f"{seconds * 1e3:.0f}"


def percent(share: float, digits: int = 0) -> str:
    """
    A share of 1.
    """
    return "-" if math.isnan(share) else f"{share * 100:.{digits}f} %"


def spell_bytes(count: int) -> str:
    """
    A size with a decimal unit, as articles give them.
    """
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:g} {unit}"
    return f"{count} B"
