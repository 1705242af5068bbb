"""
``kvd procs``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, tell
from kvd.cli.quantity import quantity
from kvd.model.quantities import Count
from kvd.settings import MAX_PROCS


@click.command()
@control_option
@click.argument("number", callback=quantity(Count("a number of workers", 1, MAX_PROCS)))
@click.pass_obj
def procs(url: str, control: str | None, number: int) -> None:
    """
    Have NUMBER workers from now on.

    Ends when those that are new are ready, and those that are too many have finished
    what they did.
    """
    change(url, control, "procs", {"procs": number})
    tell(f"{number} workers")
