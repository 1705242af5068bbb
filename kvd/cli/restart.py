"""
``kvd restart``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, report


@click.command()
@control_option
@click.pass_obj
def restart(url: str, control: str | None) -> None:
    """
    Replace all workers, one after the other. There are never fewer workers, and no
    request is lost.

    Ends when all have been replaced. If the first new worker does not become ready, all
    old ones stay.
    """
    change(url, control, "restart", {})
    report("all workers have been replaced")
