"""
Standard streams, which may be closed, full, or read by nobody.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TextIO

from kvd.cli.errors import LocalError


@contextmanager
def standard_output() -> Iterator[BinaryIO]:
    """
    While this is entered, standard output can be written, by whatever means.

    Raises:
        LocalError: It cannot, or could not: what was written may be lost.
        BrokenPipeError: Nobody reads it.
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
        raise LocalError(
            f"standard output cannot be written: {error.strerror}."
        ) from error


def discard(stream: TextIO | None) -> None:
    """
    Write nothing more to a standard stream. Python would try again at its end, and end
    with a status of its own if that failed.
    """
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def flush() -> None:
    """
    Write what is still held back; raises what `standard_output` does.
    """
    if sys.stdout is not None:
        with standard_output():
            sys.stdout.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """
    Whether a person sees what a standard stream is given.
    """
    return stream is not None and stream.isatty()
