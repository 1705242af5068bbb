"""
The workers' busy time as a drawing: who works when, and how many at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

from kvd.lab.bench.article import Mode, Plan
from kvd.lab.bench.errors import PlotUnavailable
from kvd.lab.bench.figures import busy_shares, spans
from kvd.lab.bench.run import Run
from kvd.lab.bench.table import spell_bytes

SUFFIXES: Final = (".png", ".svg")

_COLUMNS: Final = 240
_BUSY: Final = "#1b5e7b"
_IDLE: Final = "#f3efe6"
_INK: Final = "#22313a"
_FAINT: Final = "#9aa3a8"


def check_plot(path: str) -> None:
    """
    Raises:
        PlotUnavailable: The file could not be drawn.
    """
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise PlotUnavailable(
            f"{path!r} can be neither PNG nor SVG: its name has to end in .png or .svg"
        )
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise PlotUnavailable(
            "drawing needs matplotlib: run pip install '.[plot]' in the folder of kvd's"
            " sources"
        ) from error


def draw(path: str, plan: Plan, modes: Sequence[Mode]) -> None:
    """
    Draw a panel for each policy and mode into a file, PNG or SVG by its suffix.
    """
    # Imported late: nobody else waits for it. The figure is made without pyplot,
    # which would look for a screen.
    from matplotlib.figure import Figure

    policies = [run.policy for run in modes[0].runs]
    rows = len(policies)
    figure = Figure(
        figsize=(6.4 * len(modes), 1.1 + 2.5 * rows), dpi=130, layout="constrained"
    )
    figure.suptitle(
        f"Which workers have a request: {plan.requests} PUTs of"
        f" {spell_bytes(plan.body_bytes)} from {plan.clients} clients\n"
        "dark: all of the time; light: none of it",
        color=_INK,
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
                color=_INK,
            )
            if row == rows - 1:
                count.set_xlabel("seconds", color=_INK)
    figure.savefig(path, format=os.path.splitext(path)[1][1:].lower())


def _draw_workers(axes: Any, run: Run) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    report, samples = run.report, run.work.samples
    columns = max(1, min(_COLUMNS, len(samples) // 2))
    shares = busy_shares(samples, report.began, report.ended, columns)
    axes.imshow(
        shares,
        aspect="auto",
        interpolation="nearest",
        origin="upper",
        cmap=LinearSegmentedColormap.from_list("busy", [_IDLE, _BUSY]),
        vmin=0,
        vmax=1,
        extent=(0, report.seconds, len(shares) - 0.5, -0.5),
    )
    for border in range(1, len(shares)):
        width = min(0.8, 24 / len(shares))
        axes.axhline(border - 0.5, color="white", linewidth=width)
    axes.set_ylabel("worker", color=_INK, fontsize=9)
    axes.tick_params(labelbottom=False, length=0, labelsize=8, colors=_INK)
    _bare(axes)


def _draw_count(axes: Any, run: Run) -> None:
    report = run.report
    edges = [0.0]
    counts = []
    for _, end, in_progress in spans(run.work.samples, report.began, report.ended):
        edges.append(end - report.began)
        counts.append(sum(map(bool, in_progress)))
    workers = len(run.work.requests)
    axes.stairs(counts, edges, fill=True, color=_BUSY, alpha=0.25, linewidth=0)
    axes.stairs(counts, edges, color=_BUSY, linewidth=0.9, baseline=None)
    axes.axhline(workers / 2, color=_FAINT, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_ylim(0, workers * 1.05)
    axes.set_yticks([0, workers / 2, workers], ["0", "half", "all"])
    axes.set_ylabel("busy", color=_INK, fontsize=9)
    axes.tick_params(labelsize=8, colors=_INK)
    _bare(axes)


def _bare(axes: Any) -> None:
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
