"""
One file seen as a value.

What is opened here may be anything that somebody else put below the root: a
link is not followed, a FIFO or device must not block, and all of these count
as absent. So does a *torn* value, whose length is not the one that its
attribute promises: at durability ``process`` a power cut can leave such files
(ext4 then shows length 0), and showing them would break the promise that a
value is wholly there or absent.

A file without the attribute was placed by others; its entity tag is made of
its inode, size and time, which is the best that there is.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from twisted.logger import Logger
from zope.interface import implementer

from kvd.errors import StoreFault
from kvd.interfaces import IValue, ValueInfo
from kvd.keys import Key, escape
from kvd.store import attribute
from kvd.store.faults import fault_of

_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

# Nothing there; through a file; a link; longer than the filesystem has names;
# a socket or a device that has no driver.
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

_log = Logger()


def is_absence(error: OSError) -> bool:
    """
    Whether an error on the way to a value says no more than that there is none.
    """
    return error.errno in _ABSENT


def open_file(folder: int, name: bytes) -> int:
    """
    Open whatever has the name, for reading, without waiting for anybody.

    Raises:
        OSError: See `is_absence`.
    """
    return os.open(name, _FLAGS, dir_fd=folder)


def describe(descriptor: int, key: Key) -> tuple[ValueInfo, bool] | None:
    """
    What an open file says of itself as the value of a key, and whether kvd wrote
    it; None if it is no value, or a torn one, which is logged.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        return None
    try:
        raw = os.getxattr(descriptor, attribute.NAME)
    except OSError as error:
        if error.errno not in _NO_ATTRIBUTE:
            raise
        etag = f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"
        return ValueInfo(key, status.st_size, etag, status.st_mtime), False
    try:
        record = attribute.decode(raw)
    except attribute.MalformedAttribute as error:
        _log.warn("/{key} counts as absent: {reason}", key=escape(key), reason=error)
        return None
    if record.size != status.st_size:
        _log.warn(
            "/{key} counts as absent: it has {size} bytes and was written with"
            " {expected}; a power cut may have torn it",
            key=escape(key),
            size=status.st_size,
            expected=record.size,
        )
        return None
    info = ValueInfo(key, record.size, record.etag, status.st_mtime, record.metadata)
    return info, True


@implementer(IValue)
class FileValue:
    """
    A value of the file store: an open file.
    """

    __slots__ = ("_descriptor", "info", "is_ours")

    def __init__(self, descriptor: int, info: ValueInfo, *, is_ours: bool) -> None:
        """
        Args:
            descriptor: Of the file; owned by this.
            info: What the file says of itself.
            is_ours: Whether kvd wrote it; else somebody may be writing to it.
        """
        self._descriptor = descriptor
        self.info = info
        self.is_ours = is_ours

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
