"""
``kvd shadow``.
"""

from __future__ import annotations

import click

from kvd.cli.errors import NoAnswer
from kvd.cli.status import path_for
from kvd.control.asking import ControlSocket
from kvd.errors import ChangeImpossible, ControlUnusable


@click.command()
@click.argument("policy")
@click.option(
    "--control",
    metavar="PATH",
    envvar="KVD_CONTROL",
    show_envvar=True,
    help="The daemon's control socket; by default that of the port in --url.",
)
@click.pass_obj
def shadow(url: str, policy: str, control: str | None) -> None:
    """
    Have another policy look on in a daemon on this machine; off: none.

    It is asked about each connection that the supervisor deals, and changes nothing.
    "kvd status" shows what it would have done since.
    """
    asked = ControlSocket(control or path_for(url))
    try:
        asked.change("shadow", {"shadow": policy})
    except ControlUnusable as error:
        raise NoAnswer(error.sentence) from error
    except ChangeImpossible as error:
        raise click.ClickException(error.sentence) from error
    finally:
        asked.close()
