"""
``kvd policy``.
"""

from __future__ import annotations

import click

from kvd.cli.control import asking, control_option, tell
from kvd.cli.output import standard_output
from kvd.cli.status import sentences_of_instead


@click.command()
@control_option
@click.argument("name", required=False)
@click.pass_obj
def policy(url: str, control: str | None, name: str | None) -> None:
    """
    Let the policy NAME decide who gets the next connection, from now on; no
    connection is lost.

    Without NAME: list those that are installed here. The one that decides has a star.
    """
    if name is None:
        with asking(url, control) as asked:
            present = str(asked.status()["policy"])
        with standard_output():
            _list(present)
    else:
        with asking(url, control) as asked:
            asked.change("policy", {"policy": name})
            told = asked.status()
        tell(f"policy {name}")
        for sentence in sentences_of_instead(told):
            click.echo(sentence, err=True)


def _list(present: str) -> None:
    # Not at the top: who switches needs none of it.
    from kvd.plugins import IPolicyDeclaration, declared

    known = {
        name: each.description for name, each in declared(IPolicyDeclaration).items()
    }
    # The name may have options; and the daemon may have policies of its own
    # environment.
    known.setdefault(present, known.get(present.partition(":")[0], ""))
    width = max(map(len, known))
    for name, description in known.items():
        star = "*" if name == present else " "
        click.echo(f"{star} {name:{width}}  {description}".rstrip())
