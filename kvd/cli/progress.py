"""
Progress on a terminal: a bar while a large value moves, a line for each step of a
measurement.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
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
    if quiet or not is_watched():
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


class Begin(Protocol):
    """
    Shows the progress of one transfer.
    """

    def __call__(self, name: str, length: int | None) -> AbstractContextManager[Moved]:
        """
        Begin a transfer.

        Args:
            name: Of the value.
            length: Its number of bytes; None: unknown.
        """


def is_watched() -> bool:
    """
    Whether a person watches: both output streams are a terminal.
    """
    return is_terminal(sys.stdout) and is_terminal(sys.stderr)


@contextmanager
def bars(
    quiet: bool, values: int = 1, total_bytes: int | None = None
) -> Iterator[Begin]:
    """
    Show on standard error how much of some values has moved, if both output streams are
    a terminal: the reader of a pipe may use the terminal itself. Each has a line while
    it moves, and several have one more for their sum. A single value is shown only if
    it is large.

    Args:
        quiet: Show nothing.
        values: How many there are.
        total_bytes: Their size, if there are several; None: unknown.
    """
    if quiet or not is_watched():
        yield _unseen
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

    with ExitStack() as stack:
        shown = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        total = None
        ended = 0
        if values > 1:
            stack.enter_context(shown)
            total = shown.add_task(f"0 of {values}", total=total_bytes)

        @contextmanager
        def begin(name: str, length: int | None) -> Iterator[Moved]:
            nonlocal ended
            if total is None:
                if length is not None and length < SHOWN_FROM_BYTES:
                    yield _ignore
                    return
                stack.enter_context(shown)
            task = shown.add_task(name, total=length)

            def moved(count: int) -> None:
                shown.advance(task, count)
                if total is not None:
                    shown.advance(total, count)

            try:
                yield moved
            finally:
                if total is not None:
                    shown.remove_task(task)
                    ended += 1
                    shown.update(total, description=f"{ended} of {values}")

        yield begin


@contextmanager
def _unseen(name: str, length: int | None) -> Iterator[Moved]:
    yield _ignore
