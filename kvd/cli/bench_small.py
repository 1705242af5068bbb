"""
``kvd bench small``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final

import click

from kvd.cli.bench_options import (
    MAX_PROCESSES,
    NEW_FILE,
    check_policies,
    introduce,
    json_option,
    measuring,
    policy_option,
    processes,
    report_option,
    rounds_option,
    seconds,
    write_to,
)
from kvd.cli.errors import FAILED
from kvd.cli.output import standard_output
from kvd.cli.progress import progress
from kvd.cli.quantity import quantity
from kvd.model.quantities import Count

POLICIES: Final = ("shared", "reuseport")


def _read_workers(text: str) -> Sequence[int]:
    """
    ``8``: doubled up to there; ``1,2,6``: these.
    """
    from kvd.lab.bench.small import doubled

    count = Count("a number of workers", 1, MAX_PROCESSES)
    if "," not in text:
        return doubled(count(text))
    return sorted({count(part) for part in text.split(",")})


@click.command(context_settings={"show_default": True})
@click.option(
    "--procs",
    metavar="N|N,N,...",
    callback=quantity(_read_workers),
    help="The most workers, reached by doubling from 1; or the numbers to measure."
    "  [default: twice the processors]",
)
@policy_option(POLICIES)
@click.option(
    "--clients",
    metavar="N",
    default="32",
    callback=processes,
    help="Processes with a connection each.",
)
@click.option(
    "--seconds", metavar="TIME", default="1", callback=seconds, help="Of each run."
)
@rounds_option
@click.option("--plot", type=NEW_FILE, help="Draw the curve (PNG or SVG).")
@json_option
@report_option
def small(
    procs: Sequence[int] | None,
    policies: Sequence[str],
    clients: int,
    seconds: float,
    rounds: int,
    plot: str | None,
    record: str | None,
    report: str | None,
) -> None:
    """
    Store a byte again and again, with ever more workers.

    Shows what a worker adds where all workers share a socket, and where each has its
    own. The clients need processors too: if there are not enough for all, the curve
    shows the limit of the machine.
    """
    from kvd.lab.bench.programs import measure_ceiling
    from kvd.lab.bench.records import small_record
    from kvd.lab.bench.report import write_small
    from kvd.lab.bench.run import ceiling_line
    from kvd.lab.bench.small import Outcome, Plan, Point, doubled, measure
    from kvd.lab.bench.small_plot import draw_curve
    from kvd.lab.bench.small_table import plan_line, show_curve
    from kvd.lab.measuring.plot import check_plot, save
    from kvd.lab.measuring.record import write_record
    from kvd.lab.measuring.report import check_report

    workers = procs or doubled(2 * (os.cpu_count() or 1))
    policies = list(dict.fromkeys(policies))
    plan = Plan(policies, workers, clients, seconds, rounds)
    points: list[Point] = []
    with measuring():
        check_policies(policies)
        if plot is not None:
            check_plot(plot)
        if report is not None:
            check_report()
        machine, console = introduce(plan_line(plan))
        for measured in measure(plan, progress):
            points += measured
        progress("the ceiling of the load")
        outcome = Outcome(plan, points, measure_ceiling(plan.load))
        with standard_output():
            show_curve(outcome, console)
            line = ceiling_line(outcome.ceiling, [point.rate for point in points])
            console.print(f"\n{line}")
    write_to(record, lambda path: write_record(path, small_record(outcome, machine)))
    write_to(plot, lambda path: save(draw_curve(outcome), path))
    write_to(report, lambda path: write_small(path, outcome, machine))
    if any(point.failed for point in points):
        click.get_current_context().exit(FAILED)
