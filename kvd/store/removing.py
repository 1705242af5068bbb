"""
Removes a value to make room, if it is still the one that was looked at.
"""

from __future__ import annotations

import os
from typing import Final

from kvd.model.keys import Key
from kvd.native import compiled
from kvd.store.folders import open_folder, split
from kvd.store.locks import KeyLocks, LockFile

STAYS: Final = -1

_native = compiled("_fast_path")


class Remover:
    """
    Removes values of one store.
    """

    def __init__(self, root: int, file: LockFile, locks: KeyLocks) -> None:
        """
        Args:
            root: The store's folder.
            file: The file of locks.
            locks: The locks in it.
        """
        self._root = root
        self._file = file
        self._locks = locks

    def remove(
        self, key: Key, inode: int, accessed_ns: int, from_ns: int, to_ns: int
    ) -> int:
        """
        Remove a value, under the lock of its key.

        Args:
            key: Its key.
            inode: The inode that it must have.
            accessed_ns: The access time that it must have.
            from_ns: Together with `to_ns`: a value that was published after the one
                time and not after the other stays.
            to_ns: See `from_ns`.

        Returns:
            The size of the value; `STAYS` if it is another one, or must stay, or its
            key is locked.

        Raises:
            OSError: It cannot be removed; see `is_absence`.
            Fault: The lock cannot be taken.
        """
        if _native is not None:
            removed: int | None = _native.remove_unchanged(
                self._root,
                self._file.descriptor,
                key,
                inode,
                accessed_ns,
                from_ns,
                to_ns,
            )
            if removed is not None:
                return removed
        # Without a C compiler, this does what ``kvd/native/remove.c`` does in one call;
        # also where the file of locks has to be opened anew.
        sizes: list[int] = []
        self._locks.hold_at_once(
            key,
            lambda: sizes.append(
                self._remove_locked(key, inode, accessed_ns, from_ns, to_ns)
            ),
        )
        return sizes[0] if sizes else STAYS

    def _remove_locked(
        self, key: Key, inode: int, accessed_ns: int, from_ns: int, to_ns: int
    ) -> int:
        parents, name = split(key)
        folder = open_folder(self._root, parents)
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if (status.st_ino, status.st_atime_ns) != (inode, accessed_ns) or (
                from_ns < status.st_mtime_ns <= to_ns
            ):
                return STAYS
            os.unlink(name, dir_fd=folder)
            return status.st_size
        finally:
            os.close(folder)
