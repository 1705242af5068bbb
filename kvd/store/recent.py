"""
A cache of small values that were read recently: kept open, and kept in memory.

Each read asks the file system whether the cached value is still the value of its key:
one call instead of five, and one more for each folder in the key, which must not be a
link. The cached value is current if the name still leads to the same inode, unchanged.
The number of an inode is not reused while a file is open, and kvd never writes to a
published file; if another program does, the file's times change.

Only values that kvd wrote are cached. A removed value can stay on the disk, without a
name, until other values displace it from the cache. On file systems that would give it
another name (NFS, FUSE), which would keep its folder from being removed, nothing is
cached.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable
from typing import Final, TypeAlias

from zope.interface import implementer

from kvd.interfaces import IValue
from kvd.model.keys import Key
from kvd.model.values import ValueInfo
from kvd.store.exchange import renames_removed_files
from kvd.store.value import FileValue

MAX_BYTES: Final = 16 * 1024
"""
The size of the largest cached value: for larger ones, opening costs little compared
with sending.
"""

MAX_VALUES: Final = 2048
"""
The most cached values. Each holds a descriptor; they use an eighth of the descriptors
of the process at most.
"""

MAX_TOTAL_BYTES: Final = 8 * 1024 * 1024
"""
The size of all cached values together.
"""

Identity: TypeAlias = tuple[int, int, int, int, int]


@implementer(IValue)
class RecentValue:
    """
    A value in memory, which several readers may share.
    """

    __slots__ = ("body", "info")

    def __init__(self, info: ValueInfo, body: bytes) -> None:
        self.info = info
        self.body = body

    def fileno(self) -> int | None:
        return None

    def read(self, offset: int, count: int) -> bytes:
        return self.body[offset : offset + count]

    def close(self) -> None:
        pass


class RecentValues:
    """
    The cache of a store.
    """

    def __init__(self, root: int) -> None:
        """
        Args:
            root: The store's folder; the caller closes it.
        """
        self._root = root
        self._values: dict[Key, tuple[Identity, int, RecentValue]] = {}
        self._bytes = 0
        self.forgotten: Callable[[Key], None] = lambda key: None
        """Called with each key whose value leaves the cache."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(MAX_VALUES, descriptors // 8)
        if renames_removed_files(root):
            self._most = 0

    def known(self, key: Key) -> tuple[Identity, RecentValue] | None:
        """
        The cached value of a key, and the identity of its file. The value may be
        outdated; it must not be used once it is `forgotten`.
        """
        kept = self._values.get(key)
        return None if kept is None else (kept[0], kept[2])

    def find(self, key: Key) -> RecentValue | None:
        """
        The value of a key, if it is cached and current.
        """
        kept = self._values.get(key)
        if kept is None:
            return None
        found = self._look(key)
        if found is not None and kept[0] == identity(found):
            return kept[2]
        self._forget(key)
        return None

    def _look(self, key: Key) -> os.stat_result | None:
        """
        The status of the file of a key, reached through folders without links; None if
        there is none.
        """
        end = key.find(b"/")
        try:
            while end >= 0:
                folder = os.stat(key[:end], dir_fd=self._root, follow_symlinks=False)
                if not stat.S_ISDIR(folder.st_mode):
                    return None
                end = key.find(b"/", end + 1)
            return os.stat(key, dir_fd=self._root, follow_symlinks=False)
        except OSError:
            return None

    def kept(self, key: Key, value: FileValue) -> RecentValue | FileValue:
        """
        Cache a value that was just opened, if it is small and kvd wrote it.

        Returns:
            The value to read from: the given one if it is not cached, else its cached
            form, which owns the descriptor.

        Raises:
            OSError: The value cannot be read.
        """
        size = value.info.size
        if not self._most or size > MAX_BYTES or not value.is_ours:
            return value
        descriptor = value.fileno()
        body = os.pread(descriptor, size + 1, 0)
        found = identity(value.status)
        # Another program may have written to the file after it was described.
        if len(body) != size or identity(os.fstat(descriptor)) != found:
            return value
        recent = RecentValue(value.info, body)
        self._values[key] = found, descriptor, recent
        self._bytes += size
        while len(self._values) > self._most or self._bytes > MAX_TOTAL_BYTES:
            # The oldest one.
            self._forget(next(iter(self._values)))
        return recent

    def _forget(self, key: Key) -> None:
        # First: once the descriptor is closed, another file can get the same inode.
        self.forgotten(key)
        _, descriptor, value = self._values.pop(key)
        self._bytes -= value.info.size
        os.close(descriptor)

    def close(self) -> None:
        """
        Empty the cache.
        """
        for key in list(self._values):
            self._forget(key)


def identity(status: os.stat_result) -> Identity:
    """
    What stays the same as long as a file is not touched.
    """
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
