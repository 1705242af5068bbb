"""
``kvd procs``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, report
from kvd.cli.quantity import quantity
from kvd.model.quantities import Count
from kvd.settings import MAX_PROCS


@click.command()
@control_option
@click.argument("number", callback=quantity(Count("a number of workers", 1, MAX_PROCS)))
@click.pass_obj
def procs(url: str, control: str | None, number: int) -> None:
    """
    Change the number of workers to NUMBER.

    Ends when new workers are ready, and those that are no longer needed have finished
    their requests.
    """
    change(url, control, "procs", {"procs": number})
    report(f"{number} workers")
