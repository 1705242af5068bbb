"""
``kvd put``.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import click
from twisted.internet.defer import Deferred

from kvd.cli.errors import LocalError
from kvd.cli.fields import printable
from kvd.cli.keys import read_prefix, shown
from kvd.cli.progress import Moved, bar
from kvd.cli.running import connect, each, run
from kvd.client import (
    FileSource,
    ISeekableSource,
    ISource,
    SourceChanged,
    SourceUnreadable,
    StreamSource,
)


@dataclass(frozen=True)
class _Upload:
    key: bytes
    path: str

    @property
    def source(self) -> str:
        """
        Its name for a person.
        """
        return "standard input" if self.path == "-" else self.path


class _Watched:
    """
    A source that counts what is read from it.
    """

    def __init__(self, source: ISource, moved: Moved) -> None:
        self.length = source.length
        self._source = source
        self._moved = moved

    def rewind(self) -> bool:
        return self._source.rewind()

    def next_piece(self) -> bytes | Deferred[bytes]:
        piece = self._source.next_piece()
        if isinstance(piece, Deferred):
            return piece.addCallback(self._count)
        return self._count(piece)

    def _count(self, piece: bytes) -> bytes:
        self._moved(len(piece))
        return piece


class _WatchedFile(_Watched):
    """
    The same, of a source that can begin anywhere.
    """

    def __init__(self, source: ISeekableSource, moved: Moved) -> None:
        super().__init__(source, moved)
        self._file = source
        self._given = 0

    def go_to(self, offset: int) -> None:
        """
        See `ISeekableSource`.
        """
        self._file.go_to(offset)
        self._moved(offset - self._given)
        self._given = offset

    def _count(self, piece: bytes) -> bytes:
        self._given += len(piece)
        return super()._count(piece)


def _watched(source: ISource, moved: Moved) -> _Watched:
    if isinstance(source, ISeekableSource):
        return _WatchedFile(source, moved)
    return _Watched(source, moved)


@click.command()
@click.argument("key")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--create", is_flag=True, help="Only if the key has no value yet.")
@click.option(
    "--if-match",
    metavar="ETAG",
    callback=printable,
    help="Only if the key has this value.",
)
@click.option(
    "--content-type", metavar="TYPE", callback=printable, help="Stored with the value."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress.")
@click.pass_obj
def put(
    url: str,
    key: str,
    files: Sequence[str],
    create: bool,
    if_match: str | None,
    content_type: str | None,
    quiet: bool,
) -> None:
    """
    Store FILE under KEY; - is standard input.

    If KEY ends in a slash, it is a prefix, and each FILE is stored under its own name
    after it: kvd put films/ one two. Files of the same name are refused.
    """
    client = connect(url)
    uploads = _uploads(key, files)

    async def store(upload: _Upload) -> None:
        with ExitStack() as stack:
            source = _open(upload.path, stack)
            moved = stack.enter_context(bar(upload.source, source.length, quiet))
            await client.put(
                upload.key,
                _watched(source, moved),
                create=create,
                if_match=if_match,
                content_type=content_type,
            )

    run(lambda: each(uploads, store, _name))


def _name(upload: _Upload, error: Exception) -> str:
    # The daemon refuses a key, and not a file.
    if isinstance(error, LocalError | SourceChanged | SourceUnreadable):
        return upload.source
    return shown(upload.key)


def _uploads(key: str, files: Sequence[str]) -> list[_Upload]:
    prefix = read_prefix(key)
    if not key.endswith("/"):
        if not prefix:
            raise click.UsageError("a key has at least one character")
        if len(files) > 1:
            raise click.UsageError(
                f"{len(files)} files cannot be stored under one key; end a prefix with"
                f" a slash: {key}/"
            )
        return [_Upload(prefix, files[0])]
    uploads: dict[bytes, _Upload] = {}
    for path in files:
        name = os.path.basename(path.rstrip("/"))
        if path == "-" or name in ("", ".", ".."):
            raise click.UsageError(
                f"{path!r} has no name to be stored under; give one after {key}"
            )
        upload = _Upload(prefix + os.fsencode(name), path)
        first = uploads.setdefault(upload.key, upload)
        if first is not upload:
            raise click.UsageError(
                f"{first.path!r} and {path!r} would both be stored under"
                f" {shown(upload.key)!r}, and one would be lost: put them separately"
            )
    return list(uploads.values())


def _open(path: str, stack: ExitStack) -> ISource:
    """
    The source at a path; closed with the stack.
    """
    # Imported here, because importing the reactor installs one.
    from twisted.internet import reactor as installed

    reactor: Any = installed
    if path == "-":
        if sys.stdin is None:
            raise LocalError("it is closed.")
        # A redirected file is read from its present position.
        return StreamSource(sys.stdin.fileno(), reactor)
    try:
        file = stack.enter_context(io.FileIO(path))
        descriptor = file.fileno()
        seen = os.fstat(descriptor)
        # Below /proc, files of size 0 have contents.
        if stat.S_ISREG(seen.st_mode) and (
            seen.st_size or not os.pread(descriptor, 1, 0)
        ):
            return FileSource(file)
    except FileNotFoundError as error:
        raise LocalError(
            f"it cannot be read: {error.strerror}; give the key first, and then the"
            " files: kvd put KEY FILE..."
        ) from error
    except OSError as error:
        raise LocalError(f"it cannot be read: {error.strerror}.") from error
    return StreamSource(descriptor, reactor)
