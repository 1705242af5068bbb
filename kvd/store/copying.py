"""
Copies the bytes of an open value to an upload of the same store, in slices.

Where both are files, the kernel copies, and a file system that can share blocks (XFS,
Btrfs) copies none (copy_file_range(2)). A hard link would not do: a value's attribute
has its own entity tag, key and time.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from kvd.errors import StoreFault
from kvd.interfaces import IUpload, IValue
from kvd.store.waiting import resolved

SLICE_BYTES: Final = 1024 * 1024
"""
So much is copied in one turn of the reactor.
"""


async def copy_bytes(
    value: IValue,
    upload: IUpload,
    readahead: Callable[[int, int, int], Deferred[None] | None],
    clock: IReactorTime,
    part: tuple[int, int] | None = None,
) -> None:
    """
    Append all bytes of a value to an upload, or some.

    Args:
        value: Stays open.
        upload: Was begun with the size of what it will have; is neither committed nor
            discarded.
        readahead: See `kvd.net.readahead.Readahead.ensure`.
        clock: Lets the reactor do other work between two slices.
        part: The first byte, and how many; None: all of them.

    Raises:
        StoreFault: The value cannot be read, or the upload not be written.
    """
    offset, size = part or (0, value.info.size)
    end = offset + size
    while offset < end:
        count = min(SLICE_BYTES, end - offset)
        source = value.fileno()
        if source is not None:
            ahead = readahead(source, offset, count)
            if ahead is not None:
                await ahead
        copied = _copy_in_kernel(value.fileno(), upload.fileno(), offset, count)
        if not copied:
            chunk = await resolved(value.read(offset, count))
            if not chunk:
                raise StoreFault("the value ended before its length")
            await resolved(upload.write(chunk))
            copied = len(chunk)
        offset += copied
        if offset < end:
            await deferLater(clock, 0.0)


def _copy_in_kernel(
    source: int | None, target: int | None, offset: int, count: int
) -> int:
    """
    How many bytes the kernel has copied; 0: they have to be read and written, which
    also tells what is wrong.
    """
    if source is None or target is None:
        return 0
    try:
        return os.copy_file_range(source, target, count, offset_src=offset)
    except OSError:
        return 0
