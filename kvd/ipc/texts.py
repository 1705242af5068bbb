"""
Texts that may be too long for a message: each goes in a file in memory, whose
descriptor the message carries.
"""

from __future__ import annotations

import os
from io import FileIO


def in_memory(name: str, text: str) -> FileIO:
    """
    A file with this text, which the caller closes.

    Args:
        name: Tells somebody who looks at a process what the descriptor is.

    Raises:
        OSError: There is no room for it.
    """
    file = FileIO(os.memfd_create(name), "w")
    try:
        left = memoryview(text.encode("utf-8"))
        while left:
            # Linux writes at most 2 GiB at a time (write(2)).
            left = left[file.write(left) or 0 :]
    except BaseException:
        file.close()
        raise
    return file


def read_text(descriptor: int) -> str:
    """
    The text in such a file. Several processes may read it at the same time, although
    they share its offset.
    """
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode("utf-8")
