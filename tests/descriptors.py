"""
Whether a test has left descriptors open, whatever else happens in its process.
"""

from __future__ import annotations

import gc
import os


class Descriptors:
    """
    Counts descriptors of some kinds. Others may come and go meanwhile: a module that is
    loaded opens some, and so do other threads.
    """

    def __init__(self, *kinds: str) -> None:
        """
        Args:
            kinds: How what a descriptor leads to begins: a path, or a word of the
                kernel's such as ``pipe:``, ``socket:`` or ``anon_inode:bpf``.
        """
        self._kinds = kinds
        # What earlier tests have left is closed now, and not at some later moment.
        gc.collect()
        self._before = open_now(*kinds)

    @property
    def more(self) -> int:
        """
        How many more there are now than at first.
        """
        return open_now(*self._kinds) - self._before


def open_now(*kinds: str) -> int:
    """
    How many descriptors of some kinds this process has.
    """
    names = os.listdir("/proc/self/fd")
    return sum(_target(name).startswith(kinds) for name in names)


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        # That of the listing, or closed since by another thread.
        return ""
