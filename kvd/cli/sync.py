"""
``kvd sync``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import click
from click.core import ParameterSource

from kvd.cli.errors import FAILED, LocalError
from kvd.cli.fields import PATH
from kvd.cli.keys import as_folder, is_url, located, read_prefix, shown
from kvd.cli.main import complain
from kvd.cli.output import standard_output
from kvd.cli.progress import counting
from kvd.cli.running import connect, run
from kvd.cli.tree_sync import TreeSync
from kvd.errors import KvdError, OperatorError
from kvd.interfaces import IStore, IStoreMaker
from kvd.model.keys import Key
from kvd.moving.mirror import Choices, Counts, Mirror
from kvd.options.locations import read_store
from kvd.plugins import IStoreDeclaration, declared, load
from kvd.settings import Durability, StoreLocation
from kvd.store.places import overlap
from kvd.store.waiting import resolved


@click.command()
@click.argument("source", type=PATH)
@click.argument("destination", type=PATH)
@click.option(
    "--prefix", default="", metavar="PREFIX", help="Only the keys below PREFIX."
)
@click.option("--delete", is_flag=True, help="Remove values that SOURCE does not have.")
@click.option(
    "--force", is_flag=True, help="With --delete, even if SOURCE has no values at all."
)
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace values that are newer at DESTINATION, too.",
)
@click.option(
    "--checksum",
    is_flag=True,
    help="Read what seems to be a copy on both sides, and compare its SHA-256.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    help="Whether to read back each value that was written. On by default.",
)
@click.option(
    "--dry-run", is_flag=True, help="Change nothing, and count what would be done."
)
@click.option(
    "--jobs",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many values are copied at once.",
)
@click.option(
    "--durability",
    type=click.Choice(["disk", "process"]),
    default="disk",
    show_default=True,
    help="What a store on a disk promises for each value, as for the daemon.",
)
@click.option(
    "-L",
    "--follow",
    is_flag=True,
    help="From a folder to a daemon: send what links inside it lead to.",
)
@click.option("-q", "--quiet", is_flag=True, help="No progress, and no line per value.")
@click.pass_context
def sync(
    context: click.Context,
    source: str,
    destination: str,
    prefix: str,
    delete: bool,
    force: bool,
    overwrite: bool,
    checksum: bool,
    verify: bool,
    dry_run: bool,
    jobs: int,
    durability: Durability,
    follow: bool,
    quiet: bool,
) -> None:
    """
    Copy to DESTINATION what it does not have of SOURCE: a folder and a daemon, kvd sync
    folder http://host/prefix/ or the other way round, or two stores, kvd sync file:old
    file:new. Stores are written as for the daemon's --store, and daemons may serve them
    meanwhile; --prefix, --verify and --durability are about them only.

    A value is taken for a copy if it has the same size and was published later. So run
    the command again after it was interrupted, or to copy what is new. A file that
    comes from a daemon gets the time at which its value was published.
    """
    below = as_folder(read_prefix(prefix))
    choices = Choices(below, delete, overwrite, checksum, verify, dry_run, jobs)
    if is_url(source) or is_url(destination):
        for name in ("prefix", "verify", "durability"):
            if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
                raise click.UsageError(f"--{name} is about stores, and not daemons")
        _sync_tree(source, destination, choices, force, follow, quiet)
        return
    if follow:
        raise click.UsageError("-L is about folders, and there are none in a store")
    places = _location(source), _location(destination)
    if overlap(*places):
        raise click.UsageError(
            f"{places[1]} cannot be a copy of {places[0]}: it is the same store, or one"
            " is in the folder of the other"
        )

    async def copy_all() -> int:
        # Imported here, because importing the reactor installs one.
        from twisted.internet import reactor

        clock: Any = reactor
        with _sentences():
            from_store = _opened(places[0], durability, is_new=False)
            to_store = _opened(places[1], durability, is_new=not dry_run)
            if delete and not force:
                await _expect_values(from_store, to_store, below, places)
        mirror = Mirror(from_store, to_store, choices, clock, _report)
        shown_counts = counting(lambda: _counted(mirror.counts, dry_run), quiet)
        with shown_counts, _sentences():
            counts = await mirror.run()
        # Not after an interruption, when nothing may wait.
        await resolved(from_store.close())
        await resolved(to_store.close())
        with standard_output():
            click.echo(_counted(counts, dry_run))
        return FAILED if counts.failed else 0

    run(copy_all)


def _sync_tree(
    source: str,
    destination: str,
    choices: Choices,
    force: bool,
    follow: bool,
    quiet: bool,
) -> None:
    """
    Copy between a folder and a daemon.
    """
    is_upload = not is_url(source)
    if follow and not is_upload:
        raise click.UsageError(
            "-L is about links in a folder that is sent, and this one is written"
        )
    folder, url = (source, destination) if is_upload else (destination, source)
    if is_url(folder):
        raise click.UsageError(
            "both are daemons: give the stores that they serve, as in their --store, or"
            " copy through a folder"
        )
    scheme, colon, _ = folder.partition(":")
    if colon and scheme in declared(IStoreDeclaration):
        raise click.UsageError(
            f"{folder!r} is a store, and {url!r} a daemon: give two stores, or write a"
            f" folder of that name as ./{folder}"
        )
    server, [key] = located(url, [url])
    below = as_folder(read_prefix(key))
    tree_sync = TreeSync(
        connect(server),
        folder,
        replace(choices, prefix=below),
        is_upload,
        force,
        follow,
        quiet,
    )

    async def copy_all() -> int:
        status = await tree_sync.run()
        with standard_output():
            click.echo(_counted(tree_sync.counts, choices.changes_nothing))
        return status

    run(copy_all)


async def _expect_values(
    source: IStore,
    destination: IStore,
    below: bytes,
    places: tuple[StoreLocation, StoreLocation],
) -> None:
    """
    Check that the source has values if the destination does: a disk that is not mounted
    and a bucket that was mistyped are empty.

    Raises:
        LocalError: It has none.
    """
    for store in (source, destination):
        listing = store.list(below, b"", 1)
        found = await resolved(listing.next_slice())
        listing.close()
        if store is source and found:
            return
    if found:
        raise LocalError(
            f"{places[0]} has no values, so --delete would remove all of {places[1]}"
            " below the prefix: see that it is the store that you mean, and give"
            " --force too if it is"
        )


def _location(text: str) -> StoreLocation:
    try:
        return read_store(text)
    except OperatorError as error:
        raise click.UsageError(error.sentence) from error


def _opened(location: StoreLocation, durability: Durability, is_new: bool) -> IStore:
    maker: IStoreMaker = load(IStoreDeclaration, location.scheme)
    if is_new:
        maker.prepare(location.path)
    return maker.open_store(location.path, durability)


@contextmanager
def _sentences() -> Iterator[None]:
    """
    Report what ends the whole work.
    """
    try:
        yield
    except KvdError as error:
        raise LocalError(error.sentence) from error


def _report(key: Key, error: KvdError) -> None:
    complain(f"{shown(key)}: {error.sentence}")


def _counted(counts: Counts, dry_run: bool) -> str:
    would = "would be " if dry_run else ""
    parts = [
        f"{counts.copied} {would}copied ({counts.bytes} bytes)",
        f"{counts.equal} equal",
    ]
    if counts.newer:
        parts.append(f"{counts.newer} newer at the destination and left alone")
    if counts.removed:
        parts.append(f"{counts.removed} {would}removed")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    return ", ".join(parts)
