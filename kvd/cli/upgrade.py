"""
``kvd upgrade``.
"""

from __future__ import annotations

import click

from kvd.cli.control import asking, control_option, report


@click.command()
@control_option
@click.pass_obj
def upgrade(url: str, control: str | None) -> None:
    """
    Start the daemon anew, as it was started before, with the code and the settings that
    there are now. The new daemon takes over the listening sockets, and the old one
    finishes its requests: no connection is refused or lost.

    Ends when the new daemon serves. If it does not start, the old one goes on. The
    addresses, and the store with its limits, must be the same as before.
    """
    with asking(url, control) as asked:
        before = asked.status()
        asked.upgrade()
        after = asked.status()
    report(
        f"kvd {after['version']} (process {after['pid']}) serves in the place of"
        f" {before['version']} (process {before['pid']})"
    )
