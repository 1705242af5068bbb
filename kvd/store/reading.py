"""
Notes in the access time of a value's file that the value was read.

The kernel does that only now and then, depending on the mount options ``noatime`` and
``relatime``, so kvd does it itself where a limit evicts: when a value is opened whose
access time is older than the resolution (`kvd.store.usage`). So a value that is read
often costs one more system call in each such period, and nothing is counted or kept in
memory for it.

The time is `AHEAD_NS` ahead, as that of a new value (`kvd.store.epochs`), so that the
kernel with ``relatime`` does not set it again. It has no fraction, so the value belongs
to no epoch from then on.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from kvd.native import compiled
from kvd.store.epochs import AHEAD_SECONDS

AHEAD_NS: Final = AHEAD_SECONDS * 1_000_000_000

_UTIME_OMIT: Final = (1 << 30) - 2
_libc = ctypes.CDLL(None, use_errno=True)


def note_read_by_ctypes(file: int) -> None:
    """
    See `note_read`. Without a C compiler, this does what ``kvd/native/attribute.c``
    does.
    """
    seconds = int(time.time()) + AHEAD_SECONDS
    times = (ctypes.c_long * 4)(seconds, 0, 0, _UTIME_OMIT)
    _libc.futimens(file, times)


def is_stale_in_python(accessed: int, resolution: int, present: int, /) -> bool:
    """
    See `is_stale`. Without a C compiler, this does what ``kvd/native/attribute.c``
    does.
    """
    return resolution != 0 and accessed + resolution < present


_native = compiled("_fast_path")
note_read: Callable[[int], None] = (
    note_read_by_ctypes
    if _native is None
    else partial(_native.note_read, AHEAD_SECONDS)
)
"""
Set the access time of an open file to the present. An error, for example because the
file belongs to another user, is ignored: the value then counts as read less recently.
"""
is_stale: Callable[[int, int, int], bool] = (
    is_stale_in_python if _native is None else _native.is_stale
)
"""
Whether it is to be noted that a value was opened.

Args:
    accessed: Its access time, in seconds since the epoch.
    resolution: For how many seconds that is recent; 0: it is never noted.
    present: The present, in seconds since the epoch.
"""


def note_if_stale(file: int, status: os.stat_result, resolution_seconds: int) -> None:
    """
    Note that a value was opened for a client, unless its access time is recent.

    Args:
        file: Its open file.
        status: The status of the file.
        resolution_seconds: See `UsageMemory.resolution_seconds`.
    """
    accessed = status.st_atime_ns // 1_000_000_000
    if is_stale(accessed, resolution_seconds, int(time.time())):
        note_read(file)
