"""
``kvd serve``.
"""

from __future__ import annotations

import sys

import click


@click.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
)
@click.pass_context
def serve(context: click.Context) -> None:
    """
    Serve in the foreground, as twistd -n kvd does, with the same options.
    """
    # Not at the top: no other command needs it.
    from twisted.scripts.twistd import run

    sys.argv = [sys.argv[0], "--nodaemon", "--pidfile=", "kvd", *context.args]
    run()
