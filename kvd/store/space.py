"""
Whether a store in a folder can take a value now, and how much room its disk has.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvd.native import compiled

PROBE_BYTES: Final = 4096
"""
What is written to find out whether the disk takes it.
"""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)

# Where the file system cannot make a file without a name, what it says of itself has to
# do.
_NO_NAMELESS: Final = (errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL)


def room_beside_in_python(
    min_free: int, available: int, unit: int, blocks: int, /
) -> int | None:
    """
    See `room_beside`. Without a C compiler, this does what ``kvd/native/publish.c``
    does.
    """
    # A tmpfs without a limit reports that it has no blocks at all.
    return available * unit - min_free if blocks else None


_native = compiled("_fast_path")
room_beside: Callable[[int, int, int, int], int | None] = (
    room_beside_in_python if _native is None else _native.room_beside
)
"""
How many bytes a file system has room for, beside those that stay free; below 0: so many
of these are missing. None: it has no limit.

Args:
    min_free: How many bytes stay free.
    available: How many blocks are free (statvfs(3)).
    unit: How many bytes a block has.
    blocks: How many there are.
"""


@dataclass(frozen=True, slots=True)
class Space:
    """
    The file system of a store.
    """

    complaint: str
    """Why the store cannot take a value, in a sentence; empty: it can."""
    free_bytes: int | None = None
    """What this user may still use; None: unknown."""
    bytes: int | None = None
    free_inodes: int | None = None
    """How many files can still be made; None: unknown, or it has no such limit."""
    inodes: int | None = None


def look_at(folder: int, min_free: int = 0, evicts: bool = False) -> Space:
    """
    Look at the file system of a store, and write to it. Blocks, for as long as the disk
    does.

    Args:
        folder: A descriptor of the store's folder.
        min_free: How many bytes stay free.
        evicts: Whether the store makes room by removing values: then a full disk is
            none of its faults.
    """
    try:
        if os.fstat(folder).st_nlink == 0:
            return Space("The folder of the store has been removed.")
        system = os.fstatvfs(folder)
        free = system.f_bavail * system.f_frsize
        complaint = ""
        if system.f_flag & os.ST_RDONLY:
            complaint = "The file system of the store is read-only."
        elif free < min_free and not evicts:
            complaint = (
                f"The disk of the store is full: {free} bytes are free, and {min_free}"
                " of them stay so (--min-free)."
            )
        else:
            complaint = _write(folder, evicts)
    except OSError as error:
        return Space(f"The store cannot be used: {error.strerror}.")
    has_inodes = system.f_files > 0
    return Space(
        complaint,
        free,
        system.f_blocks * system.f_frsize,
        system.f_favail if has_inodes else None,
        system.f_files if has_inodes else None,
    )


def _write(folder: int, evicts: bool) -> str:
    try:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, dir_fd=folder)
    except OSError as error:
        return "" if error.errno in _NO_NAMELESS else _complaint(error, evicts)
    try:
        if os.write(file, b"\0" * PROBE_BYTES) < PROBE_BYTES:
            return _complaint(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), evicts)
    except OSError as error:
        return _complaint(error, evicts)
    finally:
        os.close(file)
    return ""


def _complaint(error: OSError, evicts: bool) -> str:
    if error.errno in _FULL:
        return "" if evicts else f"The disk of the store is full: {error.strerror}."
    return f"The store cannot be written: {error.strerror}."
