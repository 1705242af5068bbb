"""
Removes values to make room, if they are still those that were looked at.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from kvd.errors import Fault
from kvd.native import compiled
from kvd.store.candidates import Candidate
from kvd.store.folders import open_folder, split
from kvd.store.keeping import has_sidecars
from kvd.store.locks import KeyLocks, LockFile
from kvd.store.sidecars import Sidecars
from kvd.store.usage import taken_by

STAYS: Final = -1

Removed: TypeAlias = int | OSError | Fault
"""
The size of a value that was removed; `STAYS` if it is another one, or must stay, or its
key is locked; or why it cannot be removed, which may be that it is gone.
"""


class Protected(NamedTuple):
    """
    Values that were published after the one time and not after the other stay.
    """

    from_ns: int
    to_ns: int


_native = compiled("_fast_path")


class Remover:
    """
    Removes values of one store.
    """

    def __init__(self, root: int, file: LockFile, locks: KeyLocks) -> None:
        """
        Args:
            root: The store's folder.
            file: The file of locks, opened for this alone.
            locks: The locks in it.
        """
        self._root = root
        self._file = file
        self._locks = locks
        self._sidecars = None
        if has_sidecars(root, file.descriptor):
            self._sidecars = Sidecars(root)

    def remove(
        self, candidates: list[Candidate], wanted: int, protected: Protected
    ) -> Sequence[Removed]:
        """
        Remove values in their order, each under the lock of its key, until those that
        were removed took so many bytes. A value with another inode or access time is
        another one, or was used since.

        Args:
            candidates: The values.
            wanted: How many bytes.
            protected: The values that stay.

        Returns:
            What came of the first of them: of one at least, if bytes are wanted.
        """
        if _native is not None and self._sidecars is None:
            done: list[int] | None = _native.remove_unchanged(
                self._root, self._file.descriptor, candidates, wanted, *protected
            )
            if done is not None:
                return [
                    size if size >= STAYS else OSError(STAYS - size, _reason(size))
                    for size in done
                ]
        # Without a C compiler, this does what ``kvd/native/remove.c`` does in one call;
        # also where the file of locks has to be opened anew, or cannot be locked, and
        # where attributes are in files of their own, which have to be removed too.
        removed: list[Removed] = []
        for candidate in candidates:
            if wanted <= 0:
                break
            one = self._remove(candidate, protected)
            removed.append(one)
            if isinstance(one, int) and one != STAYS:
                wanted -= taken_by(one)
        return removed

    def _remove(self, candidate: Candidate, protected: Protected) -> Removed:
        _, _, key = candidate
        sizes: list[int] = []
        act = partial(self._remove_locked, candidate, protected)
        try:
            self._locks.hold_at_once(key, lambda: sizes.append(act()))
        except (OSError, Fault) as error:
            return error
        return sizes[0] if sizes else STAYS

    def _remove_locked(self, candidate: Candidate, protected: Protected) -> int:
        *known, key = candidate
        parents, name = split(key)
        folder = open_folder(self._root, parents)
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if [status.st_atime_ns, status.st_ino] != known or (
                protected.from_ns < status.st_mtime_ns <= protected.to_ns
            ):
                return STAYS
            os.unlink(name, dir_fd=folder)
            if self._sidecars is not None:
                self._sidecars.remove(key, status)
            return status.st_size
        finally:
            os.close(folder)


def _reason(size: int) -> str:
    return os.strerror(STAYS - size)
