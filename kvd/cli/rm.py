"""
``kvd rm``.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from kvd.cli.fields import printable
from kvd.cli.keys import read_key, shown
from kvd.cli.running import connect, each, run


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option(
    "--if-match",
    metavar="ETAG",
    callback=printable,
    help="Only if the key has this value.",
)
@click.pass_obj
def rm(url: str, keys: Sequence[str], if_match: str | None) -> None:
    """
    Remove the value of each KEY.
    """
    client = connect(url)
    given = [read_key(key) for key in keys]

    async def remove(key: bytes) -> None:
        await client.remove(key, if_match=if_match)

    run(lambda: each(given, remove, lambda key, _: shown(key)))
