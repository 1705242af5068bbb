"""
Quantities of settings as options of a subcommand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import click

from kvd.errors import BadSetting

T = TypeVar("T")


def quantity(
    read: Callable[[str], T],
) -> Callable[[click.Context, click.Parameter, str | None], T | None]:
    """
    A setting's reader as a click callback. An option that is not given and has no
    default is None.
    """

    def convert(
        context: click.Context, option: click.Parameter, text: str | None
    ) -> T | None:
        if text is None:
            return None
        try:
            return read(text)
        except BadSetting as error:
            raise click.BadParameter(str(error), context, option) from error

    return convert
