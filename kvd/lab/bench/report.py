"""
The comparisons as pages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from kvd.lab.bench import dispatch, dispatch_table, small, small_table
from kvd.lab.bench.dispatch_plan import LOADS
from kvd.lab.bench.run import ceiling_line
from kvd.lab.measuring.plot import as_svg
from kvd.lab.measuring.report import headings, write_page
from kvd.lab.measuring.targets import TARGET_COLUMNS, Target

_FOLDER: Final = Path(__file__).parent


def write_dispatch(
    path: str,
    outcome: dispatch.Outcome,
    targets: Sequence[Target],
    machine: Mapping[str, str],
) -> None:
    """
    Write the comparison of policies as HTML.
    """
    from kvd.lab.bench.dispatch_plot import draw_rates, draw_timelines

    sections = [
        {
            "case": compared.case,
            "heading": LOADS[compared.case.name].capitalize(),
            "rates": as_svg(draw_rates(compared, outcome.plan)),
            "lines": [dispatch_table.cells(rounds) for rounds in compared.policies],
            "timelines": as_svg(draw_timelines(compared)),
            "failures": dispatch_table.failures(compared),
        }
        for compared in outcome.compared
    ]
    write_page(
        path,
        _FOLDER / "dispatch.html.j2",
        machine=machine,
        plan=dispatch_table.plan_line(outcome.plan),
        targets=[target.cells() for target in targets],
        target_columns=TARGET_COLUMNS,
        sections=sections,
        columns=headings(dispatch_table.COLUMNS),
        hand_over=[dispatch_table.hand_over_cells(cost) for cost in outcome.hand_over],
        hand_over_columns=headings(dispatch_table.HAND_OVER_COLUMNS),
    )


def write_small(path: str, outcome: small.Outcome, machine: Mapping[str, str]) -> None:
    """
    Write the curve of tiny requests as HTML.
    """
    from kvd.lab.bench.small_plot import draw_curve

    write_page(
        path,
        _FOLDER / "small.html.j2",
        machine=machine,
        plan=small_table.plan_line(outcome.plan),
        curve=as_svg(draw_curve(outcome)),
        ceiling=ceiling_line(outcome.ceiling, [point.rate for point in outcome.points]),
        columns=headings(small_table.COLUMNS),
        lines=small_table.lines(outcome),
        failures=small_table.failures(outcome),
    )
