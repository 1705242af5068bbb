"""
A run as a page that needs nothing beside it.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from bench.plot import draw_ratios, draw_servers
from bench.record import Record
from bench.showing import COLUMNS, cells, load_line, ratio_cells


def write_report(path: Path, record: Record) -> None:
    """
    Write a record as HTML, with drawings.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        record=record,
        ratios=draw_ratios(record),
        workloads=[(summary, draw_servers(summary)) for summary in record.workloads],
        columns=[" ".join(column.split()) for column in COLUMNS],
        cells=cells,
        load_line=load_line,
        ratio_cells=ratio_cells,
    )
    path.write_text(page, encoding="utf-8")
