"""
What a folder confers on what is created in it, and which folders kvd made.

A folder with the setgid bit gives its group, and one with a default access control
list gives that (acl(5)), which also decides about permissions in place of the umask.
Both pass on to the folders that are made in it. An administrator who makes a folder so
wants the values in it to be so, and wants the folder to stay when the last value is
removed. So kvd marks the folders that it makes, with an extended attribute that says
what they were like, and removes no others; a folder that has the mark and was given
another owner, mode or list since is the administrator's too.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final, NamedTuple
from zlib import crc32

_DEFAULT_LIST: Final = "system.posix_acl_default"

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_MARK: Final = "user.kvd"

_NONE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})

ALL_OF_A_FILE: Final = 0o666
ALL_OF_A_FOLDER: Final = 0o777
"""
What programs ask for: where there is a default list, it takes away.
"""


class Conferred(NamedTuple):
    """
    What a folder gives to a file that is created in it.
    """

    group: int | None
    """None: that of the process."""
    access: bytes
    """The default access control list; empty for none."""


def conferred(folder: int) -> Conferred:
    """
    What an open folder confers.
    """
    status = os.fstat(folder)
    group = status.st_gid if status.st_mode & stat.S_ISGID else None
    return Conferred(group, _default_list(folder))


def make_folder(folder: int, name: str | bytes, mode: int) -> int:
    """
    Make a folder in another, and open it; the caller closes it.

    Args:
        folder: Where it is made.
        name: Its name.
        mode: Its permissions, whatever the umask, unless `folder` has a default list.

    Raises:
        FileExistsError: There is something of this name.
        FileNotFoundError: It was removed again meanwhile.
        OSError: It cannot be made.
    """
    listed = bool(_default_list(folder))
    os.mkdir(name, ALL_OF_A_FOLDER if listed else mode, dir_fd=folder)
    try:
        inner = os.open(name, _FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise
    except OSError:
        # Mostly for want of descriptors: each request would leave another one.
        os.rmdir(name, dir_fd=folder)
        raise
    if not listed:
        os.fchmod(inner, mode | (os.fstat(inner).st_mode & stat.S_ISGID))
    return inner


def mark(folder: int) -> None:
    """
    Say of an open folder that kvd made it.
    """
    os.setxattr(folder, _MARK, _mark_of(folder))


def is_own(folder: int) -> bool:
    """
    Whether kvd made an open folder, and nobody has changed it since.
    """
    try:
        said = os.getxattr(folder, _MARK)
    except OSError as error:
        if error.errno in _NONE:
            return False
        raise
    return said == _mark_of(folder)


def is_plain(folder: int) -> bool:
    """
    Whether nothing but a name is lost with an empty folder: it confers nothing, and
    is this process's.
    """
    status = os.fstat(folder)
    return (status.st_uid, status.st_gid) == (
        os.geteuid(),
        os.getegid(),
    ) and conferred(folder) == Conferred(None, b"")


def _mark_of(folder: int) -> bytes:
    status = os.fstat(folder)
    return b"folder %o %d %d %x" % (
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        crc32(_default_list(folder)),
    )


def _default_list(folder: int) -> bytes:
    # Mostly there is none; to be told so by an exception takes three times as long.
    try:
        if _DEFAULT_LIST not in os.listxattr(folder):
            return b""
        return os.getxattr(folder, _DEFAULT_LIST)
    except OSError as error:
        if error.errno in _NONE:
            return b""
        raise
