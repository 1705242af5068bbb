"""
``kvd du``.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from kvd.cli.keys import as_folder, located, read_prefix, shown
from kvd.cli.output import standard_output
from kvd.cli.running import connect, run
from kvd.model.keys import escape
from kvd.store.usage import taken_by


@dataclass(slots=True)
class Sum:
    """
    What the values below a prefix take.
    """

    values: int = 0
    bytes: int = 0
    """Their lengths."""
    taken: int = 0
    """What counts for limits: lengths in whole blocks."""
    disk: int | None = None
    """What the file system has allocated; None: a daemon was asked, which does not
    tell."""

    def add(self, size: int, disk: int | None) -> None:
        """
        One more value.
        """
        self.values += 1
        self.bytes += size
        self.taken += taken_by(size)
        if disk is not None:
            self.disk = (self.disk or 0) + disk


class Sums:
    """
    The sums of prefixes, down to some depth below the first.
    """

    def __init__(self, prefix: bytes, depth: int) -> None:
        self._prefix = prefix
        self._depth = depth
        self.by_prefix: dict[bytes, Sum] = {prefix: Sum()}

    def add(self, key: bytes, size: int, disk: int | None = None) -> None:
        """
        One more value, whose key has the first prefix.
        """
        end = len(self._prefix)
        self.by_prefix[self._prefix].add(size, disk)
        for _ in range(self._depth):
            end = key.find(b"/", end) + 1
            if not end:
                break
            self.by_prefix.setdefault(key[:end], Sum()).add(size, disk)


@click.command()
@click.argument("prefix", default="")
@click.option(
    "-d",
    "--depth",
    type=click.IntRange(0, 64),
    default=1,
    show_default=True,
    help="How many levels of prefixes to show.",
)
@click.option(
    "--store",
    metavar="FOLDER",
    help="Read the folder of a store on this machine instead of asking a daemon; none"
    " need run.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per line.")
@click.pass_obj
def du(url: str, prefix: str, depth: int, store: str | None, as_json: bool) -> None:
    """
    Show how many values there are below each prefix, or below PREFIX, and how much they
    take: the sum of their lengths, and what counts for --max-size, which is each length
    in whole blocks of 4 KiB. With --store, also what the file system has allocated.
    PREFIX can be a URL.
    """
    url, [prefix] = located(url, [prefix])
    below = as_folder(read_prefix(prefix))
    sums = Sums(below, depth)
    if store is not None:
        try:
            for key, status in files_in(store, below):
                sums.add(key, status.st_size, 512 * status.st_blocks)
        except OSError as error:
            raise click.ClickException(
                f"the store {store} cannot be read: {error.strerror}"
            ) from error
        _show(sums, as_json)
        return
    client = connect(url)

    async def ask() -> int:
        async for entry in client.list(below):
            sums.add(entry.key, entry.size)
        _show(sums, as_json)
        return 0

    run(ask)


def files_in(folder: str, prefix: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """
    The values in the folder of a store, whose keys have a prefix: empty, or ending with
    a slash.

    Raises:
        OSError: They cannot be read.
    """
    # Imported here, because a daemon that is asked does this itself.
    from kvd.store.walk import Span, walk

    path = os.path.join(os.fsencode(folder.removeprefix("file:")), prefix)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    for batch in walk(os.open(path, flags), prefix, Span()):
        for name in batch.names:
            try:
                status = os.stat(name, dir_fd=batch.folder, follow_symlinks=False)
            except FileNotFoundError:
                continue  # Removed meanwhile.
            if stat.S_ISREG(status.st_mode):
                yield batch.prefix + name, status


def _show(sums: Sums, as_json: bool) -> None:
    rows = sorted(sums.by_prefix.items())
    with standard_output():
        if as_json:
            for prefix, found in rows:
                facts = {
                    name: fact
                    for name, fact in asdict(found).items()
                    if fact is not None
                }
                click.echo(json.dumps({"prefix": escape(prefix)} | facts))
            return
        has_disk = any(found.disk is not None for _, found in rows)
        heads = ["values", "bytes", "takes", *(["on disk"] if has_disk else [])]
        click.echo("".join(f"{head:>16}" for head in heads) + "  prefix")
        for prefix, found in rows:
            numbers = [found.values, found.bytes, found.taken]
            numbers += [found.disk or 0] if has_disk else []
            click.echo(
                "".join(f"{number:>16}" for number in numbers) + f"  /{shown(prefix)}"
            )
