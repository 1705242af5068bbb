"""
The access log: one line per request.

Entries are buffered (`kvd.log.buffered`), so no request waits for the file. They are
formatted when they are written. The file is opened for each write, so kvd never writes
to a log that was rotated away.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from select import PIPE_BUF, POLLOUT, poll
from typing import Final
from urllib.parse import quote

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvd.errors import AccessLogUnusable
from kvd.log.buffered import BufferedWriter

_PLAIN: Final = "@!$&'()*+,;:=/"
"""
Of the names of users, beside letters, digits and the characters that `quote` keeps.
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One finished request.
    """

    ended: float
    """Seconds since the epoch."""
    peer: str
    user: str | None
    """Who has proved to be one, by the request's credentials or a certificate."""
    method: str
    key: str
    """Escaped; ``-`` where the request line was not understood."""
    status: int
    body_bytes: int
    """Of the body, received or sent."""
    seconds: float
    """From the complete head to the last byte of the reply that was written."""


def format_entry(entry: Entry, worker: int) -> str:
    """
    One line without a line end. Blanks separate the fields, and no field contains one.
    """
    ended = datetime.fromtimestamp(entry.ended, UTC)
    return (
        f"{ended:%Y-%m-%dT%H:%M:%S}.{ended.microsecond // 1000:03d}Z"
        f" worker={worker} {entry.peer} {_escaped(entry.user)}"
        f" {entry.method} {entry.key}"
        f" {entry.status} {entry.body_bytes} {entry.seconds:.6f}"
    )


def _escaped(user: str | None) -> str:
    """
    A user, percent-encoded where the name is not one word of ASCII; ``-`` for none.
    """
    if user is None:
        return "-"
    return "%2D" if user == "-" else quote(user, safe=_PLAIN)


def append_to(path: str) -> Callable[[bytes], None]:
    """
    A function that appends whole lines to a file, or writes them to standard output
    for ``-``.
    """
    if path == "-":
        return _print

    def append(lines: bytes) -> None:
        descriptor = _open(path)
        try:
            write_all(descriptor, lines)
        finally:
            os.close(descriptor)

    return append


def _print(lines: bytes) -> None:
    """
    Write lines to standard output, which others write to as well.
    """
    for piece in in_pieces(lines):
        write_all(1, piece)


def in_pieces(lines: bytes) -> Iterator[bytes]:
    """
    Split lines into pieces that a pipe takes whole (pipe(7)), so that they are not
    mixed with what other processes write. A line that is longer is a piece of its own.
    """
    begin, size = 0, len(lines)
    while begin < size:
        end = size
        if size - begin > PIPE_BUF:
            end = lines.rfind(b"\n", begin, begin + PIPE_BUF) + 1
            end = end or lines.index(b"\n", begin) + 1
        yield lines[begin:end]
        begin = end


def _open(path: str, more_flags: int = 0) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    return os.open(path, flags | more_flags, 0o640)


def check_access_log(path: str) -> None:
    """
    Create the file, or check that it can be appended to. ``-`` passes unless standard
    output is closed. A named pipe passes, even if nothing reads it yet.

    Raises:
        AccessLogUnusable: It cannot.
    """
    if path == "-":
        if sys.__stdout__ is None:
            # Another file may have its descriptor by now.
            raise AccessLogUnusable(
                "the access log cannot be written to standard output (-), which is"
                " closed; name a file instead"
            )
        return
    try:
        # Without O_NONBLOCK, opening a pipe waits for its reader.
        os.close(_open(path, os.O_NONBLOCK))
    except OSError as error:
        if error.errno == errno.ENXIO and stat.S_ISFIFO(os.stat(path).st_mode):
            return
        raise AccessLogUnusable(
            f"the access log {path} cannot be written: {error.strerror}"
        ) from error


def write_all(descriptor: int, data: bytes) -> None:
    """
    Write all of it, in as many calls as that takes.
    """
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            # Another process has made the pipe non-blocking.
            writable = poll()
            writable.register(descriptor, POLLOUT)
            writable.poll()


class AccessLog(BufferedWriter[Entry]):
    """
    The lines of one worker, in the order in which its requests ended. The lines of
    several workers alternate in the file, but a line is never split.
    """

    def __init__(
        self,
        worker: int,
        append: Callable[[bytes], None],
        clock: IReactorTime,
        off_reactor: Callable[[Callable[[], None]], Deferred[None]],
    ) -> None:
        """
        Args:
            worker: Whose requests these are.
            append: Writes whole lines; may block.
            clock: When to write.
            off_reactor: Runs a function elsewhere.
        """

        def write(entries: list[Entry]) -> None:
            lines = [format_entry(entry, worker) for entry in entries]
            append(("\n".join(lines) + "\n").encode("ascii", "backslashreplace"))

        super().__init__("the access log", write, clock, off_reactor, _size)


def _size(entry: Entry) -> int:
    # The rest is short.
    return len(entry.key)
