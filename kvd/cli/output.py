"""
Standard streams, which may be closed, full, or not be read.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from kvd.cli.errors import LocalError, unwritable


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """
    Standard output, to be written inside the ``with`` by any means.

    Raises:
        LocalError: It cannot be written, and what was written may be lost.
        BrokenPipeError: It is not read any more.
    """
    # None is what Python makes of a descriptor that is closed from the start.
    if sys.stdout is None:
        raise LocalError("standard output is closed.")
    try:
        yield sys.stdout.buffer
    except OSError as error:
        discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise unwritable("standard output", error) from error


def discard(stream: TextIO | None) -> None:
    """
    Write nothing more to a standard stream. Otherwise Python would try again when it
    exits, and exit with a status of its own if that failed.
    """
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush() -> None:
    """
    Write what is still buffered; raises what `standard_output` does.
    """
    if sys.stdout is not None:
        with standard_output():
            sys.stdout.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """
    Whether a standard stream is shown to a person.
    """
    return stream is not None and stream.isatty()
