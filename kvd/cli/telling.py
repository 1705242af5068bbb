"""
Plain lines about what was moved.
"""

from __future__ import annotations

import click

from kvd.cli.keys import shown
from kvd.cli.output import standard_output
from kvd.cli.progress import is_watched


class Teller:
    """
    Prints a line for each value, where no progress is drawn, and one for all.
    """

    def __init__(self, quiet: bool) -> None:
        """
        Args:
            quiet: Print nothing.
        """
        self._quiet = quiet
        self._values = 0
        self._bytes = 0

    def tell(self, key: bytes, what: str, size: int = 0) -> None:
        """
        A value has been dealt with.

        Args:
            key: Of the value.
            what: Was done with it.
            size: Its number of bytes.
        """
        self._values += 1
        self._bytes += size
        if not self._quiet and not is_watched():
            with standard_output():
                click.echo(f"{shown(key)}: {what}")

    def sum_up(self, what: str) -> None:
        """
        All have been.
        """
        if not self._quiet:
            with standard_output():
                click.echo(f"{self._values} {what} ({self._bytes} bytes)")
