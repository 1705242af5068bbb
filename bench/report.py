"""
A run as a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from bench.plot import draw_curves, draw_ratios, draw_servers
from bench.record import Record
from bench.showing import COLUMNS, RATIO_COLUMNS, ceiling_line, cells, ratio_cells
from kvd.lab.measuring.report import headings, write_page

_TEMPLATE: Final = Path(__file__).with_name("report.html.j2")


def write_report(path: Path, record: Record) -> None:
    """
    Write a record as HTML, with drawings.
    """
    workloads = [
        {
            "summary": summary,
            "ceiling": ceiling_line(summary),
            "drawing": draw_servers(summary),
            "lines": [cells(row) for row in summary.rows],
            "ratios": [ratio_cells(ratio) for ratio in summary.ratios],
        }
        for summary in record.workloads
    ]
    write_page(
        str(path),
        _TEMPLATE,
        record=record,
        ratios=draw_ratios(record),
        curves=draw_curves(record),
        workloads=workloads,
        columns=headings(COLUMNS),
        ratio_columns=RATIO_COLUMNS,
    )
