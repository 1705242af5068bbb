"""
The workers' busy time as a drawing: which of them are busy when, and how many at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvd.lab.bench.article import Mode, Plan
from kvd.lab.bench.run import Run
from kvd.lab.bench.timeline import busy_shares, spans
from kvd.lab.measuring.plot import BUSY, FAINT, INK, canvas, draw_heat, plain
from kvd.lab.measuring.table import decimal_size

_COLUMNS: Final = 240


def draw_busy_time(plan: Plan, modes: Sequence[Mode]) -> Any:
    """
    A panel for each policy and mode.
    """
    policies = [run.policy for run in modes[0].runs]
    rows = len(policies)
    figure = canvas(1.1 + 2.5 * rows, width=6.4 * len(modes))
    figure.suptitle(
        f"Which workers have a request: {plan.requests} PUTs of"
        f" {decimal_size(plan.body_bytes)} from {plan.clients} clients\n"
        "dark: all of the time; light: none of it",
        color=INK,
        fontsize=12,
    )
    # Two rows for each policy: the workers, and below them how many are busy.
    grid = figure.add_gridspec(2 * rows, len(modes), height_ratios=[3, 1] * rows)
    for column, mode in enumerate(modes):
        kind = "keep-alive" if mode.keep_alive else "new connections"
        seconds = max(run.report.seconds for run in mode.runs)
        for row, run in enumerate(mode.runs):
            workers = figure.add_subplot(grid[2 * row, column])
            count = figure.add_subplot(grid[2 * row + 1, column], sharex=workers)
            _draw_workers(workers, run)
            _draw_count(count, run)
            count.set_xlim(0, seconds)
            workers.set_title(
                f"{run.policy}, {kind}: {run.rate:.0f} requests/s",
                loc="left",
                fontsize=10,
                color=INK,
            )
            if row == rows - 1:
                count.set_xlabel("seconds", color=INK)
    return figure


def _draw_workers(axes: Any, run: Run) -> None:
    report, samples = run.report, run.work.samples
    columns = max(1, min(_COLUMNS, len(samples) // 2))
    shares = busy_shares(samples, report.began, report.ended, columns)
    draw_heat(axes, shares, report.seconds)
    axes.set_ylabel("worker", color=INK, fontsize=9)


def _draw_count(axes: Any, run: Run) -> None:
    plain(axes)
    report = run.report
    edges = [0.0]
    counts = []
    for _, end, in_progress in spans(run.work.samples, report.began, report.ended):
        edges.append(end - report.began)
        counts.append(sum(map(bool, in_progress)))
    workers = len(run.work.requests)
    axes.stairs(counts, edges, fill=True, color=BUSY, alpha=0.25, linewidth=0)
    axes.stairs(counts, edges, color=BUSY, linewidth=0.9, baseline=None)
    axes.axhline(workers / 2, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(0, workers * 1.05)
    axes.set_yticks([0, workers / 2, workers], ["0", "half", "all"])
    axes.set_ylabel("busy", color=INK, fontsize=9)
