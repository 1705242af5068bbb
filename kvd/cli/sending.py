"""
What ``kvd put`` and ``kvd sync`` send: one file, or a stream.
"""

from __future__ import annotations

import io
import os
import stat
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from kvd.cli.errors import LocalError
from kvd.cli.keys import shown
from kvd.cli.progress import Begin, Moved
from kvd.client import (
    Client,
    FileSource,
    ISeekableSource,
    ISource,
    SourceChanged,
    SourceUnreadable,
    StreamSource,
)


@dataclass(frozen=True, slots=True)
class Upload:
    """
    A file, or a stream, and the key that it is stored under.
    """

    key: bytes
    path: str
    size: int = 0
    """For the sum of the progress."""

    @property
    def source(self) -> str:
        """
        Its name for a person.
        """
        return "standard input" if self.path == "-" else self.path

    def subject_of(self, error: Exception) -> str:
        """
        What a failure is about: the daemon refuses a key, and not a file.
        """
        if isinstance(error, LocalError | SourceChanged | SourceUnreadable):
            return self.source
        return shown(self.key)


async def send(
    client: Client,
    upload: Upload,
    begin: Begin,
    *,
    create: bool = False,
    if_match: str | None = None,
    content_type: str | None = None,
    sha256: bytes | None = None,
) -> None:
    """
    Store one value; see `Client.put`.

    Args:
        client: Sends it.
        upload: Where it is, and its key.
        begin: Shows its progress.
        create: See `Client.put`.
        if_match: See `Client.put`.
        content_type: See `Client.put`.
        sha256: See `Client.put`.

    Raises:
        ClientError: It was not stored, or nobody knows.
        LocalError: It cannot be read.
    """
    with ExitStack() as stack:
        source = _open(upload.path, stack)
        moved = stack.enter_context(begin(upload.source, source.length))
        await client.put(
            upload.key,
            _watched(source, moved),
            create=create,
            if_match=if_match,
            content_type=content_type,
            sha256=sha256,
        )


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
    except IsADirectoryError as error:
        raise LocalError("it is a folder: -r sends what is in it.") from error
    except OSError as error:
        raise LocalError(f"it cannot be read: {error.strerror}.") from error
    return StreamSource(descriptor, reactor)
