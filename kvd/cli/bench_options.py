"""
What the measurements of ``kvd bench`` have in common on the command line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from kvd.cli.errors import LocalError
from kvd.cli.interrupted import ended_by_signals
from kvd.cli.quantity import quantity
from kvd.errors import OperatorError
from kvd.model.quantities import Count, Seconds

MAX_PROCESSES: Final = 4096

T = TypeVar("T")


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
        if ctx is not None and param is not None:
            written = ctx.meta.setdefault(f"{__name__}.written", {})
            first = written.setdefault(os.path.realpath(path), param)
            if first is not param:
                self.fail(f"{path!r} is what {first.opts[0]} writes, too", param, ctx)
        return path


NEW_FILE: Final = _NewFile()

processes = quantity(Count("a number of processes", 1, MAX_PROCESSES))
rounds = quantity(Count("a number of rounds", 1, 1000))
seconds = quantity(Seconds(most=3600))

json_option = click.option(
    "--json", "record", type=NEW_FILE, help="Write all figures there."
)
report_option = click.option(
    "--report", metavar="FILE.html", type=NEW_FILE, help="Write a page there."
)


def tell(what: str) -> None:
    """
    Say what is measured, to a person who waits.
    """
    if os.isatty(2):
        click.echo(f"measuring: {what}", err=True)


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
    What is started in here ends with it, and what cannot be measured is said.
    """
    from kvd.lab.bench.errors import BenchFailed, PlotUnavailable

    try:
        with ended_by_signals():
            yield
    except BenchFailed as error:
        click.echo(error.said, err=True)
        raise click.ClickException(str(error)) from error
    except (OperatorError, PlotUnavailable) as error:
        raise click.ClickException(str(error)) from error


def write_to(path: str | None, write: Callable[[str], object]) -> None:
    """
    Write a file that was asked for.

    Raises:
        LocalError: It cannot be written.
    """
    if path is None:
        return
    try:
        write(path)
    except OSError as error:
        raise LocalError(
            f"{error.filename or 'a file'} cannot be written: {error.strerror}."
        ) from error
