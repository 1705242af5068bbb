"""
One line for each request, written off the request's path.

A request costs an append to a list. Twice a second the list is formatted and
written in a thread, by a file opened for that write alone, so that a log which
was rotated away is never written to.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

FLUSH_SECONDS: Final = 0.5

# Lines that wait for a disk which takes none cost memory.
MAX_WAITING: Final = 100_000


@dataclass(frozen=True, slots=True)
class Entry:
    """
    What is told of one request.
    """

    ended: float
    """Seconds since the epoch."""
    peer: str
    method: str
    key: str
    """Escaped; ``-`` where the request was not understood."""
    status: int
    body_bytes: int
    """Of the body, in whichever direction it went."""
    seconds: float
    """From the complete head to the last byte of the reply that was written."""


def format_entry(entry: Entry, worker: int) -> str:
    """
    One line, without its end: blanks separate, and no field has any.
    """
    ended = datetime.fromtimestamp(entry.ended, UTC)
    return (
        f"{ended:%Y-%m-%dT%H:%M:%S}.{ended.microsecond // 1000:03d}Z"
        f" worker={worker} {entry.peer} {entry.method} {entry.key}"
        f" {entry.status} {entry.body_bytes} {entry.seconds:.6f}"
    )


def append_to(path: str) -> Callable[[bytes], None]:
    """
    A function that appends to a file, or writes to standard output for ``-``.
    """

    def append(lines: bytes) -> None:
        if path == "-":
            _write_all(1, lines)
            return
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o640)
        try:
            _write_all(descriptor, lines)
        finally:
            os.close(descriptor)

    return append


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class AccessLog:
    """
    Gathers entries and writes them now and then.

    Lines of one worker stand in the order in which the requests ended; those
    of several workers are interleaved, never mixed within a line. A worker
    that is killed loses what it gathered in the last half second.
    """

    _log = Logger()

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
        self._worker = worker
        self._append = append
        self._clock = clock
        self._off_reactor = off_reactor
        self._waiting: list[Entry] = []
        self._dropped = 0
        self._scheduled = False
        self._failed = False

    def note(self, entry: Entry) -> None:
        """
        Take one entry.
        """
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(entry)
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(FLUSH_SECONDS, self._flush)

    def _flush(self) -> None:
        entries, self._waiting = self._waiting, []
        self._off_reactor(lambda: self._write(entries)).addBoth(self._flushed)

    def _flushed(self, result: Failure | None) -> None:
        # One write at a time, so that lines keep their order.
        if isinstance(result, Failure):
            self._complain(result.value)
        else:
            self._failed = False
        if self._dropped:
            self._log.warn(
                "{dropped} lines of the access log were dropped: its file takes"
                " them too slowly",
                dropped=self._dropped,
            )
            self._dropped = 0
        self._scheduled = bool(self._waiting)
        if self._scheduled:
            self._clock.callLater(FLUSH_SECONDS, self._flush)

    def _complain(self, error: BaseException | None) -> None:
        if not self._failed:
            self._failed = True
            self._log.warn(
                "the access log cannot be written, its lines are lost: {error}",
                error=error,
            )

    def _write(self, entries: list[Entry]) -> None:
        lines = [format_entry(entry, self._worker) for entry in entries]
        self._append(("\n".join(lines) + "\n").encode("ascii", "backslashreplace"))

    def stop(self) -> None:
        """
        Write what waits, in this thread.
        """
        entries, self._waiting = self._waiting, []
        if entries:
            try:
                self._write(entries)
            except OSError as error:
                self._complain(error)
