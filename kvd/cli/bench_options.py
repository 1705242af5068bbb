"""
The options and steps that all measurements of ``kvd bench`` share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from kvd.cli.errors import unwritable
from kvd.cli.output import standard_output
from kvd.cli.quantity import quantity
from kvd.errors import OperatorError
from kvd.model.quantities import Count, Seconds

if TYPE_CHECKING:
    from rich.console import Console

MAX_PROCESSES: Final = 4096

F = TypeVar("F", bound=Callable[..., Any])


class _NewFile(click.Path):
    """
    A file that will be written when everything has been measured.
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
        if ctx is not None and param is not None:
            written = ctx.meta.setdefault(f"{__name__}.written", {})
            first = written.setdefault(os.path.realpath(path), param)
            if first is not param:
                self.fail(f"{path!r} is what {first.opts[0]} writes, too", param, ctx)
        return path


NEW_FILE: Final = _NewFile()

processes = quantity(Count("a number of processes", 1, MAX_PROCESSES))
seconds = quantity(Seconds(most=3600))

rounds_option = click.option(
    "--rounds",
    metavar="N",
    default="3",
    callback=quantity(Count("a number of rounds", 1, 1000)),
    help="Runs of each policy; the median counts.",
)
json_option = click.option(
    "--json", "record", type=NEW_FILE, help="Write all figures to this file."
)
report_option = click.option(
    "--report",
    metavar="FILE.html",
    type=NEW_FILE,
    help="Write a page with all figures and drawings.",
)


def policy_option(default: Sequence[str] = ()) -> Callable[[F], F]:
    """
    Which policies are measured.

    Args:
        default: Empty: all that are installed.
    """
    further = "" if default else "; by default all that are installed"
    return click.option(
        "--policy",
        "policies",
        multiple=True,
        metavar="NAME",
        default=default or None,
        help=f"May be given several times{further}.",
    )


def introduce(plan: str) -> tuple[Mapping[str, str], Console]:
    """
    Print the machine and the plan.

    Returns:
        The machine, and where the tables are to be printed.
    """
    from kvd.lab.measuring.machine import describe_machine, machine_line
    from kvd.lab.measuring.table import wide_console

    machine, console = describe_machine(), wide_console()
    with standard_output():
        console.print(f"{machine_line(machine)}\n{plan}", soft_wrap=True)
    return machine, console


def check_policies(policies: Sequence[str]) -> None:
    """
    Raises:
        OperatorError: One of them cannot be used.
    """
    from kvd.dispatch.selection import load_policy

    for policy in policies:
        load_policy(policy)


@contextmanager
def measuring() -> Iterator[None]:
    """
    Programs that are started in here end with it. A measurement that is impossible ends
    the command with a sentence.
    """
    from kvd.lab.measuring.errors import BenchFailed, PlotUnavailable
    from kvd.lab.measuring.processes import ended_by_signals

    try:
        with ended_by_signals():
            yield
    except BenchFailed as error:
        click.echo(error.output, err=True)
        raise click.ClickException(str(error)) from error
    except (OperatorError, PlotUnavailable) as error:
        raise click.ClickException(str(error)) from error


def write_to(path: str | None, write: Callable[[str], object]) -> None:
    """
    Write a file, if an option names one.

    Raises:
        LocalError: It cannot be written.
    """
    if path is None:
        return
    try:
        write(path)
    except OSError as error:
        raise unwritable(error.filename or "a file", error) from error
