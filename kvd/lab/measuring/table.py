"""
Tables for a terminal, and how figures are written in them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

WIDTH: Final = 120
"""
More than any table takes. A narrower terminal wraps it, which is better than a table
that leaves out what does not fit.
"""

_WORDS: Final = frozenset(
    ("policy", "server", "workload", "against", "figure", "measure", "")
)
"""
Columns that hold words; others hold numbers, and are aligned on the right.
"""


def wide_console() -> Console:
    """
    Standard output, wide enough for every table.
    """
    console = Console(highlight=False)
    console.width = max(console.width, WIDTH)
    return console


def show_table(
    title: str,
    columns: Sequence[str],
    lines: Sequence[Sequence[str]],
    console: Console,
) -> None:
    """
    Print a table below its title.
    """
    table = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for name in columns:
        justify: JustifyMethod = "left" if name in _WORDS else "right"
        table.add_column(name, justify=justify, no_wrap=True)
    for line in lines:
        table.add_row(*line)
    console.print(f"\n{title}\n", style="bold", highlight=False)
    console.print(table)


def show_lines(lines: Sequence[str], console: Console) -> None:
    """
    Print lines as they are.
    """
    for line in lines:
        console.print(line, highlight=False, markup=False)


def milliseconds(seconds: float) -> str:
    """
    Three digits of them, but none below a hundredth, and not -0.00.
    """
    if math.isnan(seconds):
        return "-"
    value = round(seconds * 1e3, 2) + 0.0
    digits = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{digits}f}"


def percent(share: float, digits: int = 0) -> str:
    """
    A share of 1; not -0.
    """
    if math.isnan(share):
        return "-"
    return f"{round(share * 100, digits) + 0.0:.{digits}f} %"


def decimal_size(count: int) -> str:
    """
    Bytes with a decimal unit, as articles give them.
    """
    for power, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if count >= 10**power:
            return f"{count / 10**power:g} {unit}"
    return f"{count} B"
