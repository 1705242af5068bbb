"""
The bytes of a value as the body of a reply.
"""

from __future__ import annotations

from typing import Final

from twisted.internet.defer import Deferred

from kvd.errors import StoreFault
from kvd.http.source import FilePart, Source, Stream
from kvd.interfaces import Answer, ICachedValue, IStreamedValue, IValue

CHUNK_BYTES: Final = 64 * 1024
"""
A body of up to this size is sent together with its head, without asking whether it is
in memory. A longer one is sent in pieces of this size, one at a time.
"""


def checked(chunk: bytes) -> bytes:
    """
    What a value has given, which must not be nothing.
    """
    if not chunk:
        raise StoreFault("the value ended before its length")
    return chunk


class ValueSource(Source):
    """
    The bytes of a value from an offset on.
    """

    def __init__(self, value: IValue, first: int, length: int) -> None:
        self._value = value
        self._streamed = IStreamedValue(value, None)
        self._offset = first
        self.remaining = length

    def next_chunk(self) -> Answer[bytes]:
        """
        See `Source`.
        """
        if not self.remaining:
            return b""
        chunk = self._value.read(self._offset, min(CHUNK_BYTES, self.remaining))
        if isinstance(chunk, Deferred):
            return chunk.addCallback(self._taken)
        return self._taken(chunk)

    def _taken(self, chunk: bytes) -> bytes:
        self.sent(len(checked(chunk)))
        return chunk

    def file(self) -> FilePart | None:
        """
        See `Source`.
        """
        descriptor = self._value.fileno()
        if descriptor is None or not self.remaining:
            return None
        return FilePart(descriptor, self._offset, self.remaining)

    def lose_file(self) -> bool:
        """
        See `Source`.
        """
        value = ICachedValue(self._value, None)
        return value is not None and value.lose_file()

    def stream(self) -> Stream | None:
        """
        See `Source`.
        """
        value = self._streamed
        if value is None or not self.remaining:
            return None
        socket = value.socket(self._offset)
        if socket is None:
            return None
        descriptor, count = socket
        count = min(count, self.remaining)
        return Stream(descriptor, count, self._moved, value.watch)

    def _moved(self, count: int, ended: bool) -> None:
        assert self._streamed is not None
        self._streamed.taken(count, ended)
        self.sent(count)

    def sent(self, count: int) -> None:
        """
        See `Source`.
        """
        self._offset += count
        self.remaining -= count

    def close(self) -> None:
        """
        See `Source`.
        """
        self._value.close()
