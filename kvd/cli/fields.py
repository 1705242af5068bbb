"""
Arguments that are names of files, and options that become a field of a request.
"""

from __future__ import annotations

from typing import Final

import click

PATH: Final = click.Path(readable=False)
"""
What a shell completes with names of files. Whether there is such a file, whoever opens
it finds out.
"""


def printable(
    context: click.Context, option: click.Parameter, text: str | None
) -> str | None:
    """
    A click callback that accepts printable text only.
    """
    # Bytes that are not text are not printable either.
    if text is not None and not text.isprintable():
        raise click.BadParameter(
            f"{text!r} holds more than printable text", context, option
        )
    return text
