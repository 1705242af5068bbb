"""
Where a store keeps the attributes of its values: as extended attributes of their files,
or in sidecars (`kvd.store.sidecars`).

All processes that have a store open have to do the same: what one of them keeps in a
sidecar, another one does not find that looks for extended attributes. So it is decided
once, by who opens the store first, which is the supervisor. The store records it:
``.kvd/attributes`` is a folder if there are sidecars, and else a file without bytes.
Either is made in one step, and only where there is neither, so whoever decides at the
same time finds the record of the first. Whoever opens the store later asks nothing of
the file system, which may have a bad moment.

A store may come to another file system, by a copy or a mount:

- One with sidecars keeps them, also where there could be extended attributes: else all
  its values would lose what is in them.
- One without gets sidecars where there can be no extended attributes, which is decided
  only when a daemon starts (`settle`). A copy has no attributes there, and the log says
  so. A mount may bring them back: so where a value has no sidecar, its extended
  attribute counts if it has one.

Another program may remove the record with ``.kvd``. Then it is decided anew.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from typing import Final

from kvd.settings import DEFAULT_MODES, Modes
from kvd.store.conferring import make_folder
from kvd.store.hidden import open_hidden
from kvd.store.sidecars import SIDECARS_NAME

_FLAGS: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

# How often the record may appear, or another program remove the folder around it.
_TRIES: Final = 100

_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def keeps_attributes(file: int) -> bool:
    """
    Whether a file system keeps extended attributes of users: whether one that is set
    can be read back. It is removed again.

    Args:
        file: Open for writing, in that file system.

    Raises:
        OSError: That cannot be found out.
    """
    # Not another process's, which asks at the same time.
    name, content = f"user.kvd.probe.{secrets.token_hex(8)}", secrets.token_bytes(16)
    try:
        os.setxattr(file, name, content)
        try:
            return os.getxattr(file, name) == content
        finally:
            os.removexattr(file, name)
    except OSError as error:
        # Or it took what it does not keep.
        if error.errno in (errno.EOPNOTSUPP, errno.ENODATA):
            return False
        raise


def has_sidecars(root: int, file: int, modes: Modes = DEFAULT_MODES) -> bool:
    """
    Whether the attributes of values are in sidecars. If nobody has decided that yet,
    this does.

    Args:
        root: The store's folder.
        file: A file of kvd in it, open for writing.
        modes: Of the record, if it is made.

    Raises:
        OSError: That cannot be found out.
    """
    for _ in range(_TRIES):
        hidden = open_hidden(root, modes.folder)
        try:
            recorded = _recorded(hidden)
            return _decide(hidden, file, modes) if recorded is None else recorded
        except (FileExistsError, FileNotFoundError):
            continue
        finally:
            os.close(hidden)
    raise FileNotFoundError(errno.ENOENT, "another program removes it", SIDECARS_NAME)


def settle(root: int, file: int, modes: Modes = DEFAULT_MODES) -> bool:
    """
    Decide for sidecars in a store that has had extended attributes until now, if its
    file system keeps none any more; for when a daemon starts.

    Returns:
        Whether that was so: what its values had as extended attributes is not there.

    Raises:
        OSError: That cannot be found out, or not be done.
    """
    hidden = open_hidden(root, modes.folder)
    try:
        if _recorded(hidden) is not False or keeps_attributes(file):
            return False
        os.unlink(SIDECARS_NAME, dir_fd=hidden)
        os.close(make_folder(hidden, SIDECARS_NAME, modes.folder))
        return True
    finally:
        os.close(hidden)


def _recorded(hidden: int) -> bool | None:
    try:
        status = os.stat(SIDECARS_NAME, dir_fd=hidden, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return stat.S_ISDIR(status.st_mode)


def _decide(hidden: int, file: int, modes: Modes) -> bool:
    try:
        keeps = keeps_attributes(file)
    except OSError as error:
        # There was room once for the attributes of whatever is in the store. It is
        # decided when there is some again.
        if error.errno in _NO_ROOM:
            return False
        raise
    try:
        if keeps:
            os.close(os.open(SIDECARS_NAME, _FLAGS, modes.file, dir_fd=hidden))
        else:
            os.close(make_folder(hidden, SIDECARS_NAME, modes.folder))
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
    return not keeps
