"""
What the command line gives that becomes a field of a request.
"""

from __future__ import annotations

import click


def printable(
    context: click.Context, option: click.Parameter, text: str | None
) -> str | None:
    """
    A click callback: text without control characters, if any was given.
    """
    # Bytes that are no text are not printable either.
    if text is not None and not text.isprintable():
        raise click.BadParameter(
            f"{text!r} holds more than printable text", context, option
        )
    return text
