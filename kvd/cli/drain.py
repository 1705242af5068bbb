"""
``kvd drain``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, tell


@click.command()
@control_option
@click.argument("worker", type=click.IntRange(0))
@click.pass_obj
def drain(url: str, control: str | None, worker: int) -> None:
    """
    Let the worker with the number WORKER finish what it does, and have a new one in
    its place.

    One more serves meanwhile. Ends when the new one is ready.
    """
    change(url, control, "drain", {"worker": worker})
    tell(f"worker {worker} is new")
