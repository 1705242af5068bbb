"""
``kvd bench``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Final

import click

from kvd.cli.errors import FAILED, LocalError
from kvd.cli.interrupted import ended_by_signals
from kvd.cli.output import standard_output
from kvd.cli.quantity import quantity
from kvd.errors import OperatorError
from kvd.options.quantities import Count, Size

POLICIES: Final = ("shared", "reuseport", "roundrobin")


_number = quantity(Count("a number of requests", 1, 10_000_000))
_processes = quantity(Count("a number of processes", 1, 4096))
_size = quantity(Size(1, 1 << 34))


class _NewFile(click.Path):
    """
    A file that can be written when everything has been measured.
    """

    def __init__(self) -> None:
        super().__init__(dir_okay=False, writable=True, path_type=str)

    def convert(
        self,
        value: Any,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        path = str(super().convert(value, param, ctx))
        if not os.path.exists(path):
            try:
                with open(path, "xb"):
                    os.unlink(path)
            except OSError as error:
                self.fail(f"{path!r} cannot be written: {error.strerror}", param, ctx)
        return path


_FILE: Final = _NewFile()


@click.group(no_args_is_help=False)
def bench() -> None:
    """
    Measure this machine's kvd.
    """


@bench.command(context_settings={"show_default": True})
@click.option(
    "--requests", metavar="N", default="2000", callback=_number, help="How many."
)
@click.option(
    "--size", metavar="SIZE", default="4MB", callback=_size, help="Of each body."
)
@click.option(
    "--clients",
    metavar="N",
    default="32",
    callback=_processes,
    help="Processes that send at the same time.",
)
@click.option(
    "--procs",
    metavar="N",
    default="8",
    callback=_processes,
    help="Workers of the daemon.",
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
    "--ceiling/--no-ceiling",
    default=True,
    help="Measure the load alone, too, against a server that does nothing.",
)
@click.option("--plot", type=_FILE, help="Draw the workers' busy time (PNG or SVG).")
@click.option("--json", "record", type=_FILE, help="Write all figures there.")
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
    Store large values from many clients, and see which workers do the work.

    Every policy is measured with a daemon of its own, once with a new connection
    for each request and once with keep-alive. Nothing is kept: the store is null:.

    The article's own load: --requests 10000 --size 40MB --clients 32 --procs 32
    """
    from rich.console import Console

    from kvd.bench.article import Mode, Plan, measure
    from kvd.bench.errors import BenchFailed, PlotUnavailable
    from kvd.bench.plot import check_plot, draw
    from kvd.bench.record import write_record
    from kvd.bench.table import WIDTH, show_mode, show_plan
    from kvd.plugins import IPolicyDeclaration, load

    plan = Plan(requests, size, clients, procs, policies, ceiling)
    modes: list[Mode] = []
    try:
        for policy in policies:
            load(IPolicyDeclaration, policy)
        if plot is not None:
            check_plot(plot)
        console = Console()
        console.width = max(console.width, WIDTH)
        with standard_output():
            show_plan(plan, console)
        with ended_by_signals():
            for mode in measure(plan, _tell):
                modes.append(mode)
                with standard_output():
                    show_mode(mode, size, console)
    except BenchFailed as error:
        click.echo(error.said, err=True)
        raise click.ClickException(str(error)) from error
    except (OperatorError, PlotUnavailable) as error:
        raise click.ClickException(str(error)) from error
    try:
        if record is not None:
            write_record(record, plan, modes)
        if plot is not None:
            draw(plot, plan, modes)
    except OSError as error:
        raise LocalError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}."
        ) from error
    if any(run.report.failed for mode in modes for run in mode.runs):
        click.get_current_context().exit(FAILED)


def _tell(what: str) -> None:
    if os.isatty(2):
        click.echo(f"measuring: {what}", err=True)
