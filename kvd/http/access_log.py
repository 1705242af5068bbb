"""
The access log: one line per request.

Entries are buffered (`kvd.log.buffered`), so no request waits for the file. They are
formatted when they are written (`kvd.http.access_formats`). The file is opened for each
write, so kvd never writes to a log that was rotated away.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from select import PIPE_BUF, POLLOUT, poll
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvd.errors import AccessLogUnusable
from kvd.http.wire.targets import without_user
from kvd.log.buffered import BufferedWriter, Lost
from kvd.model.requests import Request


class Sender(NamedTuple):
    """
    What is known of whoever sent a request, beside the address.
    """

    user: str | None = None
    """Who has proved to be one, by the request's credentials or a certificate."""
    minor: int = 1
    """The minor version of HTTP."""
    agent: str | None = None
    """``User-Agent``. Bytes that are not UTF-8 are surrogates (PEP 383)."""
    referer: str | None = None
    """``Referer``, likewise."""


NOBODY: Final = Sender()


def sender_of(request: Request, user: str | None) -> Sender:
    """
    What the head of a request says of its sender.

    Args:
        request: The head.
        user: Who has proved to be one.
    """
    fields = request.fields
    return Sender(
        user,
        request.minor,
        _text(fields.get(b"user-agent")),
        _text(fields.get(b"referer")),
    )


def key_of(target: bytes) -> str:
    """
    What an entry shows of the target of a request: not its query, nor its user.
    """
    # The wire has refused blanks, control bytes and bytes beyond ASCII.
    return without_user(target).partition(b"?")[0].decode("ascii")


def _text(value: bytes | None) -> str | None:
    # Browsers and scripts send UTF-8, if they send anything beyond ASCII.
    return None if value is None else value.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One finished request.
    """

    ended: float
    """Seconds since the epoch."""
    peer: str
    """The client: its address and port, or what a proxy said of it."""
    sender: Sender
    method: str
    key: str
    """Escaped; ``-`` where the request line was not understood."""
    status: int
    body_bytes: int
    """Of the body, received or sent."""
    seconds: float
    """From the complete head to the last byte of the reply that was written."""
    proxy: str | None = None
    """The address and port of the proxy that has forwarded the request."""


def append_to(path: str) -> Callable[[bytes], None]:
    """
    A function that appends whole lines to a file, or writes them to standard output
    for ``-``. It raises `Lost` if it cannot write all of them.
    """
    if path == "-":
        return _print

    def append(lines: bytes) -> None:
        descriptor = _open(path)
        try:
            if _ends_within_a_line(path, descriptor):
                lines = b"\n" + lines
            _write_lines(descriptor, lines)
        finally:
            os.close(descriptor)

    return append


def _ends_within_a_line(path: str, descriptor: int) -> bool:
    """
    Whether a full disk, or the kill of a process, has cut the last line of a file. The
    next line must not become a part of it.
    """
    status = os.fstat(descriptor)
    if not (stat.S_ISREG(status.st_mode) and status.st_size):
        return False
    try:
        # Whoever may append need not be allowed to read.
        reading = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        last = os.pread(reading, 1, os.fstat(reading).st_size - 1)
    except OSError:
        return False
    finally:
        os.close(reading)
    return last not in (b"\n", b"")


def _write_lines(descriptor: int, lines: bytes) -> None:
    written = 0
    try:
        for count in written_parts(descriptor, lines):
            written += count
    except OSError as error:
        raise Lost(lines.count(b"\n", written), error) from error


def _print(lines: bytes) -> None:
    """
    Write lines to standard output, which others write to as well.
    """
    written = 0
    try:
        for piece in in_pieces(lines):
            for count in written_parts(1, piece):
                written += count
    except OSError as error:
        raise Lost(lines.count(b"\n", written), error) from error


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
    for _ in written_parts(descriptor, data):
        pass


def written_parts(descriptor: int, data: bytes) -> Iterator[int]:
    """
    Write all of it, and tell after each call how many bytes it has written.
    """
    rest = memoryview(data)
    while rest:
        try:
            count = os.write(descriptor, rest)
            rest = rest[count:]
            yield count
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
        format_entry: Callable[[Entry, int], str],
        append: Callable[[bytes], None],
        clock: IReactorTime,
        off_reactor: Callable[[Callable[[], None]], Deferred[None]],
    ) -> None:
        """
        Args:
            worker: Whose requests these are.
            format_entry: Makes a line of an entry and the number of the worker; without
                a line end.
            append: Writes whole lines; may block. If it can write only some of them, it
                raises `Lost`.
            clock: When to write.
            off_reactor: Runs a function elsewhere.
        """

        def write(entries: list[Entry]) -> None:
            lines = [format_entry(entry, worker) for entry in entries]
            append(("\n".join(lines) + "\n").encode("ascii", "backslashreplace"))

        super().__init__("the access log", write, clock, off_reactor, _size)


def _size(entry: Entry) -> int:
    # The rest is short.
    sender = entry.sender
    return len(entry.key) + len(sender.agent or "") + len(sender.referer or "")
