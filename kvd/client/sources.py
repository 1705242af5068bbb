"""
Where the bytes of a PUT come from, piece by piece.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.python.failure import Failure
from zope.interface import implementer

from kvd.client.errors import SourceChanged, SourceUnreadable

PIECE_BYTES = 128 * 1024
"""
As much as Twisted gives to one send(2). A PUT of 1 GB takes 1.2 s with pieces of
64 KiB, 0.9 s with these, and no less with larger ones.
"""


class ISource(Protocol):
    """
    The bytes of one value.
    """

    length: int | None
    """How many there are; None if that is unknown until the end."""

    def rewind(self) -> bool:
        """
        Start again from the first byte.

        Returns:
            Whether that was possible; if not, nothing changed.
        """

    def next_piece(self) -> bytes | Deferred[bytes]:
        """
        The next bytes; none of them at the end.

        Raises:
            SourceChanged: The source is not what it was at the beginning.
            SourceUnreadable: It cannot be read.
        """


@contextmanager
def _reading() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SourceUnreadable(
            f"The source cannot be read: {error.strerror}."
        ) from error


class BytesSource:
    """
    Bytes in memory.
    """

    def __init__(self, data: bytes) -> None:
        self.length: int | None = len(data)
        self._data = data
        self._given = 0

    def rewind(self) -> bool:
        self._given = 0
        return True

    def go_to(self, offset: int) -> None:
        """
        Give the bytes from an offset on.
        """
        self._given = offset

    def next_piece(self) -> bytes:
        piece = self._data[self._given : self._given + PIECE_BYTES]
        self._given += len(piece)
        return piece


class FileSource:
    """
    A file, from its beginning.

    The file is read in the reactor's thread: a piece is usually in the page cache
    already, and a thread would cost more than the wait.
    """

    def __init__(self, file: io.FileIO) -> None:
        """
        Args:
            file: Regular, and not closed before the PUT has ended.
        """
        self._file = file
        self._seen = os.fstat(file.fileno())
        self.length: int | None = self._seen.st_size
        self._left = self._seen.st_size
        file.seek(0)

    def rewind(self) -> bool:
        self._file.seek(0)
        self._left = self._seen.st_size
        return True

    def go_to(self, offset: int) -> None:
        """
        Give the bytes from an offset on.
        """
        self._file.seek(offset)
        self._left = self._seen.st_size - offset

    def next_piece(self) -> bytes:
        with _reading():
            piece = self._file.read(min(PIECE_BYTES, self._left))
            self._left -= len(piece)
            # Checked before the last piece is handed out: without that piece, the
            # daemon discards the upload.
            if not self._left or not piece:
                self._check_unchanged()
        return piece

    def _check_unchanged(self) -> None:
        seen, now = self._seen, os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) != (seen.st_size, seen.st_mtime_ns):
            raise SourceChanged(
                "The file was changed while it was put: it had"
                f" {seen.st_size} bytes and has {now.st_size} now."
            )
        # Files that the kernel generates while they are read have more or less.
        if self._left or self._file.read(1):
            raise SourceUnreadable(
                f"The file does not have the {seen.st_size} bytes that it seems to"
                " have: put what a program reads from it, through a pipe."
            )


@implementer(IReadDescriptor)
class StreamSource:
    """
    A pipe, a terminal or the like, up to its end; can be read only once.

    The descriptor is read when the reactor reports data. It is not made non-blocking,
    since other processes may share it.
    """

    length: int | None = None

    def __init__(self, descriptor: int, reactor: IReactorFDSet) -> None:
        self._descriptor = descriptor
        self._reactor = reactor
        self._begun = False
        self._waiting: Deferred[bytes] | None = None

    def rewind(self) -> bool:
        return not self._begun

    def next_piece(self) -> bytes | Deferred[bytes]:
        self._begun = True
        try:
            self._reactor.addReader(self)
        except PermissionError:
            # epoll refuses regular files (epoll_ctl(2)), which never block.
            with _reading():
                return os.read(self._descriptor, PIECE_BYTES)
        self._waiting = Deferred(self._cancelled)
        return self._waiting

    def _cancelled(self, waiting: Deferred[bytes]) -> None:
        self._reactor.removeReader(self)
        # The reactor can still report a hang-up of the pipe.
        self._waiting = None

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "source"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        waiting, self._waiting = self._waiting, None
        assert waiting is not None
        try:
            with _reading():
                piece = os.read(self._descriptor, PIECE_BYTES)
        except SourceUnreadable:
            waiting.errback()
        else:
            waiting.callback(piece)

    def connectionLost(self, reason: Failure) -> None:
        # So the reactor reports a hang-up. The remaining bytes are read as before, and
        # then the end.
        if self._waiting is not None:
            self.doRead()
