"""
Where the body of a reply comes from.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from kvd.errors import StoreFault
from kvd.interfaces import Answer


@dataclass(frozen=True, slots=True)
class FilePart:
    """
    Bytes of an open file.
    """

    descriptor: int
    offset: int
    count: int


@dataclass(frozen=True, slots=True)
class Stream:
    """
    Bytes that come on a socket.
    """

    descriptor: int
    count: int
    taken: Callable[[int, bool], None]
    """See `kvd.interfaces.IStreamedValue`."""
    watch: Callable[[int, Callable[[], int], Callable[[StoreFault], object]], None]
    """See there."""


class Source:
    """
    The body of a reply, piece by piece.
    """

    def next_chunk(self) -> Answer[bytes]:
        """
        The next piece; empty at the end.
        """
        raise NotImplementedError

    def file(self) -> FilePart | None:
        """
        The rest as a part of a file, which the kernel can send, or None if it has to be
        read in pieces. May change with every piece.
        """
        return None

    def has_more(self) -> bool:
        """
        Whether something follows what `file` or `stream` has given.
        """
        return False

    def lose_file(self) -> bool:
        """
        The file cannot be read. Returns whether the rest can be read in pieces, from
        somewhere else; then `file` gives None from now on.
        """
        return False

    def stream(self) -> Stream | None:
        """
        The rest as it comes on a socket, from which the kernel can move it on, or None
        if it has to be read in pieces. May change with every piece.
        """
        return None

    def sent(self, count: int) -> None:
        """
        Bytes of the file have been sent.
        """

    def close(self) -> None:
        """
        No more is needed.
        """


class OpenFile(Source):
    """
    The bytes of an open file from an offset on.
    """

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        """
        Args:
            descriptor: Of the file; this object closes it.
            offset: Where the bytes begin.
            count: How many there are; more than 0.
        """
        self._part = FilePart(descriptor, offset, count)

    def file(self) -> FilePart:
        """
        See `Source`.
        """
        return self._part

    def sent(self, count: int) -> None:
        """
        See `Source`.
        """
        part = self._part
        self._part = FilePart(part.descriptor, part.offset + count, part.count - count)

    def close(self) -> None:
        """
        See `Source`.
        """
        os.close(self._part.descriptor)


class Rest(Source):
    """
    A source whose first piece was already taken.
    """

    def __init__(self, first: bytes, source: Source) -> None:
        self._first = first
        self._source = source

    def next_chunk(self) -> Answer[bytes]:
        """
        See `Source`.
        """
        if self._first:
            first, self._first = self._first, b""
            return first
        return self._source.next_chunk()

    def file(self) -> FilePart | None:
        """
        See `Source`.
        """
        return None if self._first else self._source.file()

    def lose_file(self) -> bool:
        """
        See `Source`.
        """
        return self._source.lose_file()

    def stream(self) -> Stream | None:
        """
        See `Source`.
        """
        return None if self._first else self._source.stream()

    def sent(self, count: int) -> None:
        """
        See `Source`.
        """
        self._source.sent(count)

    def close(self) -> None:
        """
        See `Source`.
        """
        self._source.close()
