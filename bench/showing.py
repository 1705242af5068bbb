"""
The figures as a person reads them in a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

from bench.measuring import Outcome
from bench.ratios import Ratio, Row, headroom, ratios, rows

WIDTH: Final = 110

_COLUMNS: Final = (
    "server",
    "requests\n/s",
    "GB/s",
    "p50\nms",
    "p99\nms",
    "CPU us\n/request",
    "CPU s\n/GB",
    "cores:\nserver",
    "cores:\nload",
    "failed",
)


def show_outcome(outcome: Outcome, console: Console) -> None:
    """
    Print all servers under one load.
    """
    workload = outcome.workload
    console.print(
        f"\n{workload.name}: {workload.title}\n", style="bold", highlight=False
    )
    console.print(_table(_COLUMNS, [_cells(row) for row in rows(outcome)]))
    console.print(
        f"\nThe load alone, against the leanest server: {outcome.ceiling.rate:,.0f}"
        f" requests/s, {headroom(outcome):.1f} times the fastest",
        highlight=False,
    )
    for row in rows(outcome):
        if row.errors:
            console.print(
                f"{row.contender}: {row.errors} failed: {row.first_error}",
                highlight=False,
                markup=False,
            )


def show_ratios(outcomes: Sequence[Outcome], console: Console) -> None:
    """
    Print kvd beside each server, with the figures to reach.
    """
    lines = []
    for outcome in outcomes:
        for ratio in ratios(outcome):
            if ratio.target is not None:
                lines.append((outcome.workload.name, *ratio_cells(ratio)))
    console.print("\nkvd by the other, medians of the rounds' ratios\n", style="bold")
    console.print(
        _table(("workload", "against", "figure", "seen", "range", "wanted", ""), lines)
    )


FIGURES: Final = {
    "rate": "rate",
    "work": "work per CPU s",
    "p99": "p99 (other / kvd)",
}


def ratio_cells(ratio: Ratio) -> tuple[str, ...]:
    """
    A line of the table of ratios, without the workload.
    """
    reached = {True: "reached", False: "not reached", None: ""}[ratio.reached]
    return (
        ratio.against,
        FIGURES[ratio.figure],
        f"{ratio.seen.median:.2f}",
        f"{ratio.seen.least:.2f}..{ratio.seen.most:.2f}",
        "" if ratio.target is None else f"{ratio.target:g}",
        reached,
    )


def _cells(row: Row) -> Sequence[str]:
    return (
        row.contender,
        f"{row.rate:,.0f}",
        f"{row.bytes_per_second / 1e9:.2f}",
        milliseconds(row.p50_seconds),
        milliseconds(row.p99_seconds),
        f"{row.cpu_seconds_per_request * 1e6:,.0f}",
        f"{row.cpu_seconds_per_gb:.3f}",
        f"{row.server_cores:.2f}",
        f"{row.load_cores:.2f}",
        str(row.errors),
    )


def milliseconds(seconds: float) -> str:
    """
    To about three digits.
    """
    return f"{seconds * 1e3:.3g}" if seconds < 1 else f"{seconds * 1e3:,.0f}"


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> Table:
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    words = ("server", "workload", "against", "figure", "")
    for name in columns:
        justify: JustifyMethod = "left" if name in words else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for line in lines:
        table.add_row(*line)
    return table
