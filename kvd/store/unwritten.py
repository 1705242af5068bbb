"""
Detects files that have their length, but lost some of their content in a power cut.

ext4 first records where the content of a new file will be, and the length of the file,
then writes the content, and last records that it is there. If the power is cut in
between, the file has its length, and reads as zeros. The file system marks such parts
of a file as *unwritten*.

Zeros that were written are not unwritten parts, nor are holes, which programs leave
when they copy zeros sparsely (``cp --sparse``, ``rsync -S``). kvd itself makes neither
holes nor unwritten parts.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable
from typing import Final

from kvd.native import compiled
from kvd.store.exchange import reports_unwritten_parts

# _IOWR('f', 11, struct fiemap), and that struct: start, length, flags, mapped extents,
# room for how many; then the extents, whose flags follow five numbers.
_FIEMAP: Final = 0xC020660B
_HEADER: Final = struct.Struct("=QQIIII")
_EXTENT: Final = struct.Struct("=QQQ16xI12x")
_AT_ONCE: Final = 64
_UNWRITTEN: Final = 0x800
_DELAYED: Final = 0x4

_reporting: Final[dict[int, bool]] = {}
"""
For each device, whether its file system `reports_unwritten_parts`. The file system on a
store's device does not change while the store is open.
"""


def has_unwritten_parts(descriptor: int, status: os.stat_result) -> bool:
    """
    Whether a part of an open file was never written; False if the file system does not
    report it.

    Content that is still only in memory counts as written. Once a program has read an
    unwritten part, this function does not find it for a while: so call it before
    reading.

    Args:
        descriptor: The descriptor of the file.
        status: The status of the file.
    """
    device = status.st_dev
    if device not in _reporting:
        _reporting[device] = reports_unwritten_parts(descriptor)
    if not _reporting[device]:
        return False
    # One call suffices for nearly all files. It finds no hole in content that is only
    # in memory or just being written, which fiemap reports as unwritten.
    begin = first_hole(descriptor, status.st_size)
    return _has_unwritten_extents(descriptor, begin, status.st_size)


def first_hole_in_python(descriptor: int, size: int, /) -> int:
    """
    See `first_hole`. Without a C compiler, this does what ``kvd/native/value.c`` does.
    """
    return min(os.lseek(descriptor, 0, os.SEEK_HOLE), size) if size else 0


def has_no_place_in_python(descriptor: int, size: int, /) -> bool:
    """
    See `has_no_place`. Without a C compiler, this does what ``kvd/native/place.c``
    does.
    """
    if not size:
        return False
    try:
        extents = _extents(descriptor, size - 1, size, 1)
    except OSError:
        return False
    return any(flags & _DELAYED for _, flags in extents)


_native = compiled("_fast_path")
first_hole: Callable[[int, int], int] = (
    first_hole_in_python if _native is None else _native.first_hole
)
"""
Where the first hole in an open file begins, or an unwritten part, which file systems
report as one; its size, if there is none.

Args:
    descriptor: The descriptor of the file.
    size: The size of the file.

Raises:
    OSError: The file system does not say it.
"""
has_no_place: Callable[[int, int], bool] = (
    has_no_place_in_python if _native is None else _native.has_no_place
)
"""
Whether the last byte of an open file has no place on the disk yet, so that the file is
not whole there; False if the file system does not report it.

Some file systems (ext4, XFS, btrfs) choose the place of new content only when they
write it, from its beginning to its end.

Args:
    descriptor: The descriptor of the file.
    size: The size of the file.
"""


def _has_unwritten_extents(descriptor: int, begin: int, end: int) -> bool:
    # Not after the end of the file, where file systems reserve room.
    while begin < end:
        extents = _extents(descriptor, begin, end, _AT_ONCE)
        if any(flags & _UNWRITTEN for _, flags in extents):
            return True
        if len(extents) < _AT_ONCE:
            break
        begin, _ = extents[-1]
    return False


def _extents(
    descriptor: int, begin: int, end: int, at_once: int
) -> list[tuple[int, int]]:
    """
    The first extents of a part of a file: where each ends, and its flags.
    """
    room = bytearray(_HEADER.size + at_once * _EXTENT.size)
    _HEADER.pack_into(room, 0, begin, end - begin, 0, 0, at_once, 0)
    fcntl.ioctl(descriptor, _FIEMAP, room)
    *_, count, _, _ = _HEADER.unpack_from(room)
    offsets = (_HEADER.size + number * _EXTENT.size for number in range(count))
    found = (_EXTENT.unpack_from(room, offset) for offset in offsets)
    return [(logical + length, flags) for logical, _, length, flags in found]
