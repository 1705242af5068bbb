"""
``kvd restart``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, tell


@click.command()
@control_option
@click.pass_obj
def restart(url: str, control: str | None) -> None:
    """
    Replace all workers, one after the other; there are never fewer, and no request is
    lost.

    Ends when all are new. If the first new one does not get ready, none of the old
    ones ends.
    """
    change(url, control, "restart", {})
    tell("all workers are new")
