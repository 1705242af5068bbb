"""
``kvd shadow``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, tell


@click.command()
@click.argument("policy")
@control_option
@click.pass_obj
def shadow(url: str, policy: str, control: str | None) -> None:
    """
    Have another policy look on in a daemon on this machine; off: none.

    It is asked about each connection that the supervisor deals, and changes nothing.
    "kvd status" shows what it would have done since.
    """
    change(url, control, "shadow", {"shadow": policy})
    tell(f"shadow {policy}")
