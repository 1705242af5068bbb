"""
``kvd policy``.
"""

from __future__ import annotations

import click

from kvd.cli.control import asking, control_option, report
from kvd.cli.output import standard_output
from kvd.cli.status import fallback_sentences


@click.command()
@control_option
@click.argument("name", required=False)
@click.pass_obj
def policy(url: str, control: str | None, name: str | None) -> None:
    """
    Switch to the policy NAME, which assigns the next connections to workers. No
    connection is lost.

    Without NAME: list the policies that are installed here; the one in use has a star.
    """
    if name is None:
        with asking(url, control) as asked:
            present = str(asked.status()["policy"])
        with standard_output():
            _list(present)
    else:
        with asking(url, control) as asked:
            asked.change("policy", {"policy": name})
            status = asked.status()
        report(f"policy {name}")
        for sentence in fallback_sentences(status):
            click.echo(sentence, err=True)


def _list(present: str) -> None:
    # Imported here, because switching does not need it.
    from kvd.plugins import IPolicyDeclaration, declared

    known = {
        name: each.description for name, each in declared(IPolicyDeclaration).items()
    }
    # The name may have options, and the daemon may have other policies installed.
    known.setdefault(present, known.get(present.partition(":")[0], ""))
    width = max(map(len, known))
    for name, description in known.items():
        star = "*" if name == present else " "
        click.echo(f"{star} {name:{width}}  {description}".rstrip())
