"""
The figures as tables.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.console import Console

from bench.loads import THREADS
from bench.ratios import Ratio, Row
from bench.record import Summary
from kvd.lab.measuring.table import milliseconds, show_lines, show_table
from kvd.lab.measuring.targets import verdict

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

RATIO_COLUMNS: Final = ("against", "figure", "measured", "range", "target", "")


def show_summary(summary: Summary, console: Console) -> None:
    """
    Print all servers under one load.
    """
    title = f"{summary.name}: {summary.title}"
    show_table(title, COLUMNS, [cells(row) for row in summary.rows], console)
    failed = [
        f"{row.contender}: {row.errors} failed: {row.first_error}"
        for row in summary.rows
        if row.errors
    ]
    show_lines(["", ceiling_line(summary), *failed], console)


def ceiling_line(summary: Summary) -> str:
    """
    How far the load is from being the limit.
    """
    kvd = summary.rows[0]
    if summary.ceiling_rate is None:
        return "The client programs are the limit"
    return (
        f"Ceiling of the load: {summary.ceiling_rate:,.0f} requests/s,"
        f" {summary.ceiling_rate / kvd.rate:.1f} times kvd's; against kvd its"
        f" {THREADS} threads were {kvd.load_cores / THREADS * 100:.0f} % busy"
    )


def show_ratios(summaries: Sequence[Summary], console: Console) -> None:
    """
    Print kvd divided by each baseline, with the targets.
    """
    lines = [
        (summary.name, *ratio_cells(ratio))
        for summary in summaries
        if not summary.curve
        for ratio in summary.ratios
        if ratio.target is not None
    ]
    title = "kvd divided by the baseline, medians of the rounds' ratios"
    show_table(title, ("workload", *RATIO_COLUMNS), lines, console)


def show_curves(summaries: Sequence[Summary], console: Console) -> None:
    """
    Print the ratios of curves: a line for each size of values.
    """
    found = curves(summaries)
    if not found:
        return
    columns = [
        f"{name}\n{FIGURES[figure]}" for name in found for figure in CURVE_FIGURES
    ]
    sizes = sorted({size for points in found.values() for size in points})
    lines = [
        (
            f"{size:,}",
            *(
                _point(points.get(size, {}).get(figure))
                for points in found.values()
                for figure in CURVE_FIGURES
            ),
        )
        for size in sizes
    ]
    title = "kvd divided by the first baseline, the same keys again, by size of values"
    show_table(title, ("bytes", *columns), lines, console)
    show_lines(["", "* below its target"], console)


def _point(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    missed = "*" if ratio.reached is False else ""
    return f"{missed}{ratio.measured.median:.2f}"


def curves(
    summaries: Sequence[Summary],
) -> Mapping[str, Mapping[int, Mapping[str, Ratio]]]:
    """
    The ratios with a target, by curve, size and figure.
    """
    found: dict[str, dict[int, dict[str, Ratio]]] = {}
    for summary in summaries:
        if summary.curve:
            found.setdefault(summary.curve, {})[summary.body_bytes] = {
                ratio.figure: ratio
                for ratio in summary.ratios
                if ratio.target is not None
            }
    return found


CURVE_FIGURES: Final = ("rate", "work")
FIGURES: Final = {
    "rate": "rate",
    "work": "work per CPU s",
    "p99": "p99 (other / kvd)",
}


def ratio_cells(ratio: Ratio) -> tuple[str, ...]:
    """
    A line of the table of ratios, without the workload.
    """
    return (
        ratio.against,
        FIGURES[ratio.figure],
        f"{ratio.measured.median:.2f}",
        f"{ratio.measured.least:.2f}..{ratio.measured.most:.2f}",
        "" if ratio.target is None else f"{ratio.target:g}",
        "" if ratio.reached is None else verdict(ratio.reached),
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
        "" if row.cpu_seconds_per_gb is None else f"{row.cpu_seconds_per_gb:.3f}",
        f"{row.server_cores:.2f}",
        f"{row.load_cores:.2f}",
        str(row.errors),
    )
