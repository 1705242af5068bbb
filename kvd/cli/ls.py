"""
``kvd ls``.
"""

from __future__ import annotations

import json
import sys

import click

from kvd.cli.keys import located, read_prefix, shown
from kvd.cli.matching import NothingFound
from kvd.cli.output import is_terminal, standard_output
from kvd.cli.patterns import Pattern, is_pattern
from kvd.cli.running import connect, run
from kvd.client import Entry
from kvd.model.keys import escape


@click.command()
@click.argument("prefix", default="")
@click.option(
    "-U",
    "--unsorted",
    is_flag=True,
    help="In no particular order and in one reply. This is faster where a folder has"
    " tens of thousands of keys, but ends early if it is not read for a minute.",
)
@click.option("-l", "--long", is_flag=True, help="Show size, time and entity tag too.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per line.")
@click.pass_obj
def ls(url: str, prefix: str, unsorted: bool, long: bool, as_json: bool) -> None:
    """
    List all keys, or those below PREFIX, one per line and in the order of their bytes.

    PREFIX can be a URL. It can be a pattern too, for whole keys: kvd ls 'build/*.o'. In
    it, * and ? stand for characters of one segment, and ** for any segments.
    """
    url, [prefix] = located(url, [prefix])
    client = connect(url)
    pattern = Pattern(prefix) if is_pattern(prefix) else None
    # Keys have no line ends; other control characters are escaped on a terminal.
    on_terminal = is_terminal(sys.stdout)

    def line(entry: Entry) -> bytes:
        if as_json:
            facts = {
                "key": escape(entry.key),
                "size": entry.size,
                "etag": entry.etag,
                "changed": entry.changed,
            }
            return json.dumps(facts).encode("ascii")
        key = shown(entry.key).encode("utf-8") if on_terminal else entry.key
        if long:
            facts_text = f"{entry.size:>14} {entry.changed} {entry.etag} "
            return facts_text.encode("ascii") + key
        return key

    async def list_keys() -> int:
        found = False
        below = read_prefix(prefix) if pattern is None else pattern.below
        listing = client.list if unsorted else client.list_in_order
        async for entry in listing(below):
            if pattern is not None and not pattern.matches(entry.key):
                continue
            found = True
            with standard_output() as out:
                out.write(line(entry) + b"\n")
        if pattern is not None and not found:
            raise NothingFound(f"no key matches {prefix!r}.")
        return 0

    run(list_keys)
