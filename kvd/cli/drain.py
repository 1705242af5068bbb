"""
``kvd drain``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, report
from kvd.cli.quantity import quantity
from kvd.model.quantities import Count
from kvd.settings import MAX_PROCS


@click.command()
@control_option
@click.argument(
    "worker", callback=quantity(Count("the number of a worker", 0, MAX_PROCS - 1))
)
@click.pass_obj
def drain(url: str, control: str | None, worker: int) -> None:
    """
    Let worker number WORKER finish its requests, and replace it.

    One more worker serves meanwhile. Ends when the new worker is ready.
    """
    change(url, control, "drain", {"worker": worker})
    report(f"worker {worker} has been replaced")
