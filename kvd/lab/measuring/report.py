"""
A measurement as a page that needs nothing beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvd.lab.measuring.plot import check_drawing


def check_report() -> None:
    """
    Raises:
        PlotUnavailable: No report could be written.
    """
    check_drawing("jinja2", "matplotlib")


def write_page(path: str, template: Path, **filled: Any) -> None:
    """
    Write a page.

    Args:
        path: Of the page.
        template: Extends ``page.html.j2``.
        filled: What is put into it.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template.name).render(**filled)
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)


def headings(columns: Sequence[str]) -> Sequence[str]:
    """
    A terminal table's, each in one line.
    """
    return [" ".join(column.split()).replace(" /", "/") for column in columns]
