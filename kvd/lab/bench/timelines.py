"""
The comparison of policies as drawings.
"""

from __future__ import annotations

import math
from typing import Any, Final

from kvd.lab.bench.dispatch import Compared, Plan
from kvd.lab.bench.drawing import ACCENT, BUSY, IDLE, INK, canvas, plain
from kvd.lab.bench.figures import balances, utilisation
from kvd.lab.bench.run import Run

_ACROSS: Final = 3
_COLUMN_SECONDS: Final = 0.05
_BALANCE_SECONDS: Final = 0.25


def draw_rates(compared: Compared, plan: Plan) -> Any:
    """
    Requests/s of each policy, with a dot for each round and a line for what cannot
    be exceeded.
    """
    figure = canvas(9.2, 0.55 + 0.3 * len(compared.seen))
    axes = figure.subplots()
    plain(axes, "x")
    places = range(len(compared.seen))
    rates = [seen.rate for seen in compared.seen]
    best = max(rates)
    colors = [BUSY if rate >= 0.95 * best else "#9db6c2" for rate in rates]
    axes.barh(places, rates, color=colors, height=0.62)
    for place, seen in zip(places, compared.seen, strict=True):
        rounds = [run.rate for run in seen.runs]
        axes.plot(rounds, [place] * len(rounds), "o", color=INK, markersize=2.5)
    axes.axvline(plan.bound, color=ACCENT, linewidth=1.2)
    axes.set_yticks(places, [seen.policy for seen in compared.seen])
    axes.invert_yaxis()
    axes.set_xlim(0, plan.bound * 1.02)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("requests/s", color=INK, fontsize=8)
    return figure


def draw_timelines(compared: Compared) -> Any:
    """
    For each policy how busy each worker was, and how even they were, over a round.
    """
    down = math.ceil(len(compared.seen) / _ACROSS)
    workers = len(compared.seen[0].typical.work.requests)
    height = min(3.0, max(1.0, 0.15 * workers))
    figure = canvas(9.2, down * (height + 1.15))
    grid = figure.add_gridspec(2 * down, _ACROSS, height_ratios=[height, 0.55] * down)
    for place, seen in enumerate(compared.seen):
        row, column = divmod(place, _ACROSS)
        heat = figure.add_subplot(grid[2 * row, column])
        line = figure.add_subplot(grid[2 * row + 1, column])
        _draw_busy(heat, seen.typical)
        _draw_balance(line, seen.typical)
        heat.set_title(seen.policy, loc="left", fontsize=10, color=INK)
        if column == 0:
            heat.set_ylabel("worker", color=INK, fontsize=8)
            line.set_ylabel("balance", color=INK, fontsize=8)
    return figure


def _draw_busy(axes: Any, run: Run) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    seconds = run.until - run.report.began
    columns = max(1, round(seconds / _COLUMN_SECONDS))
    shares = utilisation(run.work.samples, run.report.began, run.until, columns)
    axes.imshow(
        shares,
        aspect="auto",
        interpolation="nearest",
        origin="upper",
        cmap=LinearSegmentedColormap.from_list("busy", [IDLE, BUSY]),
        vmin=0,
        vmax=1,
        extent=(0, seconds, len(shares) - 0.5, -0.5),
    )
    for border in range(1, len(shares)):
        axes.axhline(border - 0.5, color="white", linewidth=min(0.8, 12 / len(shares)))
    plain(axes)
    axes.tick_params(labelbottom=False)


def _draw_balance(axes: Any, run: Run) -> None:
    seconds = run.until - run.report.began
    columns = max(1, round(seconds / _BALANCE_SECONDS))
    seen = balances(run.work.samples, run.report.began, run.until, columns)
    width = seconds / columns
    middles = [(column + 0.5) * width for column in range(columns)]
    plain(axes, "y")
    axes.plot(middles, seen, "-o", color=ACCENT, linewidth=1.4, markersize=3)
    axes.set_xlim(0, seconds)
    axes.set_ylim(0, 1.08)
    axes.set_yticks([0, 0.5, 1], ["0", "", "1"])
    axes.tick_params(labelsize=7)
