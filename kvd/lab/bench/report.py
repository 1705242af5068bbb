"""
A measurement as a page that needs nothing beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kvd.lab.bench import dispatch, dispatch_table, small, small_table
from kvd.lab.bench.drawing import as_svg
from kvd.lab.bench.errors import PlotUnavailable
from kvd.lab.bench.machine import Machine
from kvd.lab.bench.wanted import Wanted


def check_report() -> None:
    """
    Raises:
        PlotUnavailable: No report could be written.
    """
    try:
        import jinja2
        import matplotlib  # noqa: F401

        del jinja2
    except ImportError as error:
        raise PlotUnavailable(
            "a report needs matplotlib and jinja2: run pip install '.[plot]' in the"
            " folder of kvd's sources"
        ) from error


def write_dispatch(
    path: str, outcome: dispatch.Outcome, wanted: Sequence[Wanted], machine: Machine
) -> None:
    """
    Write the comparison of policies as HTML.
    """
    from kvd.lab.bench.timelines import draw_rates, draw_timelines

    sections = [
        {
            "case": compared.case,
            "heading": dispatch.LOADS[compared.case.name].capitalize(),
            "rates": as_svg(draw_rates(compared, outcome.plan)),
            "lines": [dispatch_table.cells(seen) for seen in compared.seen],
            "timelines": as_svg(draw_timelines(compared)),
            "failures": dispatch_table.failures(compared),
        }
        for compared in outcome.compared
    ]
    _write(
        path,
        "dispatch.html.j2",
        machine=machine,
        plan=dispatch_table.plan_line(outcome.plan),
        wanted=[figure.cells() for figure in wanted],
        wanted_columns=dispatch_table.WANTED_COLUMNS,
        sections=sections,
        columns=_headings(dispatch_table.COLUMNS),
        hand_over=[dispatch_table.hand_over_cells(cost) for cost in outcome.hand_over],
        hand_over_columns=_headings(dispatch_table.HAND_OVER_COLUMNS),
    )


def write_small(path: str, outcome: small.Outcome, machine: Machine) -> None:
    """
    Write the curve of tiny requests as HTML.
    """
    from kvd.lab.bench.curve import draw_curve

    firsts = {point.policy: point for point in reversed(outcome.points)}
    _write(
        path,
        "small.html.j2",
        machine=machine,
        plan=small_table.plan_line(outcome.plan),
        curve=as_svg(draw_curve(outcome)),
        alone=small_table.alone_line(outcome.alone, outcome.points),
        columns=_headings(small_table.COLUMNS),
        lines=[
            small_table.cells(point, firsts[point.policy]) for point in outcome.points
        ],
        failures=small_table.failures(outcome.points),
    )


def _headings(columns: Sequence[str]) -> Sequence[str]:
    """
    A terminal's in one line.
    """
    return [" ".join(column.split()).replace(" /s", "/s") for column in columns]


def _write(path: str, template: str, **filled: Any) -> None:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(template).render(**filled)
    with open(path, "w", encoding="utf-8") as file:
        file.write(page)
