"""
Readahead: the bytes of a file are in memory before ``sendfile`` sends them.

Otherwise ``sendfile`` waits for the disk, and with it the reactor and all other
connections. A read that does not wait (``RWF_NOWAIT``, preadv2(2), Linux 4.14) tests
whether they are; if not, a thread reads the part into the page cache before it is sent.
So a slow disk slows only the clients that read from it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Final

from twisted.internet.defer import Deferred

from kvd.native import compiled

OffReactor = Callable[[Callable[[], None]], Deferred[None]]

PIECE_BYTES: Final = 256 * 1024
"""
How much is read at once; what is read is thrown away.
"""


def is_in_memory_in_python(descriptor: int, offset: int, count: int, /) -> bool:
    """
    See `is_in_memory`. Without a C compiler, this does what ``kvd/native/file.c`` does.
    """
    # The end first: reading ahead has mostly brought the beginning.
    return _has_in_memory(descriptor, offset + count - 1) and _has_in_memory(
        descriptor, offset
    )


def _has_in_memory(descriptor: int, offset: int) -> bool:
    try:
        os.preadv(descriptor, [bytearray(1)], offset, os.RWF_NOWAIT)
    except BlockingIOError:
        return False
    except OSError:
        # A file system that cannot report it, such as tmpfs, which is in memory; or a
        # failure, and sending fails too.
        pass
    return True


_native = compiled("_fast_path")
is_in_memory: Callable[[int, int, int], bool] = (
    is_in_memory_in_python if _native is None else _native.is_in_memory
)
"""
Whether a part of a file seems to be in memory: its two ends are. So it seems where the
kernel does not say it.

Args:
    descriptor: Of the file.
    offset: Where the part begins.
    count: How long it is; more than 0.
"""


class Readahead:
    """
    Reads parts of files ahead, in threads.
    """

    def __init__(self, off_reactor: OffReactor) -> None:
        self._off_reactor = off_reactor

    def ensure(self, descriptor: int, offset: int, count: int) -> Deferred[None] | None:
        """
        Have a part of a file in memory. No promise: the kernel may need the memory for
        something else the next moment.

        Args:
            descriptor: Of a regular file. It may be closed meanwhile.
            offset: Where the part begins.
            count: How long it is; more than 0.

        Returns:
            None if it seems to be in memory already; else fires when it has been read,
            or could not be: then sending it fails too.

        Raises:
            NoThread: Sending it could wait for the disk, but no thread can.
        """
        if is_in_memory(descriptor, offset, count):
            return None
        return self._off_reactor(partial(_read, descriptor, offset, count))


def _read(descriptor: int, offset: int, count: int) -> None:
    buffer = bytearray(min(count, PIECE_BYTES))
    end = offset + count
    while offset < end:
        try:
            got = os.preadv(descriptor, [buffer], offset)
        except OSError:
            # Closed meanwhile, or broken: sending it fails too.
            return
        if not got:
            return
        offset += got
