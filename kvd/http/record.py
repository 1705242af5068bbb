"""
A record of connections: when each arrived, and what it cost which worker.

A file is a header, followed by one record of fixed size for each connection that
ended. All numbers are little-endian.

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

Records are in the order in which they were written, not in that of arrival.
`kvd.http.recorder` writes them.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from kvd.errors import RecordUnusable

HEADER: Final = struct.Struct("<8sHH28x")
RECORD: Final = struct.Struct("<QQQQIHxx")
BEGINNING: Final = HEADER.pack(b"kvd-rec\n", 1, RECORD.size)


@dataclass(frozen=True, slots=True)
class Connection:
    """
    A connection that has ended.
    """

    arrived_ns: int
    """Since the epoch, by the clock of the machine when the daemon started. Setting it
    later makes no difference."""
    open_ns: int
    """From its arrival to its end."""
    service_ns: int
    """How long it had a request in progress: from a complete head to the end of the
    reply. That includes work for other connections, and waiting for the client."""
    bytes: int
    """Received and sent, heads included."""
    requests: int
    worker: int


def pack(connections: Sequence[Connection]) -> bytes:
    """
    Records as they are in a file.
    """
    return b"".join(
        RECORD.pack(
            one.arrived_ns,
            one.open_ns,
            one.service_ns,
            one.bytes,
            one.requests,
            one.worker,
        )
        for one in connections
    )


def read_record(path: str) -> list[Connection]:
    """
    The connections of one file, in the order of their arrival. An incomplete record at
    the end of the file is ignored: a worker may be writing it.

    Raises:
        RecordUnusable: The file cannot be read, or is not a record of this version.
    """
    try:
        with open(path, "rb") as file:
            beginning, records = file.read(HEADER.size), file.read()
    except OSError as error:
        raise RecordUnusable(f"{path} cannot be read: {error.strerror}") from error
    if beginning != BEGINNING:
        raise RecordUnusable(
            f"{path} is not a record of connections, or is from another version of kvd"
        )
    whole = len(records) - len(records) % RECORD.size
    found = [Connection(*fields) for fields in RECORD.iter_unpack(records[:whole])]
    return sorted(found, key=lambda one: one.arrived_ns)
