"""
``kvd shadow``.
"""

from __future__ import annotations

import click

from kvd.cli.control import change, control_option, report


@click.command()
@click.argument("policy")
@control_option
@click.pass_obj
def shadow(url: str, policy: str, control: str | None) -> None:
    """
    Compare another policy with the one that a daemon uses; off: none.

    The daemon asks POLICY about each connection that the supervisor hands over, but
    does not follow it. "kvd status" shows what POLICY would have chosen.
    """
    change(url, control, "shadow", {"shadow": policy})
    report(f"shadow {policy}")
