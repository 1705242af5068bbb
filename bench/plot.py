"""
The figures as drawings, for the report.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

from bench.record import Record, Summary

_KVD: Final = "#c4552d"
_OTHER: Final = "#5b7f95"
_REACHED: Final = "#2f7d4f"
_MISSED: Final = "#c4552d"
_INK: Final = "#22313a"
_FAINT: Final = "#c9cfd3"
_WIDTH: Final = 9.6


def draw_ratios(record: Record) -> str:
    """
    All ratios with a target, each as its range, its median and what is wanted; SVG.
    """
    lines = [
        (f"{summary.name}: {ratio.figure} by {ratio.against}", ratio)
        for summary in record.workloads
        for ratio in summary.ratios
        if ratio.target is not None
    ]
    figure, axes = _canvas(0.9 + 0.27 * len(lines))
    for place, (_, ratio) in enumerate(lines):
        assert ratio.target is not None
        color = _REACHED if ratio.reached else _MISSED
        seen = ratio.seen
        axes.hlines(place, seen.least, seen.most, color=color, linewidth=5, alpha=0.3)
        axes.plot(seen.median, place, "o", color=color, markersize=6)
        axes.plot(
            ratio.target, place, "|", color=_INK, markersize=13, markeredgewidth=2
        )
    axes.axvline(1, color=_FAINT, linewidth=1, zorder=0)
    axes.set_xscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    low = min([0.5, *(min(r.seen.least, r.target or 1) for _, r in lines)])
    high = max([2.0, *(max(r.seen.most, r.target or 1) for _, r in lines)])
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(low / 1.15, high * 1.15)
    axes.minorticks_off()
    axes.set_yticks(range(len(lines)), [name for name, _ in lines])
    axes.invert_yaxis()
    axes.set_xlabel("kvd by the other: more is better", color=_INK, fontsize=9)
    return _svg(figure)


def draw_servers(summary: Summary) -> str:
    """
    Rate and CPU time of each server, with a dot for each round; SVG.
    """
    names = [row.contender for row in summary.rows]
    figure, (rate, cost) = _canvas(0.9 + 0.36 * len(names), columns=2)
    runs = {
        name: [run for run in summary.runs if run.contender == name] for name in names
    }
    _bars(
        rate,
        names,
        [row.rate for row in summary.rows],
        [[run.rate for run in runs[name]] for name in names],
    )
    rate.set_title("requests/s", loc="left", fontsize=10, color=_INK)
    _bars(
        cost,
        names,
        [row.cpu_seconds_per_request * 1e6 for row in summary.rows],
        [[1e6 / run.work for run in runs[name]] for name in names],
    )
    cost.set_title(
        "microseconds of CPU for a request", loc="left", fontsize=10, color=_INK
    )
    cost.tick_params(labelleft=False)
    return _svg(figure)


def _bars(
    axes: Any,
    names: Sequence[str],
    medians: Sequence[float],
    rounds: Sequence[Sequence[float]],
) -> None:
    colors = [_KVD if name.startswith("kvd") else _OTHER for name in names]
    axes.barh(range(len(names)), medians, color=colors, alpha=0.85, height=0.62)
    for place, values in enumerate(rounds):
        axes.plot(
            values, [place] * len(values), "o", color=_INK, markersize=2.5, alpha=0.6
        )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(_few_ticks())


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _canvas(height: float, columns: int = 1) -> tuple[Any, Any]:
    # Imported late, and without pyplot, which would look for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots(1, columns)
    for one in axes if columns > 1 else [axes]:
        one.patch.set_alpha(0)
        one.tick_params(labelsize=9, colors=_INK, length=0)
        one.grid(axis="x", color=_FAINT, linewidth=0.5)
        one.set_axisbelow(True)
        for side in ("top", "right", "left", "bottom"):
            one.spines[side].set_visible(False)
    return figure, axes


def _svg(figure: Any) -> str:
    import matplotlib

    drawn = io.StringIO()
    # Text stays text: it can be searched, and takes the page's font.
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]
