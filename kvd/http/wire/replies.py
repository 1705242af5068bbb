"""
Replies to bytes.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import Final

from kvd.native import compiled

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

NO_SNIFFING: Final = ("X-Content-Type-Options", "nosniff")
"""
In each reply with a body: the browser believes the type, and does not guess another,
such as that of a page or a script.
"""

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus} | {
    413: "Content Too Large",
    414: "URI Too Long",
    416: "Range Not Satisfiable",
}
_LINES: Final = {
    status: f"HTTP/1.1 {status} {reason}\r\nDate: "
    for status, reason in _REASONS.items()
}
# What four digits of a year can say.
_FIRST_SECOND: Final = -62135596800
_LAST_SECOND: Final = 253402300799
_INJECTION: Final = re.compile(r"[\r\n\0]")


class _Clock:
    """
    The current time as an HTTP date, formatted once a second.
    """

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self) -> str:
        """
        Now.
        """
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = http_date(second)
        return self._text


@lru_cache(1024)
def date_text_in_python(second: int, /) -> str:
    """
    See `date_text`. Without a C compiler, this does what ``kvd/native/reply.c`` does.
    """
    if not _FIRST_SECOND <= second <= _LAST_SECOND:
        raise ValueError(f"second {second} is in none of the years 1 to 9999")
    # It takes five microseconds, and popular values are read again and again.
    return formatdate(second, usegmt=True)


_native: Final = compiled("_fast_path")
date_text: Final[Callable[[int], str]] = (
    date_text_in_python if _native is None else _native.date_text
)
"""
A second since the epoch, in the format of RFC 9110 section 5.6.7. Raises `ValueError`
outside of the years 1 to 9999.
"""


def http_date(seconds: float) -> str:
    """
    A time in seconds since the epoch, in the format of RFC 9110 section 5.6.7.
    """
    return date_text(int(seconds))


_CLOCK: Final = _Clock()


def with_length(
    status: int, fields: Sequence[tuple[str, str]], length: int
) -> list[tuple[str, str]]:
    """
    The fields of a reply with the length of its body, unless the status rules that out
    (RFC 9110 section 8.6).
    """
    if status in (204, 304):
        return list(fields)
    return [*fields, ("Content-Length", str(length))]


def reply_head(
    status: int, fields: Sequence[tuple[str, str]], *, close: bool, minor: int
) -> bytes:
    """
    The head of a reply, up to and including its blank line.

    Args:
        status: A registered status.
        fields: Names and values, in their order. ``Date`` and ``Connection`` are added.
        close: The connection ends with this reply.
        minor: The minor version of the request. The reply to an HTTP/1.0 client states
            whether the connection stays.

    Raises:
        ValueError: A value would end its line.
    """
    rest = _behind_date(fields, close, minor)
    return (_LINES[status] + _CLOCK.text() + rest).encode("latin-1")


def reply_parts(
    status: int, fields: Sequence[tuple[str, str]], *, close: bool, minor: int
) -> tuple[bytes, bytes]:
    """
    The parts of `reply_head` before the date and after it.
    """
    rest = _behind_date(fields, close, minor)
    return _LINES[status].encode("ascii"), rest.encode("latin-1")


def _behind_date(fields: Sequence[tuple[str, str]], close: bool, minor: int) -> str:
    rest = ""
    for name, value in fields:
        rest += f"\r\n{name}: {value}"
    if close:
        rest += "\r\nConnection: close"
    elif minor == 0:
        rest += "\r\nConnection: keep-alive"
    lines = len(fields) + (close or minor == 0)
    if not rest.count("\r") == rest.count("\n") == lines or "\0" in rest:
        # The sources of values are checked too, so this is a mistake of kvd.
        bad = [name for name, value in fields if _INJECTION.search(value)]
        raise ValueError(f"the value of a field contains a line end: {', '.join(bad)}")
    return rest + "\r\n\r\n"


def problem(status: int, sentence: str) -> bytes:
    """
    The body of a refusal: ``application/problem+json`` (RFC 9457).
    """
    return (
        json.dumps(
            {
                "type": "about:blank",
                "title": _REASONS[status],
                "status": status,
                "detail": sentence,
            }
        ).encode("ascii")
        + b"\n"
    )


def chunk(data: bytes) -> bytes:
    """
    One chunk of a chunked body (RFC 9112 section 7.1). It must not be empty, because an
    empty chunk is the last one.
    """
    assert data
    return b"%x\r\n%b\r\n" % (len(data), data)
