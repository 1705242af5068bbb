"""
What the commands for a running daemon share: finding its control socket, and reporting
its refusals.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any
from urllib.parse import urlsplit

import click

from kvd.admin.control.asking import ControlSocket
from kvd.admin.control.locations import find_control
from kvd.cli.errors import NoAnswer, Refused
from kvd.cli.output import is_terminal, standard_output
from kvd.errors import ChangeImpossible, ControlUnusable

control_option = click.option(
    "--control",
    metavar="PATH",
    envvar="KVD_CONTROL",
    show_envvar=True,
    help="The daemon's control socket; by default that of the port in --url.",
)


@contextmanager
def asking(url: str, control: str | None) -> Iterator[ControlSocket]:
    """
    A connection to a daemon's control socket.

    Args:
        url: Where the daemon serves.
        control: Its control socket; None: that of the port in the URL.

    Raises:
        NoAnswer: No kvd answers.
        Refused: The daemon cannot do the change, or not now.
    """
    with ExitStack() as stack:
        try:
            asked = ControlSocket(control or _path_for(url))
            yield stack.enter_context(closing(asked))
        except ControlUnusable as error:
            raise NoAnswer(error.sentence) from error
        except ChangeImpossible as error:
            raise Refused(error.sentence) from error


def change(url: str, control: str | None, what: str, arguments: dict[str, Any]) -> None:
    """
    Change a daemon; see `ControlSocket.change`.
    """
    with asking(url, control) as asked:
        asked.change(what, arguments)


def report(sentence: str) -> None:
    """
    Print what was done, if standard output is a terminal.
    """
    if is_terminal(sys.stdout):
        with standard_output():
            click.echo(sentence)


def _path_for(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    except (ValueError, KeyError) as error:
        raise click.UsageError(
            f"{url!r} names no port; give --control PATH, or a URL such as"
            " http://127.0.0.1:8080"
        ) from error
    return find_control(port)
