"""
Progress on a terminal: a bar while a large value moves, a line for each step of a
measurement.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import click

from kvd.cli.output import is_terminal

SHOWN_FROM_BYTES: Final = 16 * 1024 * 1024
"""
A smaller value has moved before anybody could read the bar.
"""


class Moved(Protocol):
    """
    Counts the bytes that move.
    """

    def __call__(self, count: int) -> None:
        """
        Add some bytes.
        """


def _ignore(count: int) -> None:
    pass


def progress(what: str) -> None:
    """
    Print the present step of a measurement or simulation, if a person watches.
    """
    if is_terminal(sys.stderr):
        click.echo(f"now: {what}", err=True)


@contextmanager
def counting(text: Callable[[], str], quiet: bool) -> Iterator[None]:
    """
    Show on standard error, again and again, how far some work is whose end is not
    known, if both output streams are a terminal.

    Args:
        text: Says how far it is.
        quiet: Show nothing.
    """
    if quiet or not (is_terminal(sys.stdout) and is_terminal(sys.stderr)):
        yield
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(
        get_renderable=lambda: Text(text()),
        console=Console(stderr=True),
        transient=True,
    ):
        yield


@contextmanager
def bar(name: str, length: int | None, quiet: bool) -> Iterator[Moved]:
    """
    Show on standard error how much of a value has moved, if the value is large and both
    output streams are a terminal: the reader of a pipe may use the terminal itself.

    Args:
        name: Of the value.
        length: Its number of bytes; None: unknown.
        quiet: Show nothing.
    """
    small = length is not None and length < SHOWN_FROM_BYTES
    seen = is_terminal(sys.stdout) and is_terminal(sys.stderr)
    if quiet or small or not seen:
        yield _ignore
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task(name, total=length)
        yield lambda count: progress.advance(task, count)
