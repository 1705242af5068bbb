"""
What all drawings have in common.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any, Final

from kvd.lab.measuring.errors import PlotUnavailable

WIDTH: Final = 9.4
"""
Of a page, in inches.
"""

INK: Final = "#22313a"
FAINT: Final = "#c9cfd3"
BUSY: Final = "#1b5e7b"
PALE: Final = "#9db6c2"
IDLE: Final = "#f3efe6"
ACCENT: Final = "#c4552d"
GOOD: Final = "#2f7d4f"
COLORS: Final = (
    "#c4552d", "#1b5e7b", "#6a8f3c", "#8a5a96", "#c79a2b", "#4a9a96", "#7a6a58",
)  # fmt: skip

SUFFIXES: Final = (".png", ".svg")

_XML: Final = '<?xml version="1.0" encoding="utf-8"?>\n'
_DARK: Final = """
@media (prefers-color-scheme: dark) {
  svg { filter: invert(0.9) hue-rotate(180deg); }
}
"""


def check_plot(path: str) -> None:
    """
    Raises:
        PlotUnavailable: The file could not be drawn.
    """
    if os.path.splitext(path)[1].lower() not in SUFFIXES:
        raise PlotUnavailable(
            f"{path!r} can be neither PNG nor SVG: its name has to end in .png or .svg"
        )
    check_drawing("matplotlib")


def check_drawing(*packages: str) -> None:
    """
    Raises:
        PlotUnavailable: One of the packages is missing.
    """
    try:
        for package in packages:
            import_module(package)
    except ImportError as error:
        raise PlotUnavailable(
            f"this needs {' and '.join(packages)}: run pip install '.[plot]' in the"
            " folder of kvd's sources"
        ) from error


def canvas(height: float, width: float = WIDTH) -> Any:
    """
    An empty figure, in inches.
    """
    # Imported late: no other command has to wait for it. Made without pyplot, which
    # would look for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def plain(axes: Any, grid: str = "") -> None:
    """
    Leave out what carries no information.

    Args:
        axes: Of a figure.
        grid: Along which axis there are lines: ``x``, ``y`` or ``both``.
    """
    axes.patch.set_alpha(0)
    axes.tick_params(labelsize=8, colors=INK, length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    if grid:
        axes.grid(axis=grid, color=FAINT, linewidth=0.5)
        axes.set_axisbelow(True)


def draw_bars(
    axes: Any,
    names: Sequence[str],
    medians: Sequence[float],
    rounds: Sequence[Sequence[float]],
    colors: Sequence[str],
) -> None:
    """
    A bar for each median, with a dot for each round.
    """
    from matplotlib.ticker import MaxNLocator

    plain(axes, "x")
    axes.barh(range(len(names)), medians, color=colors, height=0.62)
    for line, values in enumerate(rounds):
        axes.plot(values, [line] * len(values), "o", color=INK, markersize=2.5)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.xaxis.set_major_locator(MaxNLocator(5))


def draw_heat(axes: Any, shares: Sequence[Sequence[float]], seconds: float) -> None:
    """
    A line for each worker over the time: dark where it was busy all of it.

    Args:
        shares: From 0 to 1, for each worker and column of time.
        seconds: From the first column to the last.
    """
    from matplotlib.colors import LinearSegmentedColormap

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
    plain(axes)
    axes.tick_params(labelbottom=False)


def as_svg(figure: Any) -> str:
    """
    A figure as an element for a page.
    """
    import matplotlib

    drawn = io.StringIO()
    # Text stays text: it can be searched, and takes the page's font.
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None})
    text = drawn.getvalue()
    return text[text.index("<svg") :]


def save(figure: Any, path: str) -> None:
    """
    Write a figure as PNG or SVG, by the name of the file. An SVG is dark where its
    reader's system is.
    """
    # What it is shown on may be of any colour.
    figure.patch.set_alpha(1)
    if path.lower().endswith(".png"):
        figure.savefig(path, dpi=200)
        return
    head, _, body = as_svg(figure).partition("<defs>")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{_XML}{head}<style>{_DARK}</style><defs>{body}")
