"""
A bar on a terminal while something large moves.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from kvd.cli.output import is_terminal

SHOWN_FROM_BYTES: Final = 16 * 1024 * 1024
"""
Less has come before anybody could read the bar.
"""


class Moved(Protocol):
    """
    Is told how much has moved.
    """

    def __call__(self, count: int) -> None:
        """
        So many bytes more.
        """


def _nobody(count: int) -> None:
    pass


@contextmanager
def bar(name: str, length: int | None, quiet: bool) -> Iterator[Moved]:
    """
    While this is entered, show how far something has come, on standard error, if
    it is worth it and both output streams are a terminal: who reads a pipe may
    write there itself.

    Args:
        name: What moves.
        length: How many bytes it has; None: nobody knows.
        quiet: Show nothing.
    """
    small = length is not None and length < SHOWN_FROM_BYTES
    seen = is_terminal(sys.stdout) and is_terminal(sys.stderr)
    if quiet or small or not seen:
        yield _nobody
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
