"""
The workers' busy time as a drawing: which are busy when, and how many at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from kvd.lab.bench.article import Mode, Plan
from kvd.lab.bench.run import Run
from kvd.lab.bench.timeline import busy_shares, spans
from kvd.lab.measuring.plot import BUSY, FAINT, INK, canvas, draw_heat, plain
from kvd.lab.measuring.table import decimal_size

_COLUMNS: Final = 120


def draw_busy_time(plan: Plan, modes: Sequence[Mode]) -> Any:
    """
    A panel for each policy and mode. Panels are small, so that a telephone shows them
    whole.
    """
    rows = len(modes[0].runs)
    figure = canvas(1.0 + 1.75 * rows, width=2.7 * len(modes))
    figure.suptitle(
        f"Workers with a request in progress\n{plan.requests} PUTs of"
        f" {decimal_size(plan.body_bytes)}, {plan.clients} clients,"
        f" {plan.workers} workers",
        color=INK,
        fontsize=11,
    )
    # Two rows for each policy: the workers, and below them how many are busy.
    grid = figure.add_gridspec(2 * rows, len(modes), height_ratios=[3, 1.2] * rows)
    for column, mode in enumerate(modes):
        kind = "keep-alive" if mode.keep_alive else "new connections"
        seconds = max(run.report.seconds for run in mode.runs)
        for row, run in enumerate(mode.runs):
            workers = figure.add_subplot(grid[2 * row, column])
            count = figure.add_subplot(grid[2 * row + 1, column], sharex=workers)
            _draw_workers(workers, run, labelled=not column)
            _draw_count(count, run, labelled=not column)
            count.set_xlim(0, seconds)
            heading = f"{run.policy}: {run.rate:.0f}/s"
            if row == 0:
                heading = f"{kind}\n{heading}"
            workers.set_title(heading, loc="left", fontsize=10, color=INK)
            if row == rows - 1:
                count.set_xlabel("seconds", color=INK, fontsize=10)
            else:
                count.tick_params(labelbottom=False)
    return figure


def _draw_workers(axes: Any, run: Run, *, labelled: bool) -> None:
    report, samples = run.report, run.work.samples
    columns = max(1, min(_COLUMNS, len(samples) // 2))
    shares = busy_shares(samples, report.began, report.ended, columns)
    draw_heat(axes, shares, report.seconds)
    _label(axes, "worker", [0, len(shares) - 1], labelled)


def _draw_count(axes: Any, run: Run, *, labelled: bool) -> None:
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
    plain(axes)
    _label(axes, "busy", [0, workers], labelled)


def _label(axes: Any, name: str, ticks: Sequence[int], labelled: bool) -> None:
    axes.set_yticks(ticks)
    axes.tick_params(labelleft=labelled, labelsize=9)
    if labelled:
        axes.set_ylabel(name, color=INK, fontsize=10)
