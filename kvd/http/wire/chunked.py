"""
Chunked bodies (RFC 9112 section 7.1), read strictly: sizes are hexadecimal digits, and
every line ends with CRLF. Extensions and trailers are ignored, up to a limit.

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
from functools import lru_cache
from typing import Final

from kvd.errors import BadFraming, HeadTooLarge, PeerError
from kvd.settings import Limits

MAX_SIZE_LINE_BYTES: Final = 256
"""
The longest line with the size of a chunk and its extensions.
"""

LINE_BYTES_AT_ONCE: Final = 1024
"""
Chunks are joined until their size lines have this many bytes in all: 342 of the
smallest chunks, or five with as many extensions as possible. The former take a fifth of
a millisecond, the latter a twentieth; 342 of the latter would take four.
"""

LARGE_BYTES: Final = 16 * 1024
"""
A chunk of this size is given alone: copying it costs more than writing it does.
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


# Used for each chunk; a member of an enumeration takes ten times as long as a global.
_AT_SIZE: Final = _State.SIZE
_AT_DATA: Final = _State.DATA
_AT_CRLF: Final = _State.CRLF
_AT_TRAILER: Final = _State.TRAIL
_AT_END: Final = _State.END


class ChunkedBody:
    """
    Extracts a body from its chunks.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._state = _AT_SIZE
        self._left = 0
        self._trailer_bytes = 0
        self._trailers = 0
        self._error: PeerError | None = None

    @property
    def ended(self) -> bool:
        """
        The last chunk and the trailers have been seen.
        """
        return self._state is _AT_END

    def take(self, data: bytes, at: int) -> tuple[bytes, int]:
        """
        Take the next part of the body: the contents of the chunks that have arrived, up
        to `LINE_BYTES_AT_ONCE`, or of one large chunk.

        Args:
            data: Contains the chunks.
            at: Where to begin.

        Returns:
            The part, empty if the body has ended or needs more bytes; and where to
            begin the next time.

        Raises:
            BadFraming: These are not chunks.
            HeadTooLarge: The trailers exceed the limits of a head.
        """
        if self._error is not None:
            raise self._error
        pieces: list[bytes] = []
        try:
            at = self._take_pieces(data, at, pieces)
            if self._state is _AT_TRAILER:
                at = self._take_trailers(data, at)
        except PeerError as error:
            if not pieces:
                raise
            # First give the part before it.
            self._error = error
        return b"".join(pieces), at

    def _take_pieces(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        state, left = self._state, self._left
        line_bytes = 0
        try:
            while True:
                if state is _AT_SIZE:
                    if line_bytes >= LINE_BYTES_AT_ONCE:
                        break
                    end = data.find(b"\n", at, at + MAX_SIZE_LINE_BYTES + 1) + 1
                    if not end:
                        _check_unfinished_size(data, at)
                        break
                    left = _size_of(data[at:end])
                    line_bytes += end - at
                    at = end
                    if not left:
                        state = _AT_TRAILER
                        break
                    state = _AT_DATA
                if state is _AT_DATA:
                    size = min(left, len(data) - at)
                    if not size or (size >= LARGE_BYTES and pieces):
                        break
                    pieces.append(data[at : at + size])
                    at += size
                    left -= size
                    if left:
                        break
                    state = _AT_CRLF
                    if size >= LARGE_BYTES:
                        break
                if state is not _AT_CRLF:
                    break
                if data[at : at + 2] != b"\r\n":
                    _check_unfinished_end(data[at : at + 2])
                    break
                at += 2
                state = _AT_SIZE
        finally:
            self._state, self._left = state, left
        return at

    def _take_trailers(self, data: bytes, at: int) -> int:
        while True:
            bound = self._limits.head_bytes - self._trailer_bytes
            end = data.find(b"\n", at, at + bound + 1) + 1
            if not end:
                if _is_too_long(data, at, bound):
                    raise HeadTooLarge(
                        f"The trailers have more than {self._limits.head_bytes} bytes."
                    )
                return at
            line = _without_end(data[at:end])
            at = end
            if not line:
                self._state = _AT_END
                return at
            self._count_trailer(line)

    def _count_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        self._trailers += 1
        if self._trailers > self._limits.head_fields:
            raise HeadTooLarge(
                f"There are more than {self._limits.head_fields} trailers."
            )
        if not _TRAILER.fullmatch(line):
            raise BadFraming("A trailer is not a field: a name, a colon, a value.")


@lru_cache(maxsize=1024)
def _size_of(line: bytes) -> int:
    """
    The size in the line before a chunk. (Most lines repeat, and a lookup takes a tenth
    of the time.)
    """
    size = _without_end(line)
    matched = _SIZE.fullmatch(size)
    if matched is None:
        shown = size[:40].decode("ascii", "backslashreplace")
        if _DIGITS.match(size):
            raise BadFraming(
                f"{shown!r} is not the size of a chunk with extensions: each of them is"
                " a semicolon and a name, then perhaps an equals sign and a token"
                " or a quoted string."
            )
        raise BadFraming(
            f"{shown!r} is not the size of a chunk, which has 1 to 16 hexadecimal"
            " digits."
        )
    return int(matched[1], 16)


def _check_unfinished_end(end: bytes) -> None:
    if end not in (b"", b"\r"):
        raise BadFraming("A chunk is longer than its size: CRLF has to follow it.")


def _check_unfinished_size(data: bytes, at: int) -> None:
    if _is_too_long(data, at, MAX_SIZE_LINE_BYTES):
        raise BadFraming(
            f"A chunk's size line has more than {MAX_SIZE_LINE_BYTES} bytes."
        )


def _is_too_long(data: bytes, at: int, bound: int) -> bool:
    """
    Whether a line is longer than its limit, with no end so far.
    """
    line = data[at : at + bound + 1]
    # Only the LF of a last CR may be missing.
    if b"\r" in line[:-1]:
        raise BadFraming("A line of a chunked body ends with a bare CR.")
    return len(line) > bound


def _without_end(line: bytes) -> bytes:
    if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
        raise BadFraming("A line of a chunked body does not end with CRLF.")
    return line[:-2]
