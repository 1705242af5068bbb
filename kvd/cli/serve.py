"""
``kvd serve``.
"""

from __future__ import annotations

import sys

import click
from click.shell_completion import CompletionItem


class _Serve(click.Command):
    """
    Completes the options of ``twistd kvd``, which click does not know.
    """

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[CompletionItem]:
        # Not at the top: no other command needs it.
        from kvd.options import Options

        return [
            CompletionItem(form, help=text)
            for forms, text in Options().described()
            for form in forms.split(", ")
            if form.startswith(incomplete)
        ]


@click.command(
    cls=_Serve,
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
    output, errors = sys.stdout, sys.stderr
    try:
        run()
    finally:
        # twistd has put its log in their place.
        sys.stdout, sys.stderr = output, errors
