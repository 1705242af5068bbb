"""
``kvd bench``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from kvd.cli.bench_dispatch import dispatch
from kvd.cli.bench_options import (
    NEW_FILE,
    check_policies,
    introduce,
    json_option,
    measuring,
    policy_option,
    processes,
    write_to,
)
from kvd.cli.bench_small import small
from kvd.cli.errors import FAILED
from kvd.cli.output import standard_output
from kvd.cli.progress import progress
from kvd.cli.quantity import quantity
from kvd.model.quantities import Count, Size

POLICIES: Final = ("shared", "reuseport", "roundrobin")


_number = quantity(Count("a number of requests", 1, 10_000_000))
_size = quantity(Size(1, 1 << 34))


@click.group(no_args_is_help=False)
def bench() -> None:
    """
    Measure kvd on this machine.
    """


@bench.command(context_settings={"show_default": True})
@click.option(
    "--requests",
    metavar="N",
    default="2000",
    callback=_number,
    help="Number of requests.",
)
@click.option(
    "--size", metavar="SIZE", default="4MB", callback=_size, help="Of each body."
)
@click.option(
    "--clients",
    metavar="N",
    default="32",
    callback=processes,
    help="Processes that send at the same time.",
)
@click.option(
    "--procs",
    metavar="N",
    default="8",
    callback=processes,
    help="Workers of the daemon.",
)
@policy_option(POLICIES)
@click.option(
    "--ceiling/--no-ceiling",
    default=True,
    help="Also send the load to a server that does nothing: the most it can reach.",
)
@click.option("--plot", type=NEW_FILE, help="Draw the workers' busy time (PNG or SVG).")
@json_option
def article(
    requests: int,
    size: int,
    clients: int,
    procs: int,
    policies: Sequence[str],
    ceiling: bool,
    plot: str | None,
    record: str | None,
) -> None:
    """
    Store large values from many clients, and show which workers do the work.

    Each policy is measured with a daemon of its own, once with a new connection for
    each request and once with keep-alive. No value is kept: the store is null:.

    The article's own load: --requests 10000 --size 40MB --clients 32 --procs 32
    """
    from kvd.lab.bench.article import Mode, Plan, measure
    from kvd.lab.bench.article_plot import draw_busy_time
    from kvd.lab.bench.article_table import plan_line, show_mode
    from kvd.lab.bench.records import article_record
    from kvd.lab.measuring.plot import check_plot, save
    from kvd.lab.measuring.record import write_record

    plan = Plan(requests, size, clients, procs, policies, ceiling)
    modes: list[Mode] = []
    with measuring():
        check_policies(policies)
        if plot is not None:
            check_plot(plot)
        machine, console = introduce(plan_line(plan))
        for mode in measure(plan, progress):
            modes.append(mode)
            with standard_output():
                show_mode(mode, size, console)
    write_to(
        record, lambda path: write_record(path, article_record(plan, modes, machine))
    )
    write_to(plot, lambda path: save(draw_busy_time(plan, modes), path))
    if any(run.report.failed for mode in modes for run in mode.runs):
        click.get_current_context().exit(FAILED)


bench.add_command(small)
bench.add_command(dispatch)
