"""
Puts the tables of a run into a document.

    python -m bench.rst build/bench/<date>/result.json docs/performance.rst

replaces the text between the comments ``.. figures`` and ``.. end of figures``.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from textwrap import indent
from typing import Final

from rich.console import Console

from bench.record import Record
from bench.showing import show_curves, show_ratios, show_summary
from kvd.lab.measuring.record import read_record
from kvd.lab.measuring.table import WIDTH

_BEGIN: Final = ".. figures\n"
_END: Final = ".. end of figures\n"


def as_rst(record: Record) -> str:
    """
    Machine, ratios and figures as reStructuredText.
    """
    measured = record.machine["measured"][:10]
    machine = "\n".join(f":{name}: {text}" for name, text in record.machine.items())
    output = io.StringIO()
    console = Console(file=output, width=WIDTH, color_system=None)
    show_ratios(record.workloads, console)
    show_curves(record.workloads, console)
    for summary in record.workloads:
        if not summary.curve:
            show_summary(summary, console)
    shown = "\n".join(line.rstrip() for line in output.getvalue().splitlines())
    return (
        f"Of {measured}, {record.rounds} rounds of {record.seconds:g} seconds"
        f" for each server:\n\n{machine}\n\n"
        f".. code-block:: text\n\n{indent(shown.strip(), '   ')}\n"
    )


def replace_figures(document: str, figures: str) -> str:
    """
    Replace the figures of a document.
    """
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{figures}\n{_END}{after}"


def main(result: str, document: str) -> None:
    """
    Update a document.
    """
    path = Path(document)
    path.write_text(
        replace_figures(path.read_text(), as_rst(read_record(result, Record)))
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
