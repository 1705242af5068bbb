"""
``kvd rm``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from kvd.cli.errors import LocalError
from kvd.cli.fields import printable
from kvd.cli.keys import located, read_key, shown
from kvd.cli.matching import NothingFound, all_below, matching
from kvd.cli.output import is_terminal
from kvd.cli.patterns import is_pattern
from kvd.cli.running import connect, each, jobs_option, run
from kvd.client import Absent, Client, ConditionFailed, Entry


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY...")
@click.option(
    "--if-match",
    metavar="ETAG",
    callback=printable,
    help="Only if the key has this value.",
)
@click.option(
    "-r",
    "--recursive",
    is_flag=True,
    help="Each KEY is a prefix or a pattern, and stands for all keys below it. You are"
    " asked first.",
)
@click.option("-y", "--yes", is_flag=True, help="With -r: do not ask.")
@jobs_option
@click.pass_obj
def rm(
    url: str,
    keys: Sequence[str],
    if_match: str | None,
    recursive: bool,
    yes: bool,
    jobs: int,
) -> None:
    """
    Remove the value of each KEY, which can be a URL.

    With -r, only the values that were listed before you were asked are removed, and not
    what is stored later.
    """
    server, keys = located(url, keys)
    client = connect(server)
    if recursive:
        if if_match is not None:
            raise click.UsageError("--if-match is about one value, and -r about many")
        if not yes and not is_terminal(sys.stdin):
            raise click.UsageError(
                "-r asks at a terminal, and standard input is none: give --yes too"
            )
        run(lambda: _remove_below(client, keys, yes, jobs))
        return
    given = [read_key(key, "-r removes all below a prefix") for key in keys]

    async def remove(key: bytes) -> None:
        try:
            await client.remove(key, if_match=if_match)
        except Absent as error:
            if is_pattern(os.fsdecode(key)):
                raise Absent(
                    f"{error.sentence} It is a pattern only with -r.", error.status
                ) from error
            raise

    run(lambda: each(given, remove, lambda key, _: shown(key), jobs))


async def _remove_below(
    client: Client, keys: Sequence[str], yes: bool, jobs: int
) -> int:
    found: dict[bytes, Entry] = {}
    for key in keys:
        before = len(found)
        async for entry in matching(client, all_below(key)):
            found[entry.key] = entry
        if len(found) == before:
            raise NothingFound(f"no key is below {key!r}.")
    total = sum(entry.size for entry in found.values())
    if not yes:
        click.confirm(
            f"Remove {len(found)} values ({total} bytes)?", abort=True, err=True
        )

    async def remove(entry: Entry) -> None:
        try:
            await client.remove(entry.key, if_match=entry.etag)
        except Absent:
            pass  # Removed by another program.
        except ConditionFailed as error:
            raise LocalError("it was replaced meanwhile, and was kept.") from error

    return await each(found.values(), remove, lambda entry, _: shown(entry.key), jobs)
