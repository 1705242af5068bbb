"""
The figures as a person reads them in a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

from bench.loads import THREADS
from bench.ratios import Ratio, Row
from bench.record import Summary

WIDTH: Final = 110

COLUMNS: Final = (
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


def show_summary(summary: Summary, console: Console) -> None:
    """
    Print all servers under one load.
    """
    console.print(f"\n{summary.name}: {summary.title}\n", style="bold", highlight=False)
    console.print(_table(COLUMNS, [cells(row) for row in summary.rows]))
    console.print(f"\n{load_line(summary)}", highlight=False)
    for row in summary.rows:
        if row.errors:
            console.print(
                f"{row.contender}: {row.errors} failed: {row.first_error}",
                highlight=False,
                markup=False,
            )


def load_line(summary: Summary) -> str:
    """
    How far the load is from being the limit.
    """
    kvd = summary.rows[0]
    return (
        f"The load reached up to {summary.load_alone_rate:,.0f} requests/s,"
        f" {summary.load_alone_rate / kvd.rate:.1f} times kvd's; beside kvd its"
        f" {THREADS} threads were {kvd.load_cores / THREADS * 100:.0f} % busy"
    )


def show_ratios(summaries: Sequence[Summary], console: Console) -> None:
    """
    Print kvd beside each server, with the figures to reach.
    """
    lines = [
        (summary.name, *ratio_cells(ratio))
        for summary in summaries
        for ratio in summary.ratios
        if ratio.target is not None
    ]
    columns = ("workload", "against", "figure", "seen", "range", "wanted", "")
    console.print("\nkvd by the other, medians of the rounds' ratios\n", style="bold")
    console.print(_table(columns, lines))


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


def cells(row: Row) -> Sequence[str]:
    """
    A line of the table of servers.
    """
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
