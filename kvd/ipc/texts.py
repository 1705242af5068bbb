"""
Texts that may be too long for a message: each goes in a file in memory, whose
descriptor the message carries.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def in_memory(name: str, text: str) -> Iterator[int]:
    """
    A descriptor of a file with this text, which is closed afterwards.

    Args:
        name: Tells somebody who looks at a process what the descriptor is.
    """
    with open(os.memfd_create(name), "w+b") as file:
        file.write(text.encode("utf-8"))
        file.flush()
        yield file.fileno()


def read_text(descriptor: int) -> str:
    """
    The text in such a file. Several processes may read it at the same time, although
    they share its offset.
    """
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0).decode("utf-8")
