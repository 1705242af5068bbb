"""
Writing a record of connections (`kvd.http.record`).

All workers append whole records to the same file, under a lock (flock(2)). Recording
can be left on for ever: when the file would become longer than `MAX_BYTES`, it is
renamed to ``FILE.1``, replacing an older one, and a new file is begun.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvd.errors import RecordUnusable
from kvd.http.access_log import write_all
from kvd.http.record import BEGINNING, HEADER, RECORD, Connection, pack
from kvd.log.buffered import BufferedWriter

MAX_BYTES: Final = 64 * 1024 * 1024
"""
1.6 million connections, and as many in the file before it.
"""


class Ended(NamedTuple):
    """
    A connection that has ended.
    """

    ended_ns: int
    """By the monotonic clock."""
    open_seconds: float
    service_seconds: float
    """How long it had a request in progress."""
    bytes: int
    """Received and sent, heads included."""
    requests: int


class Recorder(BufferedWriter[Connection]):
    """
    The connections of one worker, on their way into the record.
    """

    def __init__(
        self,
        worker: int,
        append: Callable[[bytes], None],
        clock: IReactorTime,
        off_reactor: Callable[[Callable[[], None]], Deferred[None]],
        epoch_ns: int,
    ) -> None:
        """
        Args:
            worker: Whose connections these are.
            append: Writes whole records; may block.
            clock: When to write.
            off_reactor: Runs a function elsewhere.
            epoch_ns: See `Scoreboard.epoch_ns`.
        """
        super().__init__(
            "the record of connections",
            lambda connections: append(pack(connections)),
            clock,
            off_reactor,
        )
        self._worker = worker
        self._epoch_ns = epoch_ns

    def ended(
        self, open_seconds: float, service_seconds: float, count: int, requests: int
    ) -> None:
        """
        A connection has ended just now; see `Ended`.
        """
        now = time.monotonic_ns()
        end = Ended(now, open_seconds, service_seconds, count, requests)
        self.note(self._connection(end))

    def note_ends(self, ends: Sequence[Ended]) -> None:
        """
        These have ended, as was collected.
        """
        self.note_all([self._connection(end) for end in ends])

    def _connection(self, end: Ended) -> Connection:
        open_ns = round(end.open_seconds * 1e9)
        return Connection(
            # Not the time of day: if the clock were set, the arrivals would be
            # out of order, or have gaps, when the record is replayed.
            self._epoch_ns + end.ended_ns - open_ns,
            open_ns,
            round(end.service_seconds * 1e9),
            end.bytes,
            end.requests,
            self._worker,
        )


def record_to(path: str, max_bytes: int = MAX_BYTES) -> Callable[[bytes], None]:
    """
    A function that appends whole records to a file.

    Args:
        path: Of the file; a second one is this with ``.1``.
        max_bytes: How long the file may become.
    """

    def append(records: bytes) -> None:
        with _locked(path) as descriptor:
            size = os.fstat(descriptor).st_size
            if size == HEADER.size or size + len(records) <= max_bytes:
                _extend(descriptor, size, records)
                return
            os.rename(path, f"{path}.1")
        append(records)

    return append


def check_record(path: str) -> None:
    """
    Create the file, or check that it can be appended to.

    Raises:
        RecordUnusable: It cannot.
    """
    try:
        with _locked(path):
            pass
    except OSError as error:
        raise RecordUnusable(
            f"{path} cannot be recorded to: {error.strerror}"
        ) from error


@contextmanager
def _locked(path: str) -> Iterator[int]:
    """
    Open the file, with its header, and lock it.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    while True:
        descriptor = os.open(path, flags, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(path, descriptor):
                # It was renamed during the wait for the lock.
                continue
            _check_header(descriptor)
            yield descriptor
            return
        finally:
            os.close(descriptor)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _check_header(descriptor: int) -> None:
    beginning = os.pread(descriptor, HEADER.size, 0)
    if not beginning:
        write_all(descriptor, BEGINNING)
    elif beginning != BEGINNING:
        raise OSError(errno.EINVAL, "it contains something other than records")


def _extend(descriptor: int, size: int, records: bytes) -> None:
    # A full disk may have cut the last record short, which would shift those after it.
    whole = size - (size - HEADER.size) % RECORD.size
    if whole != size:
        os.ftruncate(descriptor, whole)
    write_all(descriptor, records)
