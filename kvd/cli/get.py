"""
``kvd get``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import click
from twisted.internet.task import deferLater

from kvd.cli.errors import unwritable
from kvd.cli.keys import file_name, read_key, shown
from kvd.cli.progress import Moved, bar
from kvd.cli.running import connect, each, run
from kvd.cli.target import Target, open_target
from kvd.client import Absent, BrokenOff, Client, ConditionFailed, Value

RESUMES: Final = 3
RESUME_SECONDS: Final = 0.2


@dataclass(frozen=True)
class _Download:
    key: bytes
    path: str


@click.command()
@click.argument("keys", nargs=-1, required=True, metavar="KEY... [TARGET]")
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_obj
def get(url: str, keys: Sequence[str], quiet: bool) -> None:
    """
    Fetch the value of KEY into a file of its name, or into TARGET: a file, a folder, or
    - for standard output. With several arguments the last one is TARGET, and with
    several keys it must be a folder. Keys that end in the same name are refused.

    A file gets its name when the whole value has arrived.
    """
    client = connect(url)
    downloads = _downloads(keys)

    async def fetch(download: _Download) -> None:
        with ExitStack() as stack:
            target = stack.enter_context(open_target(download.path))
            await _Fetch(client, download.key, target, quiet, stack).run()
            target.finish()

    run(lambda: each(downloads, fetch, lambda download, _: shown(download.key)))


def _downloads(arguments: Sequence[str]) -> list[_Download]:
    *keys, target = arguments if len(arguments) > 1 else (*arguments, "./")
    into_folder = target != "-" and (target.endswith("/") or os.path.isdir(target))
    if len(keys) > 1 and not into_folder:
        raise click.UsageError(
            f"{len(keys)} values cannot go into one file: {target!r} is not a folder"
        )
    downloads: dict[str, _Download] = {}
    for key in map(read_key, keys):
        path = os.path.join(target, file_name(key)) if into_folder else target
        download = _Download(key, path)
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


class _Fetch:
    """
    One download, resumed where its connection was lost.
    """

    def __init__(
        self, client: Client, key: bytes, target: Target, quiet: bool, stack: ExitStack
    ) -> None:
        self._client = client
        self._key = key
        self._target = target
        self._quiet = quiet
        self._stack = stack
        self._written = 0
        self._value: Value | None = None
        self._moved: Moved

    async def run(self) -> None:
        """
        Download the whole value.
        """
        from twisted.internet import reactor as installed

        clock: Any = installed
        for _ in range(RESUMES):
            written = self._written
            try:
                await self._continue()
                return
            except BrokenOff:
                if self._written == written:
                    raise
            await deferLater(clock, RESUME_SECONDS)
        await self._continue()

    async def _continue(self) -> None:
        # Only the same value: the rest of another one does not belong to it.
        etag = None if self._value is None else self._value.etag
        if self._value is not None and self._written == self._value.size:
            return
        try:
            await self._client.get(
                self._key, self, offset=self._written, if_match=etag, begun=self._begun
            )
        except (Absent, ConditionFailed) as error:
            if etag is None:
                raise
            raise BrokenOff(
                "The connection was lost, and the value was replaced or removed"
                " before the rest of it could be fetched."
            ) from error

    def _begun(self, value: Value) -> None:
        if self._value is None:
            self._value = value
            shown_bar = bar(shown(self._key), value.size, self._quiet)
            self._moved = self._stack.enter_context(shown_bar)

    def write(self, data: bytes) -> None:
        """
        See `kvd.client.client.ISink`.
        """
        try:
            self._target.write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise unwritable(self._target.name, error) from error
        self._written += len(data)
        self._moved(len(data))
