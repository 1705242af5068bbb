"""
Files as values.

Other programs may put anything below the root: links are not followed, FIFOs and
devices must not block, and all of these count as absent. So does a *torn* value, whose
length differs from the one in its attribute, or of which a part was never written
(`kvd.store.unwritten`): at durability ``process`` a power cut can leave such files, and
to show them would break the promise that a value is wholly there or absent.

A file without the attribute comes from another program, and a file whose time differs
from the one in its attribute was changed by another program: both are *foreign*, as is
a file with an attribute that kvd does not write. The entity tag of a foreign file is
made of its inode, size and time, the best that is available, and it has no metadata. A
power cut that tears a value does not change its time, so a torn value is not taken for
a foreign one.
"""

from __future__ import annotations

import errno
import os
from typing import Final, NamedTuple

from twisted.logger import Logger
from zope.interface import implementer

from kvd.errors import StoreFault
from kvd.interfaces import IValue
from kvd.model.keys import Key, escape
from kvd.model.values import ValueInfo
from kvd.store import attribute
from kvd.store.faults import fault_of
from kvd.store.sidecars import Sidecars
from kvd.store.unwritten import has_unwritten_parts

READ_FLAGS: Final = (
    os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
)
"""
With which a file of any type is opened for reading, without blocking; also by
`kvd.http.fast_path`.
"""

# Nothing there; below a file; a link; a name longer than the file system permits; a
# socket or a device without a driver.
_ABSENT: Final = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENXIO,
        errno.ENODEV,
    }
)

_NO_ATTRIBUTE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})

EARLIEST: Final = -62135596800
LATEST: Final = 253402300799
"""
The first second of the year 1 and the last of the year 9999, the range of an HTTP date.
The times of foreign files are limited to it.
"""

_log = Logger()


def is_absence(error: OSError) -> bool:
    """
    Whether an error from opening a value only means that there is none.
    """
    return error.errno in _ABSENT


def open_file(folder: int, name: bytes) -> int:
    """
    Open a file of any type for reading, without blocking.

    Raises:
        OSError: See `is_absence`.
    """
    return os.open(name, READ_FLAGS, dir_fd=folder)


class Described(NamedTuple):
    """
    The description of an open file.
    """

    info: ValueInfo
    is_ours: bool
    """Whether kvd wrote the file, and no other program has changed it since."""
    status: os.stat_result


def describe(descriptor: int, key: Key, sidecars: Sidecars | None) -> Described | None:
    """
    Describe an open file as the value of a key; return None if it is not a value, or if
    it is torn, which is logged.

    Args:
        descriptor: The descriptor of the file.
        key: The key.
        sidecars: Where its attribute is; None: in the file system.
    """
    status = os.fstat(descriptor)
    text, changed_ns = None, status.st_mtime_ns
    if sidecars is not None:
        text = sidecars.read(key, status)
    if text is None:
        text = _attribute_of(descriptor)
    else:
        # All of it is in the sidecar's name; the attribute has microseconds.
        changed_ns -= changed_ns % 1000
    time = divmod(changed_ns, 1_000_000_000)
    kind = attribute.kind_of(text, status.st_mode, status.st_size, *time)
    if kind == attribute.NO_VALUE:
        return None
    if text is None or kind == attribute.FOREIGN:
        return Described(_foreign(key, status), False, status)
    record = attribute.decode(text)
    if kind == attribute.TORN:
        _log.warn(
            "/{key} counts as absent: it has {size} bytes and was written with"
            " {expected}; a power cut may have torn it",
            key=escape(key),
            size=status.st_size,
            expected=record.size,
        )
        return None
    if has_unwritten_parts(descriptor, status):
        _log.warn(
            "/{key} counts as absent: it has all {size} bytes, but some were never"
            " written; a power cut has torn it",
            key=escape(key),
            size=status.st_size,
        )
        return None
    published_us = record.published_us
    changed = _nearest(
        status.st_mtime if published_us is None else published_us / 1_000_000
    )
    info = ValueInfo(key, record.size, record.etag, changed, record.metadata)
    return Described(info, True, status)


def _attribute_of(descriptor: int) -> bytes | None:
    """
    The attribute that a file has itself; None if it has none.
    """
    try:
        return os.getxattr(descriptor, attribute.NAME)
    except OSError as error:
        if error.errno in _NO_ATTRIBUTE:
            return None
        raise


def _foreign(key: Key, status: os.stat_result) -> ValueInfo:
    etag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return ValueInfo(key, status.st_size, etag, _nearest(status.st_mtime))


def _nearest(changed: float) -> float:
    if EARLIEST <= changed <= LATEST:
        return changed
    return EARLIEST if changed < EARLIEST else LATEST


@implementer(IValue)
class FileValue:
    """
    A value of the file store: an open file.
    """

    __slots__ = ("_descriptor", "info", "is_ours", "status")

    def __init__(self, descriptor: int, described: Described) -> None:
        """
        Args:
            descriptor: The descriptor of the file; this object closes it.
            described: The description of the file.
        """
        self._descriptor = descriptor
        self.info, self.is_ours, self.status = described

    def fileno(self) -> int:
        return self._descriptor

    def read(self, offset: int, count: int) -> bytes:
        try:
            chunk = os.pread(self._descriptor, count, offset)
        except OSError as error:
            raise fault_of(error, f"{self._name} cannot be read") from error
        if not chunk:
            raise StoreFault(f"{self._name} was cut short while it was read.")
        return chunk

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    @property
    def _name(self) -> str:
        return f"The value of /{escape(self.info.key)}"
