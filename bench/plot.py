"""
The ratios and the servers as drawings, for the report.
"""

from __future__ import annotations

from bench.record import Record, Summary
from bench.showing import CURVE_FIGURES, FIGURES, curves
from kvd.lab.measuring.plot import (
    ACCENT,
    COLORS,
    FAINT,
    GOOD,
    INK,
    PALE,
    as_svg,
    canvas,
    draw_bars,
    plain,
)
from kvd.lab.measuring.table import decimal_size


def draw_ratios(record: Record) -> str:
    """
    All ratios with a target, each as its range, its median and the target; SVG.
    """
    lines = [
        (f"{summary.name}: {ratio.figure} by {ratio.against}", ratio)
        for summary in record.workloads
        if not summary.curve
        for ratio in summary.ratios
        if ratio.target is not None
    ]
    figure = canvas(0.9 + 0.27 * len(lines))
    axes = figure.subplots()
    plain(axes, "x")
    for number, (_, ratio) in enumerate(lines):
        color = GOOD if ratio.reached else ACCENT
        spread = ratio.measured
        axes.hlines(
            number, spread.least, spread.most, color=color, linewidth=5, alpha=0.3
        )
        axes.plot(spread.median, number, "o", color=color, markersize=6)
        axes.plot(
            ratio.target, number, "|", color=INK, markersize=13, markeredgewidth=2
        )
    axes.axvline(1, color=FAINT, linewidth=1, zorder=0)
    axes.set_xscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    low = min([0.5, *(min(r.measured.least, r.target or 1) for _, r in lines)])
    high = max([2.0, *(max(r.measured.most, r.target or 1) for _, r in lines)])
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.minorticks_off()
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.invert_yaxis()
    axes.set_xlabel(
        "kvd divided by the baseline: more is better", color=INK, fontsize=9
    )
    return as_svg(figure)


def draw_curves(record: Record) -> str:
    """
    The ratios over the size of values: a line for each curve, the range around it;
    SVG. Nothing without a curve.
    """
    found = curves(record.workloads)
    if not found:
        return ""
    figure = canvas(3.2)
    for axes, name in zip(figure.subplots(1, 2), CURVE_FIGURES, strict=True):
        plain(axes, "y")
        axes.axhline(1, color=INK, linewidth=1, zorder=0)
        for (curve, points), color in zip(found.items(), COLORS, strict=False):
            sizes = sorted(points)
            spreads = [points[size][name].measured for size in sizes]
            axes.plot(
                sizes,
                [spread.median for spread in spreads],
                "o-",
                color=color,
                markersize=4,
                label=curve,
            )
            axes.fill_between(
                sizes,
                [spread.least for spread in spreads],
                [spread.most for spread in spreads],
                color=color,
                alpha=0.15,
                linewidth=0,
            )
        axes.set_xscale("log")
        ticks = sorted({size for points in found.values() for size in points})
        axes.set_xticks(ticks, [decimal_size(tick) for tick in ticks], rotation=60)
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.set_title(FIGURES[name], loc="left", fontsize=10, color=INK)
        axes.legend(frameon=False, fontsize=8)
    return as_svg(figure)


def draw_servers(summary: Summary) -> str:
    """
    Rate and CPU time of each server, with a dot for each round; SVG.
    """
    names = [row.contender for row in summary.rows]
    runs = [[run for run in summary.runs if run.contender == name] for name in names]
    colors = [ACCENT if name.startswith("kvd") else PALE for name in names]
    figure = canvas(0.9 + 0.36 * len(names))
    rate, cost = figure.subplots(1, 2)
    draw_bars(
        rate,
        names,
        [row.rate for row in summary.rows],
        [[run.rate for run in each] for each in runs],
        colors,
    )
    rate.set_title("requests/s", loc="left", fontsize=10, color=INK)
    draw_bars(
        cost,
        names,
        [row.cpu_seconds_per_request * 1e6 for row in summary.rows],
        [[1e6 / run.work for run in each] for each in runs],
        colors,
    )
    cost.set_title(
        "microseconds of CPU for a request", loc="left", fontsize=10, color=INK
    )
    cost.tick_params(labelleft=False)
    return as_svg(figure)
