"""
``kvd get``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import click

from kvd.cli.fetching import Download, fetch
from kvd.cli.fields import PATH
from kvd.cli.keys import file_name, is_url, located, read_key, shown
from kvd.cli.matching import NothingFound, all_below, changed_ms, matching
from kvd.cli.patterns import Pattern, is_pattern
from kvd.cli.progress import bars
from kvd.cli.running import connect, each, jobs_option, patiently, run
from kvd.cli.telling import Teller
from kvd.cli.trees import place_below
from kvd.client import Absent, Client

_RECURSIVE: Final = "-r fetches all below a prefix"


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY... [TARGET]", type=PATH)
@click.option(
    "-r",
    "--recursive",
    is_flag=True,
    help="Each KEY is a prefix, and stands for all keys below it.",
)
@jobs_option
@click.option("-q", "--quiet", is_flag=True, help="No progress, and no lines.")
@click.pass_obj
def get(url: str, keys: Sequence[str], recursive: bool, jobs: int, quiet: bool) -> None:
    """
    Fetch the value of KEY into a file of its name, or into TARGET: a file, a folder, or
    - for standard output. With several arguments the last one is TARGET, and with
    several keys it must be a folder. Keys that end in the same name are refused.

    With -r, or where KEY is a pattern, TARGET is a folder, which is made if it is
    missing, and values go below it under the rest of their keys: kvd get -r films/
    folder; kvd get 'logs/**/*.txt' folder. In a pattern, * and ? stand for characters
    of one segment, and ** for any segments. A key that has a value is no pattern.

    KEY can be a URL. A file gets its name when the whole value has arrived.
    """
    *keys, target = keys if len(keys) > 1 and not is_url(keys[-1]) else (*keys, "./")
    server, keys = located(url, keys)
    client = connect(server)
    if not recursive and not any(map(is_pattern, keys)):
        downloads = _downloads(keys, target)
        run(lambda: _fetch_all(client, downloads, jobs, quiet))
        return

    async def fetch_matching() -> int:
        patterns = [
            all_below(key) if recursive else await _pattern(client, key) for key in keys
        ]
        if not any(patterns):
            return await _fetch_all(client, _downloads(keys, target), jobs, quiet)
        return await _fetch_tree(client, keys, patterns, target, jobs, quiet)

    run(fetch_matching)


async def _fetch_all(
    client: Client, downloads: Sequence[Download], jobs: int, quiet: bool
) -> int:
    with bars(quiet, len(downloads)) as begin:

        async def one(download: Download) -> None:
            await fetch(client, download, begin)

        return await each(downloads, one, Download.subject_of, jobs)


async def _pattern(client: Client, key: str) -> Pattern | None:
    """
    The pattern that an argument is, unless it is a key.
    """
    if not is_pattern(key):
        return None
    if not key.endswith("/"):
        try:
            await client.stat(read_key(key, _RECURSIVE))
        except Absent:
            return Pattern(key)
        return None
    return Pattern(key)


async def _fetch_tree(
    client: Client,
    keys: Sequence[str],
    patterns: Sequence[Pattern | None],
    folder: str,
    jobs: int,
    quiet: bool,
) -> int:
    if folder == "-" or (os.path.exists(folder) and not os.path.isdir(folder)):
        raise click.UsageError(
            f"several values cannot go into one file: {folder!r} is not a folder"
        )
    found: dict[str, tuple[Download, bytes]] = {}
    for key, pattern in zip(keys, patterns, strict=True):
        for download, name in await _meant(client, key, pattern):
            path = os.path.join(folder, os.fsdecode(name))
            first, _ = found.setdefault(path, (download, name))
            if first.key != download.key:
                raise click.UsageError(
                    f"{shown(first.key)!r} and {shown(download.key)!r} would both be"
                    f" written to {path!r}, and one would be lost: get them separately"
                )
    teller = Teller(quiet)
    total = sum(download.size for download, _ in found.values())
    with bars(quiet, len(found), total) as begin:

        async def one(thing: tuple[Download, bytes]) -> None:
            download, name = thing
            path = place_below(folder, download.key, name)
            placed = replace(download, path=path)
            await patiently(lambda: fetch(client, placed, begin))
            teller.tell(download.key, "fetched", download.size)

        status = await each(
            found.values(), one, lambda thing, _: shown(thing[0].key), jobs
        )
    teller.sum_up("fetched")
    return status


async def _meant(
    client: Client, key: str, pattern: Pattern | None
) -> list[tuple[Download, bytes]]:
    """
    The values that an argument stands for, and the path of each below the folder.
    """
    if pattern is None:
        given = read_key(key, _RECURSIVE)
        return [(Download(given, ""), os.fsencode(file_name(given)))]
    found = [
        (
            Download(entry.key, "", entry.size, entry.etag, changed_ms(entry)),
            entry.key[len(pattern.below) :],
        )
        async for entry in matching(client, pattern)
    ]
    if not found:
        raise NothingFound(f"no key matches {key!r}.")
    return found


def _downloads(keys: Sequence[str], target: str) -> list[Download]:
    into_folder = target != "-" and (target.endswith("/") or os.path.isdir(target))
    if len(keys) > 1 and not into_folder:
        raise click.UsageError(
            f"{len(keys)} values cannot go into one file: {target!r} is not a folder"
        )
    downloads: dict[str, Download] = {}
    for key in (read_key(name, _RECURSIVE) for name in keys):
        path = os.path.join(target, file_name(key)) if into_folder else target
        download = Download(key, path)
        first = downloads.setdefault(_written(path), download)
        if first is not download:
            raise click.UsageError(
                f"{shown(first.key)!r} and {shown(key)!r} would both be written to"
                f" {path!r}, and one would be lost: get them separately"
            )
    return list(downloads.values())


def _written(path: str) -> str:
    """
    The file that is written, which may have several names.
    """
    try:
        return os.path.realpath(path)
    except OSError:
        # The present folder is gone, which fails when the file is written.
        return path
