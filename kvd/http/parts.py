"""
Several parts of a value as the body of one reply: ``multipart/byteranges`` (RFC 9110
sections 14.6 and 15.3.7.2).

Small parts are read, and sent together with what stands around them; a large one goes
from its file to the socket as the body of any other reply does. Each part is larger
than the gap to the next one, or described by fewer bytes than it would take to leave
the gap out. So a reply takes work in proportion to its bytes, and at most two system
calls for each of `MAX_RANGES` parts.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from typing import Final

from twisted.internet.defer import Deferred

from kvd.http.reply_fields import Fields, GuessType, fields_of
from kvd.http.source import FilePart, Source, Stream
from kvd.http.value_source import CHUNK_BYTES, ValueSource
from kvd.http.wire.fields import Range
from kvd.interfaces import Answer, IValue
from kvd.model.values import ValueInfo

NEAR_GAP: Final = 128
"""
So many bytes between two parts are sent rather than left out: to describe a part of its
own takes about as many.
"""

FAR_GAP: Final = 256 * 1024
"""
The same for a value that is not in a file: each part is a request to an engine.
"""


def gap_of(value: IValue) -> int:
    """
    How many bytes between two parts of a value are sent rather than left out.
    """
    return FAR_GAP if value.fileno() is None else NEAR_GAP


def can_be_cut(info: ValueInfo) -> bool:
    """
    Whether several parts of a value may be one body. Clients would decode that of a
    value with an encoding as a whole.
    """
    return not info.metadata.get("content-encoding")


class Parts(Source):
    """
    The body of a reply with several parts.
    """

    def __init__(
        self, value: IValue, ranges: Sequence[Range], guess: GuessType | None
    ) -> None:
        """
        Args:
            value: Is closed with this.
            ranges: The parts, at least one.
            guess: See `fields_of`.
        """
        self._value = value
        info = value.info
        # Nobody who stores a value knows it.
        boundary = os.urandom(16).hex()
        fields = fields_of(info, guess)
        kind = next(text for name, text in fields if name == "Content-Type")
        self._pending: deque[bytes | Range] = deque()
        line_end = ""
        for first, length in ranges:
            last = first + length - 1
            text = (
                f"{line_end}--{boundary}\r\nContent-Type: {kind}\r\n"
                f"Content-Range: bytes {first}-{last}/{info.size}\r\n\r\n"
            )
            self._pending += text.encode("latin-1"), (first, length)
            line_end = "\r\n"
        self._pending.append(f"\r\n--{boundary}--\r\n".encode("ascii"))
        self._part: ValueSource | None = None
        self.length = sum(
            len(each) if isinstance(each, bytes) else each[1] for each in self._pending
        )
        """Of the whole body, in bytes."""
        self.fields: Fields = [
            (name, f"multipart/byteranges; boundary={boundary}")
            if name == "Content-Type"
            else (name, text)
            for name, text in fields
        ]
        """Of the reply, except its length."""

    def has_more(self) -> bool:
        """
        See `Source`.
        """
        return bool(self._pending)

    def next_chunk(self) -> Answer[bytes]:
        """
        See `Source`.
        """
        if self._part is None:
            return self._text_from(b"")
        chunk = self._part.next_chunk()
        if isinstance(chunk, Deferred):
            return chunk.addCallback(self._taken)
        return self._taken(chunk)

    def _taken(self, chunk: bytes) -> bytes:
        assert self._part is not None
        if not self._part.remaining:
            self._part = None
        return chunk

    def _text_from(self, text: bytes) -> Answer[bytes]:
        """
        Text, and what stands behind it up to the next large part.
        """
        while self._pending and len(text) < CHUNK_BYTES:
            each = self._pending.popleft()
            if isinstance(each, bytes):
                text += each
                continue
            self._part = ValueSource(self._value, *each)
            if each[1] > CHUNK_BYTES:
                break
            chunk = self._part.next_chunk()
            if isinstance(chunk, Deferred):
                return chunk.addCallback(self._add, text)
            text += self._taken(chunk)
            if self._part is not None:
                break
        return text

    def _add(self, chunk: bytes, text: bytes) -> bytes:
        return text + self._taken(chunk)

    def file(self) -> FilePart | None:
        """
        See `Source`.
        """
        return None if self._part is None else self._part.file()

    def lose_file(self) -> bool:
        """
        See `Source`.
        """
        return self._part is not None and self._part.lose_file()

    def stream(self) -> Stream | None:
        """
        See `Source`.
        """
        stream = None if self._part is None else self._part.stream()
        if stream is None:
            return None

        def taken(count: int, ended: bool) -> None:
            stream.taken(count, ended)
            self._taken(b"")

        return Stream(stream.descriptor, stream.count, taken, stream.watch)

    def sent(self, count: int) -> None:
        """
        See `Source`.
        """
        assert self._part is not None
        self._part.sent(count)
        self._taken(b"")

    def close(self) -> None:
        """
        See `Source`.
        """
        self._value.close()
