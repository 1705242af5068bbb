"""
What all drawings have in common.
"""

from __future__ import annotations

import io
from typing import Any, Final

INK: Final = "#22313a"
FAINT: Final = "#c9cfd3"
BUSY: Final = "#1b5e7b"
IDLE: Final = "#f3efe6"
ACCENT: Final = "#c4552d"
COLORS: Final = (
    "#c4552d", "#1b5e7b", "#6a8f3c", "#8a5a96", "#c79a2b", "#4a9a96", "#7a6a58",
)  # fmt: skip

_XML: Final = '<?xml version="1.0" encoding="utf-8"?>\n'
_DARK: Final = """
@media (prefers-color-scheme: dark) {
  svg { filter: invert(0.9) hue-rotate(180deg); }
}
"""


def canvas(width: float, height: float) -> Any:
    """
    An empty figure, of so many inches.
    """
    # Imported late: nobody else waits for it. Made without pyplot, which would look
    # for a screen.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.patch.set_alpha(0)
    return figure


def plain(axes: Any, grid: str = "") -> None:
    """
    Leave away what tells nothing.

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
