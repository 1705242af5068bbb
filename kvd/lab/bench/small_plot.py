"""
The curve of tiny requests as a drawing.
"""

from __future__ import annotations

from typing import Any, Final

from kvd.lab.bench.small import Outcome
from kvd.lab.measuring.plot import COLORS, FAINT, INK, canvas, plain

_NEAR: Final = 1.6
"""
The ceiling is shown if it is no more than so many times the fastest: else the curve
would be flat.
"""


def draw_curve(outcome: Outcome) -> Any:
    """
    Requests/s over workers, a line for each policy, with a dot for each round.
    """
    figure = canvas(4.4)
    axes = figure.subplots()
    plain(axes, "both")
    axes.set_xscale("log", base=2)
    highest = 1.0
    for color, policy in zip(_colors(), outcome.plan.policies, strict=False):
        points = outcome.of(policy)
        workers = [point.workers for point in points]
        rates = [point.rate for point in points]
        axes.plot(workers, rates, "-o", color=color, linewidth=2, label=policy)
        for point in points:
            rounds = point.rates
            highest = max(highest, *rounds)
            axes.plot(
                [point.workers] * len(rounds),
                rounds,
                "o",
                color=color,
                markersize=3,
                alpha=0.45,
            )
    if outcome.ceiling.rate <= _NEAR * highest:
        highest = max(highest, outcome.ceiling.rate)
        _draw_ceiling(axes, outcome.ceiling.rate)
    axes.set_xticks(outcome.plan.workers, [str(n) for n in outcome.plan.workers])
    axes.minorticks_off()
    axes.set_ylim(0, highest * 1.1)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("workers", color=INK, fontsize=9)
    axes.set_ylabel("requests/s", color=INK, fontsize=9)
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="lower right")
    axes.axhline(0, color=FAINT, linewidth=1)
    return figure


def _draw_ceiling(axes: Any, rate: float) -> None:
    axes.axhline(rate, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), alpha=0.6)
    axes.annotate(
        "ceiling of the load",
        (1, rate),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color=INK,
    )


def _colors() -> tuple[str, ...]:
    return COLORS * 10
