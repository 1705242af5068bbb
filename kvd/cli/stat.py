"""
``kvd stat``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

import click

from kvd.cli.keys import located, read_key, shown
from kvd.cli.output import standard_output
from kvd.cli.running import connect, each, run
from kvd.model.keys import escape


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per line.")
@click.pass_obj
def stat(url: str, keys: Sequence[str], as_json: bool) -> None:
    """
    Show the size, type and entity tag of each KEY's value, without fetching it. KEY can
    be a URL.
    """
    url, keys = located(url, keys)
    client = connect(url)
    given = [read_key(key, "kvd ls -l lists what is below a prefix") for key in keys]

    async def show(key: bytes) -> None:
        facts = asdict(await client.stat(key))
        with standard_output():
            if as_json:
                click.echo(json.dumps({"key": escape(key)} | facts))
                return
            click.echo(shown(key))
            for name, fact in facts.items():
                if fact is not None:
                    click.echo(f"  {name.replace('_', '-'):<16} {fact}")

    run(lambda: each(given, show, lambda key, _: shown(key)))
