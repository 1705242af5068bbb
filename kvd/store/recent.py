"""
Small values that were read last: held open, and held in memory.

Whether one of them is still its key's value is asked of the file system each time:
one call instead of five, and one more for each folder that the key leads through, which
must be no link. What is kept is right if the name still leads to the same inode,
unchanged. An inode's number is not given to another file while the first is open, and
kvd never writes to a published file; should somebody else, its times tell.

What is kept is only what kvd wrote. A removed value can stay on the disk, nameless,
until something else takes its place here. Where the file system would give it another
name (NFS, FUSE), and so keep its folder from being removed, nothing is kept.
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
Of one value: for larger ones, opening costs little beside sending.
"""

MAX_VALUES: Final = 2048
"""
Each holds a descriptor. Where this process may have few, they take an eighth.
"""

MAX_TOTAL_BYTES: Final = 8 * 1024 * 1024
"""
Of all of them.
"""

Identity: TypeAlias = tuple[int, int, int, int, int]


@implementer(IValue)
class RecentValue:
    """
    A value in memory. Several readers may have it.
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
    The values that were read last.
    """

    def __init__(self, root: int) -> None:
        """
        Args:
            root: The store's folder; stays the caller's.
        """
        self._root = root
        self._values: dict[Key, tuple[Identity, int, RecentValue]] = {}
        self._bytes = 0
        self.forgotten: Callable[[Key], None] = lambda key: None
        """Called with each key whose value is kept no longer."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = min(MAX_VALUES, descriptors // 8)
        if renames_removed_files(root):
            self._most = 0

    def known(self, key: Key) -> tuple[Identity, RecentValue] | None:
        """
        What is kept under a key, and of which file: it need not be its value any
        more. It must not be taken for it once it is `forgotten`.
        """
        kept = self._values.get(key)
        return None if kept is None else (kept[0], kept[2])

    def find(self, key: Key) -> RecentValue | None:
        """
        The value of a key, if it is kept and still its value.
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
        What a key leads to, through folders alone; None for nothing.
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
        Keep a value that was just opened, if it is small and kvd's own.

        Returns:
            What to read from: the value itself if it is not kept, else what
            took it over.

        Raises:
            OSError: It cannot be read.
        """
        size = value.info.size
        if not self._most or size > MAX_BYTES or not value.is_ours:
            return value
        descriptor = value.fileno()
        body = os.pread(descriptor, size + 1, 0)
        found = identity(value.status)
        # Somebody may have written to it after it was described.
        if len(body) != size or identity(os.fstat(descriptor)) != found:
            return value
        recent = RecentValue(value.info, body)
        self._values[key] = found, descriptor, recent
        self._bytes += size
        while len(self._values) > self._most or self._bytes > MAX_TOTAL_BYTES:
            # The one that was read first.
            self._forget(next(iter(self._values)))
        return recent

    def _forget(self, key: Key) -> None:
        # First: once the descriptor is closed, another file can be the same inode.
        self.forgotten(key)
        _, descriptor, value = self._values.pop(key)
        self._bytes -= value.info.size
        os.close(descriptor)

    def close(self) -> None:
        """
        Keep nothing.
        """
        for key in list(self._values):
            self._forget(key)


def identity(status: os.stat_result) -> Identity:
    """
    What is the same of a file as long as nobody touches it.
    """
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
