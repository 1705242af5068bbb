"""
Whether a power cut has left a file its length, but not all of its content.

ext4 first writes where the content of a new file will be, and the length of the file,
then the content, and last that it is there. If the power goes between, the file has its
length, and reads as zeros. The file system knows: such parts of a file are
*unwritten*.

Zeros that were written are told from them, and so are holes, which a program leaves
that copies zeros sparsely (``cp --sparse``, ``rsync -S``). kvd itself makes neither
holes nor unwritten parts.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import Final

from kvd.store.exchange import finds_unwritten_parts

# _IOWR('f', 11, struct fiemap), and that struct: start, length, flags, mapped extents,
# room for how many; then the extents, whose flags are behind five numbers.
_FIEMAP: Final = 0xC020660B
_HEADER: Final = struct.Struct("=QQIIII")
_EXTENT: Final = struct.Struct("=QQQ16xI12x")
_AT_ONCE: Final = 64
_UNWRITTEN: Final = 0x800

_telling: Final[dict[int, bool]] = {}
"""
For each device, whether its file system `finds_unwritten_parts`. A store's device gets
no other file system while the store is open.
"""


def has_unwritten_parts(descriptor: int, status: os.stat_result) -> bool:
    """
    Whether a part of an open file was never written. Where the file system does not
    tell, it is not assumed.

    What is yet to be written from memory counts as written. Once somebody has read an
    unwritten part, this no longer finds it for a while: so look before you read.

    Args:
        descriptor: Of the file.
        status: Of the file.
    """
    device = status.st_dev
    if device not in _telling:
        _telling[device] = finds_unwritten_parts(descriptor)
    if not _telling[device] or not status.st_size:
        return False
    # One call suffices for nearly all files. It finds no hole in what is only in memory
    # or is just being written; of that, fiemap says that it is unwritten.
    begin = os.lseek(descriptor, 0, os.SEEK_HOLE)
    return _has_unwritten_extents(descriptor, begin, status.st_size)


def _has_unwritten_extents(descriptor: int, begin: int, end: int) -> bool:
    # Not behind the end of the file: there file systems keep room for what may come.
    while begin < end:
        room = bytearray(_HEADER.size + _AT_ONCE * _EXTENT.size)
        _HEADER.pack_into(room, 0, begin, end - begin, 0, 0, _AT_ONCE, 0)
        fcntl.ioctl(descriptor, _FIEMAP, room)
        *_, count, _, _ = _HEADER.unpack_from(room)
        for number in range(count):
            place = _HEADER.size + number * _EXTENT.size
            logical, _, length, flags = _EXTENT.unpack_from(room, place)
            if flags & _UNWRITTEN:
                return True
            begin = logical + length
        if count < _AT_ONCE:
            break
    return False
