"""
``kvd sync`` between a folder and a daemon.

All is compared first, and then done, so ``--dry-run`` shows what would happen, and
nothing is removed if a part of the source could not be read. As between stores
(`kvd.moving.mirror`), a value is a copy if it has the same size and is not older than
the source's, or, with ``--checksum``, the same SHA-256. A daemon names no digests, so
that reads the value.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import click
from twisted.internet.task import deferLater

from kvd.cli.errors import LocalError
from kvd.cli.fetching import Download, fetch
from kvd.cli.keys import checked_key, shown
from kvd.cli.main import complain
from kvd.cli.matching import changed_ms
from kvd.cli.output import standard_output
from kvd.cli.progress import Begin, bars, is_watched
from kvd.cli.put import report
from kvd.cli.running import each, patiently
from kvd.cli.sending import Upload, send
from kvd.cli.trees import LocalFile, Tree, is_below_any, place_below, read_tree
from kvd.client import (
    Absent,
    Client,
    ConditionFailed,
    Entry,
    NotKvd,
    Unreachable,
)
from kvd.client.resuming import LEAST_BYTES
from kvd.model.reserved import is_reserved
from kvd.moving.mirror import Choices, Counts

READ_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Both:
    """
    What a folder and a daemon have of one name.
    """

    name: bytes
    file: LocalFile | None
    value: Entry | None


@dataclass(slots=True)
class TreeSync:
    """
    Makes a folder a copy of a daemon's values, or the other way round.
    """

    client: Client
    folder: str
    choices: Choices
    """The prefix is that of the daemon's values."""
    is_upload: bool
    force: bool
    """Whether an empty source may empty the destination."""
    follow: bool
    quiet: bool
    counts: Counts = field(default_factory=Counts)
    _tree: Tree = field(default_factory=Tree)

    async def run(self) -> int:
        """
        Compare, copy, and remove; returns the exit status.
        """
        if self.is_upload or os.path.lexists(self.folder):
            self._tree = read_tree(self.folder, self.follow)
        status = report(self._tree.left_out) if self.is_upload else 0
        copies: list[Both] = []
        extra: list[Both] = []
        has_source = False
        async for both in self._both():
            source = both.file if self.is_upload else both.value
            if source is None:
                extra.append(both)
                continue
            has_source = True
            if self._is_wanted(both):
                copies.append(both)
        if not self.choices.deletes:
            extra = []
        if extra and not (has_source or self.force or status):
            raise LocalError(
                "the source has no values, so --delete would remove all of the"
                " destination: see that it is the one that you mean, and give --force"
                " too if it is."
            )
        total = sum(map(self._size, copies))
        is_still = self.quiet or self.choices.changes_nothing
        with bars(is_still, len(copies), total) as begin:
            copied = await self._each(copies, lambda both: self._copy(both, begin))
        status = copied or status
        if extra and status:
            complain("nothing is removed, since not all of the source was copied.")
            return status
        return await self._each(extra, self._remove) or status

    async def _each(
        self, things: list[Both], work: Callable[[Both], Awaitable[None]]
    ) -> int:
        def subject(both: Both, _: Exception) -> str:
            self.counts.failed += 1
            return shown(self.choices.prefix + both.name)

        return await each(things, work, subject, self.choices.at_once)

    async def _both(self) -> AsyncIterator[Both]:
        """
        All names, in the order of their bytes.
        """
        below = self.choices.prefix
        # What was left out of a source is there all the same.
        kept = self._tree.names_left_out() if self.is_upload else frozenset()
        files = iter(sorted(self._tree.files.items()))
        name, file = next(files, (b"", None))
        async for entry in self.client.list_in_order(below):
            if not entry.key.startswith(below):
                raise NotKvd("What answered is not kvd: it lists what is elsewhere.")
            if is_reserved(entry.key):
                continue
            other = entry.key[len(below) :]
            while file is not None and name < other:
                yield Both(name, file, None)
                name, file = next(files, (b"", None))
            if file is not None and name == other:
                yield Both(name, file, entry)
                name, file = next(files, (b"", None))
            elif not is_below_any(other, kept):
                yield Both(other, None, entry)
        while file is not None:
            yield Both(name, file, None)
            name, file = next(files, (b"", None))

    def _size(self, both: Both) -> int:
        if self.is_upload:
            assert both.file is not None
            return both.file.size
        assert both.value is not None
        return both.value.size

    def _is_wanted(self, both: Both) -> bool:
        """
        Whether what the source has may have to be copied.
        """
        if self._is_alike(both) and self.choices.compares_digests:
            return True
        if self._is_alike(both) and not self._is_older_there(both):
            self.counts.equal += 1
            return False
        return self._may_replace(both)

    def _is_alike(self, both: Both) -> bool:
        if both.file is None or both.value is None:
            return False
        return both.file.size == both.value.size

    def _is_older_there(self, both: Both) -> bool:
        if both.file is None or both.value is None:
            return True
        local, remote = both.file.changed_ms, changed_ms(both.value)
        return remote < local if self.is_upload else local < remote

    def _may_replace(self, both: Both) -> bool:
        if self.choices.overwrites or self._is_older_there(both):
            return True
        self.counts.newer += 1
        return False

    async def _copy(self, both: Both, begin: Begin) -> None:
        if self._is_alike(both) and self.choices.compares_digests:
            if await self._is_copy(both):
                self.counts.equal += 1
                return
            if not self._may_replace(both):
                return
        if not self.choices.changes_nothing:
            try:
                await (self._send if self.is_upload else self._fetch)(both, begin)
            except ConditionFailed:
                self.counts.newer += 1
                return
        self._say("copied", both)
        self.counts.copied += 1
        self.counts.bytes += self._size(both)

    async def _send(self, both: Both, begin: Begin) -> None:
        assert both.file is not None
        key = self.choices.prefix + both.name
        checked_key(key)
        upload = Upload(key, both.file.path, both.file.size)
        etag = None if both.value is None else both.value.etag
        is_conditional = not self.choices.overwrites
        digest = None
        # A larger one is resumed, and uploads with digests are not.
        if self.choices.compares_digests and both.file.size < LEAST_BYTES:
            digest = await _digest_of(both.file.path)

        async def once() -> None:
            await send(
                self.client,
                upload,
                begin,
                create=is_conditional and etag is None,
                if_match=etag if is_conditional else None,
                sha256=digest,
            )

        await patiently(once, (Unreachable,))

    async def _fetch(self, both: Both, begin: Begin) -> None:
        value = both.value
        assert value is not None
        path = place_below(self.folder, value.key, both.name)
        at = changed_ms(value)
        download = Download(value.key, path, value.size, value.etag, at, is_exact=True)
        await patiently(lambda: fetch(self.client, download, begin))

    async def _is_copy(self, both: Both) -> bool:
        file, value = both.file, both.value
        assert file is not None
        assert value is not None
        there = sha256()

        class Sink:
            def write(self, data: bytes) -> None:
                there.update(data)

        await self.client.get(value.key, Sink(), if_match=value.etag)
        return await _digest_of(file.path) == there.digest()

    async def _remove(self, both: Both) -> None:
        if not self.choices.changes_nothing:
            if both.value is not None:
                try:
                    await self.client.remove(both.value.key, if_match=both.value.etag)
                except Absent:
                    return  # Removed by another program.
                except ConditionFailed:
                    self.counts.newer += 1
                    return
            elif both.file is not None:
                try:
                    Path(both.file.path).unlink(missing_ok=True)
                except OSError as error:
                    raise LocalError(f"it cannot be removed: {error.strerror}.") from (
                        error
                    )
        self._say("removed", both)
        self.counts.removed += 1

    def _say(self, what: str, both: Both) -> None:
        # A dry run is for its lines.
        is_dry = self.choices.changes_nothing
        if is_dry or not (self.quiet or is_watched()):
            would = "would be " if is_dry else ""
            with standard_output():
                click.echo(f"{shown(self.choices.prefix + both.name)}: {would}{what}")


async def _digest_of(path: str) -> bytes:
    """
    The SHA-256 of a file. Other transfers go on meanwhile.

    Raises:
        LocalError: It cannot be read.
    """
    from twisted.internet import reactor as installed

    clock: Any = installed
    digest = sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(READ_BYTES):
                digest.update(piece)
                await deferLater(clock, 0)
    except OSError as error:
        raise LocalError(f"{path} cannot be read: {error.strerror}.") from error
    return digest.digest()
