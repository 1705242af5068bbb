"""
Looks at many files of a folder at once, most of which need no closer look.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple, Protocol, TypeAlias

from kvd.native import compiled
from kvd.store.candidates import Candidates
from kvd.store.usage import taken_by


class Notable(NamedTuple):
    """
    A file that needs a closer look.
    """

    name: bytes
    accessed_ns: int
    changed_ns: int
    inode: int
    taken: int


Looked: TypeAlias = tuple[int, int, list[Notable]]
"""
How many files there are, how many bytes they take, and those that are notable.
"""


class Look(Protocol):
    """
    Looks at files.
    """

    def __call__(
        self,
        folder: int,
        prefix: bytes,
        names: list[bytes],
        lists: tuple[Candidates, ...],
        expired_ns: int,
        future_ns: int,
        /,
    ) -> Looked:
        """
        Look at the files with these names. What is no file, or is gone, or cannot be
        looked at, is left out. Files that are not notable are remembered.

        Args:
            folder: The folder that they are in.
            prefix: The prefix of their keys.
            names: Their names.
            lists: What remembers them.
            expired_ns: A file is notable that was changed before this,
            future_ns: or accessed after this.
        """


def look_by_python(
    folder: int,
    prefix: bytes,
    names: list[bytes],
    lists: tuple[Candidates, ...],
    expired_ns: int,
    future_ns: int,
    /,
) -> Looked:
    """
    See `Look`. Without a C compiler, this does what ``kvd/native/look.c`` does.
    """
    values = taken = 0
    notable = []
    for name in names:
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            continue
        if not stat.S_ISREG(status.st_mode):
            continue
        bytes_taken = taken_by(status.st_size)
        values += 1
        taken += bytes_taken
        accessed_ns, changed_ns = status.st_atime_ns, status.st_mtime_ns
        if accessed_ns > future_ns or changed_ns < expired_ns:
            notable.append(
                Notable(name, accessed_ns, changed_ns, status.st_ino, bytes_taken)
            )
            continue
        for each in lists:
            each.remember(accessed_ns, status.st_ino, prefix + name)
    return values, taken, notable


_native = compiled("_fast_path")
look: Look = look_by_python if _native is None else _native.look_at
"""
The compiled one, where there is one.
"""
