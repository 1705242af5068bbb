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
    json_option,
    measuring,
    processes,
    report_option,
    rounds,
    seconds,
    tell,
    write_to,
)
from kvd.cli.errors import FAILED
from kvd.cli.output import standard_output
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
    help="The most workers, from 1 on doubled; or those to measure."
    "  [default: twice the processors]",
)
@click.option(
    "--policy",
    "policies",
    multiple=True,
    metavar="NAME",
    default=POLICIES,
    help="May be given several times.",
)
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
@click.option(
    "--rounds",
    metavar="N",
    default="3",
    callback=rounds,
    help="Runs of each; the median counts.",
)
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

    Shows what a worker adds where all share a socket and where each has its own.
    The clients need processors too: where there are not enough for all, the curve
    shows that.
    """
    from rich.console import Console

    from kvd.lab.bench.comparison_record import write_small
    from kvd.lab.bench.curve import draw_curve
    from kvd.lab.bench.drawing import save
    from kvd.lab.bench.machine import this_machine
    from kvd.lab.bench.plot import check_plot
    from kvd.lab.bench.report import check_report
    from kvd.lab.bench.report import write_small as write_page
    from kvd.lab.bench.small import (
        Outcome,
        Plan,
        Point,
        doubled,
        measure,
        measure_alone,
    )
    from kvd.lab.bench.small_table import alone_line, plan_line, show_points
    from kvd.lab.bench.table import WIDTH

    workers = procs or doubled(2 * (os.cpu_count() or 1))
    policies = list(dict.fromkeys(policies))
    plan = Plan(policies, workers, clients, seconds, rounds)
    machine = this_machine()
    points: list[Point] = []
    with measuring():
        check_policies(policies)
        if plot is not None:
            check_plot(plot)
        if report is not None:
            check_report()
        console = Console(highlight=False)
        console.width = max(console.width, WIDTH)
        with standard_output():
            console.print(f"{machine.line()}\n{plan_line(plan)}", soft_wrap=True)
        for measured in measure(plan, tell):
            points += measured
        tell("the load alone")
        outcome = Outcome(plan, points, measure_alone(plan))
        with standard_output():
            show_points(points, console)
            console.print(f"\n{alone_line(outcome.alone, points)}")
    write_to(record, lambda path: write_small(path, outcome, machine))
    write_to(plot, lambda path: save(draw_curve(outcome), path))
    write_to(report, lambda path: write_page(path, outcome, machine))
    if any(point.failed for point in points):
        click.get_current_context().exit(FAILED)
