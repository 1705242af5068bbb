"""
What a folder confers on files created in it, and which folders kvd made.

A folder with the setgid bit confers its group, and a folder with a default access
control list confers that list (acl(5)), which then determines permissions in place of
the umask. Folders created in it inherit both. An administrator who sets up a folder
like this expects the values in it to get these properties, and the folder to stay when
the last value is removed. So kvd marks the folders that it makes, with an extended
attribute that records their owner, mode and list, and prunes no other folders. A marked
folder whose owner, mode or list has changed since counts as the administrator's.

Where the file system keeps no extended attributes, folders cannot be marked. There kvd
prunes those that look like the ones that it makes: with the owner, mode and list of its
own folder ``.kvd``.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple, Protocol
from zlib import crc32

from kvd.native import compiled

HIDDEN_NAME: Final = ".kvd"
"""
Of kvd's own folder in the root; see `kvd.store.hidden`.
"""

_DEFAULT_LIST: Final = "system.posix_acl_default"

_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_MARK: Final = "user.kvd"

_NONE: Final = frozenset({errno.ENODATA, errno.EOPNOTSUPP})

ALL_OF_A_FILE: Final = 0o666
ALL_OF_A_FOLDER: Final = 0o777
"""
The modes that programs usually ask for; a default list restricts them.
"""


class Conferred(NamedTuple):
    """
    What a folder confers on a file that is created in it.
    """

    group: int | None
    """None: the group of the process."""
    access: bytes
    """The default access control list; empty for none."""


def default_list_in_python(folder: int, /) -> bytes:
    """
    See `default_list`. Without a C compiler, this does what ``kvd/native/folder.c``
    does.
    """
    # Usually there is none; to learn that from an exception takes three times as long.
    try:
        if _DEFAULT_LIST not in os.listxattr(folder):
            return b""
        return os.getxattr(folder, _DEFAULT_LIST)
    except OSError as error:
        if error.errno in _NONE:
            return b""
        raise


def conferred_in_python(folder: int, /) -> Conferred:
    """
    See `conferred`. Without a C compiler, this does what ``kvd/native/folder.c`` does.
    """
    status = os.fstat(folder)
    group = status.st_gid if status.st_mode & stat.S_ISGID else None
    return Conferred(group, default_list_in_python(folder))


def make_folder_in_python(folder: int, name: str | bytes, mode: int, /) -> int:
    """
    See `FolderMaker`. Without a C compiler, this does what ``kvd/native/folder.c``
    does.
    """
    listed = bool(default_list_in_python(folder))
    os.mkdir(name, ALL_OF_A_FOLDER if listed else mode, dir_fd=folder)
    try:
        inner = os.open(name, _FLAGS, dir_fd=folder)
    except FileNotFoundError:
        raise  # Another process has removed it.
    except OSError:
        unmake_folder(folder, name)
        raise
    if not listed:
        try:
            os.fchmod(inner, mode | (os.fstat(inner).st_mode & stat.S_ISGID))
        except OSError:
            os.close(inner)
            unmake_folder(folder, name)
            raise
    return inner


def unmake_folder(folder: int, name: str | bytes) -> None:
    """
    Remove a folder that was just made, because the next step has failed: usually no
    descriptor is free, and each request would leave another one behind.
    """
    with suppress(OSError):  # Another process may use it by now.
        os.rmdir(name, dir_fd=folder)


class FolderMaker(Protocol):
    """
    Makes a folder and opens it; the caller closes it.
    """

    def __call__(self, folder: int, name: str | bytes, mode: int, /) -> int:
        """
        Args:
            folder: The folder in which to make it.
            name: Its name.
            mode: Its permissions, whatever the umask, unless the folder around it has a
                default list.

        Raises:
            FileExistsError: The name exists.
            FileNotFoundError: The folder was removed again meanwhile.
            OSError: The folder cannot be made; nothing is left of it.
        """


_native = compiled("_fast_path")


def _conferred_compiled(folder: int, /) -> Conferred:
    assert _native is not None
    return Conferred(*_native.conferred(folder))


default_list: Callable[[int], bytes] = (
    default_list_in_python if _native is None else _native.default_list
)
"""
The default access control list of an open folder; empty for none.
"""
conferred: Callable[[int], Conferred] = (
    conferred_in_python if _native is None else _conferred_compiled
)
"""
What an open folder confers.
"""
make_folder: FolderMaker = (
    make_folder_in_python if _native is None else _native.make_folder
)
"""
The compiled one, where there is one.
"""


def mark(folder: int) -> None:
    """
    Mark an open folder as made by kvd, if the file system keeps marks.
    """
    try:
        os.setxattr(folder, _MARK, _mark_of(folder))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise


def is_own(folder: int, root: int | None = None) -> bool:
    """
    Whether kvd made an open folder and its owner, mode and list are unchanged.

    Args:
        folder: The folder.
        root: The store's folder. If it is given, a folder of a file system without
            marks counts as made by kvd if it looks like that.
    """
    try:
        found = os.getxattr(folder, _MARK)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP and root is not None:
            return _looks_own(folder, root)
        if error.errno in _NONE:
            return False
        raise
    return found == _mark_of(folder)


def _looks_own(folder: int, root: int) -> bool:
    try:
        hidden = os.open(HIDDEN_NAME, _FLAGS, dir_fd=root)
    except OSError:
        return False
    try:
        return _mark_of(hidden) == _mark_of(folder)
    finally:
        os.close(hidden)


def is_plain(folder: int) -> bool:
    """
    Whether an empty folder can be removed without loss: it confers nothing, and has the
    user and group of this process.
    """
    status = os.fstat(folder)
    return (status.st_uid, status.st_gid) == (
        os.geteuid(),
        os.getegid(),
    ) and conferred(folder) == Conferred(None, b"")


def _mark_of(folder: int) -> bytes:
    status = os.fstat(folder)
    return mark_text(status.st_mode, status.st_uid, status.st_gid, default_list(folder))


def mark_text_in_python(mode: int, user: int, group: int, access: bytes, /) -> bytes:
    """
    See `mark_text`. Without a C compiler, this does what ``kvd/native/folder.c`` does.
    """
    return b"folder %o %d %d %x" % (stat.S_IMODE(mode), user, group, crc32(access))


mark_text: Callable[[int, int, int, bytes], bytes] = (
    mark_text_in_python if _native is None else _native.mark_text
)
"""
The mark of a folder.

Args:
    mode: Its mode.
    user: The number of its owner.
    group: That of its group.
    access: Its default access control list; empty for none.
"""
