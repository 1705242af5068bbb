"""
Chooses the call that replaces an older value by a finished upload.

``rename`` works everywhere. But when a rename replaces a file, ext4 flushes the blocks
of the new file (its option ``auto_da_alloc``). kvd does not need this write: at
durability ``disk`` the file was synced before, and at ``process`` the replaced file is
kept until the new one is synced (`kvd.store.writeback`). An exchange of the two names
(``RENAME_EXCHANGE``), followed by the removal of the old file, has the same result
without it. CPU time of a publication of 4 KiB, storage calls only, in one interleaved
run each (Linux 6.18, medians of four):

==========================  ==========  ===================
file system                 ``rename``  exchange and remove
==========================  ==========  ===================
ext4 without a journal      163 µs      124 µs
ext4                        58 µs       53 µs
xfs                         41 µs       46 µs
btrfs                       87 µs       94 µs
tmpfs                       17 µs       20 µs
==========================  ==========  ===================
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Final

from kvd.native import compiled

_EXT4_SUPER_MAGIC: Final = 0xEF53
_XFS_SUPER_MAGIC: Final = 0x58465342
_BTRFS_SUPER_MAGIC: Final = 0x9123683E
_TMPFS_MAGIC: Final = 0x01021994
_RAMFS_MAGIC: Final = 0x858458F6
_NFS_SUPER_MAGIC: Final = 0x6969
_FUSE_SUPER_MAGIC: Final = 0x65735546
_RENAME_EXCHANGE: Final = 2

# struct statfs begins with the magic number of the file system, a long; it has 120
# bytes on 64-bit machines.
_Statfs: Final = ctypes.c_char * 256

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_char_p)
_libc.renameat2.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_uint,
)


def exchange_is_cheaper(folder: int) -> bool:
    """
    Whether `exchange_names` is cheaper than a rename in the file system of a folder.
    """
    return _magic_of(folder) == _EXT4_SUPER_MAGIC


def reports_unwritten_parts(folder: int) -> bool:
    """
    Whether the file system of a folder reports which parts of a file were never written
    (`kvd.store.unwritten`).
    """
    return _magic_of(folder) in (_EXT4_SUPER_MAGIC, _XFS_SUPER_MAGIC)


def is_of_one_machine(folder: int) -> bool:
    """
    Whether only one machine can have the file system of a folder mounted, so that all
    processes see the same times of a file.
    """
    return _magic_of(folder) in (
        _EXT4_SUPER_MAGIC,
        _XFS_SUPER_MAGIC,
        _BTRFS_SUPER_MAGIC,
    )


def is_on_a_disk(folder: int) -> bool:
    """
    Whether the file system of a folder survives a power cut.
    """
    return _magic_of(folder) not in (_TMPFS_MAGIC, _RAMFS_MAGIC)


def renames_removed_files(folder: int) -> bool:
    """
    Whether a file that is removed while it is open may stay in its folder under another
    name until it is closed (`kvd.model.keys.is_leftover`).
    """
    return _magic_of(folder) in (_NFS_SUPER_MAGIC, _FUSE_SUPER_MAGIC)


def magic_by_ctypes(folder: int) -> int:
    """
    The magic number of the file system of a folder (statfs(2)); 0 if it is unknown.

    Without a C compiler, this does what ``kvd/native/folder.c`` does.
    """
    found = _Statfs()
    if _libc.fstatfs(folder, found):
        return 0
    return ctypes.c_long.from_buffer(found).value


_native = compiled("_fast_path")
_magic_of: Callable[[int], int] = (
    magic_by_ctypes if _native is None else _native.magic_of
)
"""
The compiled one, where there is one: a first call through ctypes takes 0.08 MiB of each
worker (pages that it no longer shares).
"""


def exchange_by_ctypes(
    folder: int, name: bytes, other_folder: int, other_name: bytes, /
) -> None:
    """
    See `exchange_names`. Without a C compiler, this does what ``kvd/native/place.c``
    does.
    """
    if _libc.renameat2(folder, name, other_folder, other_name, _RENAME_EXCHANGE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name, None, other_name)


exchange_names: Callable[[int, bytes, int, bytes], None] = (
    exchange_by_ctypes if _native is None else _native.exchange_names
)
"""
Exchange two names in one atomic step, so that neither is ever missing
(``RENAME_EXCHANGE``, Linux 3.15, see rename(2)). The call exchanges a file with a
folder too: the caller makes sure that both are files.

Args:
    folder: The folder of the one name.
    name: This name.
    other_folder: The folder of the other.
    other_name: The other name.

Raises:
    OSError: One of them does not exist, or the file system does not support it.
"""
