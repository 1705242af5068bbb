"""
The comparison of policies as drawings.
"""

from __future__ import annotations

import math
from typing import Any, Final

from kvd.lab.bench.dispatch import Compared
from kvd.lab.bench.dispatch_plan import Plan
from kvd.lab.bench.run import Run
from kvd.lab.bench.timeline import balances, utilisation
from kvd.lab.measuring.plot import (
    ACCENT,
    BUSY,
    INK,
    PALE,
    canvas,
    draw_bars,
    draw_heat,
    plain,
)

_ACROSS: Final = 3
_COLUMN_SECONDS: Final = 0.05
_BALANCE_SECONDS: Final = 0.25


def draw_rates(compared: Compared, plan: Plan) -> Any:
    """
    Requests/s of each policy, with a dot for each round and a line for what cannot
    be exceeded.
    """
    figure = canvas(0.55 + 0.3 * len(compared.policies))
    axes = figure.subplots()
    rates = [rounds.rate for rounds in compared.policies]
    best = max(rates)
    draw_bars(
        axes,
        [rounds.policy for rounds in compared.policies],
        rates,
        [rounds.rates for rounds in compared.policies],
        [BUSY if rate >= 0.95 * best else PALE for rate in rates],
    )
    axes.axvline(plan.bound, color=ACCENT, linewidth=1.2)
    axes.set_xlim(0, plan.bound * 1.02)
    axes.set_xlabel("requests/s", color=INK, fontsize=8)
    return figure


def draw_timelines(compared: Compared) -> Any:
    """
    For each policy how busy each worker was, and how even they were, over a round.
    """
    down = math.ceil(len(compared.policies) / _ACROSS)
    workers = len(compared.policies[0].typical.work.requests)
    height = min(3.0, max(1.0, 0.15 * workers))
    figure = canvas(down * (height + 1.15))
    grid = figure.add_gridspec(2 * down, _ACROSS, height_ratios=[height, 0.55] * down)
    for number, rounds in enumerate(compared.policies):
        row, column = divmod(number, _ACROSS)
        heat = figure.add_subplot(grid[2 * row, column])
        line = figure.add_subplot(grid[2 * row + 1, column])
        _draw_busy(heat, rounds.typical)
        _draw_balance(line, rounds.typical)
        heat.set_title(rounds.policy, loc="left", fontsize=10, color=INK)
        if column == 0:
            heat.set_ylabel("worker", color=INK, fontsize=8)
            line.set_ylabel("balance", color=INK, fontsize=8)
    return figure


def _draw_busy(axes: Any, run: Run) -> None:
    seconds = run.until - run.report.began
    columns = max(1, round(seconds / _COLUMN_SECONDS))
    shares = utilisation(run.work.samples, run.report.began, run.until, columns)
    draw_heat(axes, shares, seconds)
    for border in range(1, len(shares)):
        axes.axhline(border - 0.5, color="white", linewidth=min(0.8, 12 / len(shares)))


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
