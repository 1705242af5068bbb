"""
A record of connections: who came when, and what that cost which worker.

A file is a header and then one record of fixed size for each connection that
has ended, all little-endian:

======  =====  ===============================================================
header  bytes
======  =====  ===============================================================
0       8      ``kvd-rec`` and a line feed
8       2      the version of the format: 1
10      2      the size of a record: 40
12      28     zeroes
======  =====  ===============================================================

======  =====  ===============================================================
record  bytes
======  =====  ===============================================================
0       8      arrival, nanoseconds since the epoch
8       8      nanoseconds from the arrival to the end
16      8      nanoseconds in service: with a request in progress
24      8      bytes, in both directions
32      4      requests
36      2      the number of the worker
38      2      zeroes
======  =====  ===============================================================

All workers append to the same file, whole records only, each under a lock
(flock(2)), so a record may be left on for ever: when the file would become
longer than `MAX_BYTES`, it becomes ``FILE.1``, in place of an older one, and a
new one is begun. Records stand in the order in which they were written, not in
that of arrival.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from kvd.access_log import write_all
from kvd.errors import RecordUnusable
from kvd.gathering import Gathering

_HEADER: Final = struct.Struct("<8sHH28x")
_RECORD: Final = struct.Struct("<QQQQIHxx")
_BEGINNING: Final = _HEADER.pack(b"kvd-rec\n", 1, _RECORD.size)

MAX_BYTES: Final = 64 * 1024 * 1024
"""
1.6 million connections, and as many in the file before it.
"""


@dataclass(frozen=True, slots=True)
class Connection:
    """
    A connection that has ended.
    """

    arrived_ns: int
    """Since the epoch, by the clock of the machine."""
    open_ns: int
    """From its arrival to its end."""
    service_ns: int
    """In which it had a request in progress: from a complete head to the end of
    the reply. That contains what the worker did for others meanwhile, and what
    it waited for the client."""
    bytes: int
    """Received and sent, heads included."""
    requests: int
    worker: int


class Recorder(Gathering[Connection]):
    """
    What one worker adds to a record.
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
            worker: Whose connections these are.
            append: Writes whole records; may block.
            clock: When to write.
            off_reactor: Runs a function elsewhere.
        """
        super().__init__(
            "the record of connections",
            lambda connections: append(pack(connections)),
            clock,
            off_reactor,
        )
        self._worker = worker

    def ended(
        self, open_seconds: float, service_seconds: float, count: int, requests: int
    ) -> None:
        """
        A connection has ended just now.

        Args:
            count: Of its bytes.
        """
        open_ns = round(open_seconds * 1e9)
        self.note(
            Connection(
                time.time_ns() - open_ns,
                open_ns,
                round(service_seconds * 1e9),
                count,
                requests,
                self._worker,
            )
        )


def pack(connections: Sequence[Connection]) -> bytes:
    """
    Records as they stand in a file.
    """
    return b"".join(_RECORD.pack(*astuple(one)) for one in connections)


# -- writing ------------------------------------------------------------------


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
            if size == _HEADER.size or size + len(records) <= max_bytes:
                _extend(descriptor, size, records)
                return
            os.rename(path, f"{path}.1")
        append(records)

    return append


def check_record(path: str) -> None:
    """
    Begin a file, or see that it can be continued.

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
    The file of a name, with its header, and nobody else's meanwhile.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    while True:
        descriptor = os.open(path, flags, 0o640)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if not _is_at(path, descriptor):
                # Renamed while the lock was awaited.
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
    beginning = os.pread(descriptor, _HEADER.size, 0)
    if not beginning:
        write_all(descriptor, _BEGINNING)
    elif beginning != _BEGINNING:
        raise OSError(errno.EINVAL, "it holds something else than records")


def _extend(descriptor: int, size: int, records: bytes) -> None:
    # What a full disk cut short the last time would shift all that follows.
    whole = size - (size - _HEADER.size) % _RECORD.size
    if whole != size:
        os.ftruncate(descriptor, whole)
    write_all(descriptor, records)


# -- reading ------------------------------------------------------------------


def read_record(path: str) -> list[Connection]:
    """
    The connections of one file, in the order of their arrival. The end of a
    file that is just being written may be missing.

    Raises:
        RecordUnusable: It cannot be read, or is no record of this version.
    """
    try:
        with open(path, "rb") as file:
            beginning, records = file.read(_HEADER.size), file.read()
    except OSError as error:
        raise RecordUnusable(f"{path} cannot be read: {error.strerror}") from error
    if beginning != _BEGINNING:
        raise RecordUnusable(
            f"{path} is no record of connections, or one of another version of kvd"
        )
    whole = len(records) - len(records) % _RECORD.size
    found = [Connection(*fields) for fields in _RECORD.iter_unpack(records[:whole])]
    return sorted(found, key=lambda one: one.arrived_ns)
