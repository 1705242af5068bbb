"""
Chunked bodies (RFC 9112 section 7.1), strictly: sizes are hexadecimal digits,
every line ends with CRLF. Extensions and trailers are read past, within bounds.

====== ============================ ======
state  needs                        next
====== ============================ ======
SIZE   a line: size, extensions     DATA, TRAILERS after size 0
DATA   the chunk's bytes            CRLF
CRLF   CRLF                         SIZE
TRAIL  lines up to an empty one     END
END    nothing
====== ============================ ======
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from kvd.errors import BadFraming, HeadTooLarge
from kvd.settings import Limits

MAX_SIZE_LINE_BYTES: Final = 256
"""
The size of a chunk with its extensions. Who sends more wastes our time.
"""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = (
    rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
)
_EXTENSION: Final = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (
    _TOKEN,
    _TOKEN,
    _QUOTED,
)
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:" + _EXTENSION + rb")*")
_DIGITS: Final = re.compile(rb"[0-9A-Fa-f]{1,16}(?=[ \t]*;)")
_TRAILER: Final = re.compile(_TOKEN + rb":[\t\x20-\x7e\x80-\xff]*")


class _State(Enum):
    SIZE = auto()
    DATA = auto()
    CRLF = auto()
    TRAIL = auto()
    END = auto()


class ChunkedBody:
    """
    Takes a body out of a buffer, piece by piece.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _State.SIZE
        self._left = 0
        self._searched = 0
        self._trailer_bytes = 0
        self._trailers = 0

    @property
    def ended(self) -> bool:
        """
        The last chunk and the trailers have been seen.
        """
        return self._state is _State.END

    def take(self, buffer: bytearray) -> bytes | None:
        """
        The next piece of the body, removed from the buffer's beginning.

        Returns:
            Some bytes of a chunk; None when the body has ended or needs more.

        Raises:
            BadFraming: These are no chunks.
            HeadTooLarge: The trailers exceed the limits of a head.
        """
        while True:
            if self._state is _State.DATA:
                return self._take_data(buffer)
            if self._state is _State.END:
                return None
            line = self._take_line(buffer)
            if line is None:
                return None
            if self._state is _State.SIZE:
                self._begin_chunk(line)
            elif self._state is _State.CRLF:
                if line:
                    raise BadFraming(
                        "A chunk is longer than its size: CRLF has to follow it."
                    )
                self._state = _State.SIZE
            else:
                self._take_trailer(line)

    def _take_data(self, buffer: bytearray) -> bytes | None:
        if not buffer:
            return None
        data = bytes(memoryview(buffer)[: self._left])
        del buffer[: len(data)]
        self._left -= len(data)
        if not self._left:
            self._state = _State.CRLF
        return data

    def _take_line(self, buffer: bytearray) -> bytes | None:
        end = buffer.find(b"\n", self._searched)
        bound = self._line_bound()
        if end < 0:
            # Only a last CR may wait for its LF.
            if b"\r" in buffer[:-1]:
                raise BadFraming("A line of a chunked body ends with a bare CR.")
            if len(buffer) > bound:
                self._refuse_length()
            self._searched = len(buffer)
            return None
        if end > bound:
            self._refuse_length()
        line = bytes(buffer[: end + 1])
        del buffer[: end + 1]
        self._searched = 0
        if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
            raise BadFraming("A line of a chunked body does not end with CRLF.")
        return line[:-2]

    def _line_bound(self) -> int:
        if self._state is _State.TRAIL:
            return self._limits.head_bytes - self._trailer_bytes
        if self._state is _State.CRLF:
            return 1
        return MAX_SIZE_LINE_BYTES

    def _refuse_length(self) -> None:
        if self._state is _State.TRAIL:
            raise HeadTooLarge(
                f"The trailers have more than {self._limits.head_bytes} bytes."
            )
        if self._state is _State.CRLF:
            raise BadFraming("A chunk is longer than its size: CRLF has to follow it.")
        raise BadFraming(
            f"A chunk's size line has more than {MAX_SIZE_LINE_BYTES} bytes."
        )

    def _begin_chunk(self, line: bytes) -> None:
        matched = _SIZE.fullmatch(line)
        if matched is None:
            shown = line[:40].decode("ascii", "backslashreplace")
            if _DIGITS.match(line):
                raise BadFraming(
                    f"{shown!r} is no size of a chunk with extensions: each of them is"
                    " a semicolon and a name, then perhaps an equals sign and a token"
                    " or a quoted string."
                )
            raise BadFraming(
                f"{shown!r} is no size of a chunk: 1 to 16 hexadecimal digits are."
            )
        self._left = int(matched[1], 16)
        self._state = _State.DATA if self._left else _State.TRAIL

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self._state = _State.END
            return
        self._trailer_bytes += len(line) + 2
        self._trailers += 1
        if self._trailers > self._limits.head_fields:
            raise HeadTooLarge(
                f"There are more than {self._limits.head_fields} trailers."
            )
        if not _TRAILER.fullmatch(line):
            raise BadFraming("A trailer is no field: a name, a colon, a value.")
