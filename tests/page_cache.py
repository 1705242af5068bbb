"""
What the kernel has of a file in memory.
"""

from __future__ import annotations

import ctypes
import os
import time
from typing import Final

from tests.patience import PATIENCE_SECONDS

_CACHESTAT: Final = 451
"""
The number of cachestat(2), which Linux has since 6.5, on all kinds of processors.
"""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def cached_pages(descriptor: int) -> int:
    """
    How many pages of a file are in memory. To ask does not change that.
    """
    whole, counts = (ctypes.c_uint64 * 2)(0, 0), (ctypes.c_uint64 * 5)()
    if _libc.syscall(_CACHESTAT, descriptor, whole, counts, 0):
        error = ctypes.get_errno()
        raise OSError(error, f"cachestat(2): {os.strerror(error)}")
    return counts[0]


def evict(descriptor: int) -> None:
    """
    Leave a file on the disk alone, where all of it has been written.

    posix_fadvise(2) passes over pages that are in use at that moment, as those are that
    another processor has yet to put on its list.
    """
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        left = cached_pages(descriptor)
        if not left:
            return
        assert time.monotonic() < until, f"{left} pages stay in memory"
        time.sleep(0.001)
