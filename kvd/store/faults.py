"""
From the kernel's errors to kvd's: the one place where they change family.
"""

from __future__ import annotations

import errno
from typing import Final

from kvd.errors import Fault, KeyConflict, StoreExhausted, StoreFault, StoreFull
from kvd.model.keys import Key, escape

# No block, no inode, no quota; longer than a file may be (of the filesystem or
# by RLIMIT_FSIZE); more folders than a folder may hold.
_NO_ROOM: Final = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMLINK, errno.EOVERFLOW}
)

# No descriptor, of the process or the machine; no memory of the kernel's. They pass.
_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def fault_of(error: OSError, sentence: str) -> Fault:
    """
    What to raise from an error of the kernel.

    Args:
        error: What happened.
        sentence: What could not be done, without its full stop.
    """
    kind: type[Fault] = StoreFault
    if error.errno in _NO_ROOM:
        kind = StoreFull
    elif error.errno in _EXHAUSTED:
        kind = StoreExhausted
    return kind(f"{sentence}: {error.strerror}.")


def folder_conflict(key: Key) -> KeyConflict:
    """
    The key is a folder of other keys.
    """
    return KeyConflict(f"/{escape(key)} is a folder of other keys, not a value.")


def path_conflict(key: Key, way: bytes, what: str = "a value") -> KeyConflict:
    """
    The key leads through something that is no folder.

    Args:
        key: That cannot be.
        way: What is in its way; the beginning of the key.
        what: That is.
    """
    return KeyConflict(
        f"/{escape(key)} leads through /{escape(way)}, which is {what} and cannot be a"
        " folder."
    )
