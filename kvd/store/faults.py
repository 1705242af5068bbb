"""
Converts errors of the kernel to exceptions of kvd.
"""

from __future__ import annotations

import errno
from typing import Final

from kvd.errors import (
    Fault,
    KeyAbsent,
    KeyConflict,
    StoreExhausted,
    StoreFault,
    StoreFull,
)
from kvd.model.keys import Key, escape

# No block, inode or quota; larger than a file may be (by the file system or by
# RLIMIT_FSIZE); more folders than a folder may hold.
_NO_ROOM: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMLINK, errno.EOVERFLOW}
)

# No descriptor, of the process or the machine; no memory of the kernel; no thread
# (`NoThread`). These pass.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def fault_of(error: OSError, sentence: str) -> Fault:
    """
    Return the exception to raise from an error of the kernel.

    Args:
        error: The error.
        sentence: What failed, without a full stop.
    """
    kind: type[Fault] = StoreFault
    if error.errno in _NO_ROOM:
        kind = StoreFull
    elif error.errno in _EXHAUSTED:
        kind = StoreExhausted
    return kind(f"{sentence}: {error.strerror}.")


def absence(key: Key) -> KeyAbsent:
    """
    Return the exception for a key without a value.
    """
    return KeyAbsent(f"/{escape(key)} has no value.")


def folder_conflict(key: Key) -> KeyConflict:
    """
    Return the exception for a key that is a folder of other keys.
    """
    return KeyConflict(f"/{escape(key)} is a folder of other keys, not a value.")


def path_conflict(key: Key, path: bytes, what: str = "a value") -> KeyConflict:
    """
    Return the exception for a key whose path contains something that is not a folder.

    Args:
        key: The key.
        path: The part of the key that is not a folder.
        what: What it is.
    """
    return KeyConflict(
        f"/{escape(key)} leads through /{escape(path)}, which is {what} and cannot be a"
        " folder."
    )
