"""
Where control sockets are, unless an operator chooses.

Whoever can change a folder can put a socket there that answers in a daemon's place, or
takes what a daemon is told. In ``/tmp`` anybody can make a folder of any name first. So
the daemon and the commands use a folder only if it is this user's alone.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Sequence
from typing import Final

from kvd.errors import AddressUnusable, ControlUnusable

FOLDER_MODE: Final = 0o700


def control_folders() -> Sequence[str]:
    """
    Where this user's control sockets can be: below the folder of the user's
    session, which a service does not have, and which may be left from another user
    (``su``); else in ``/run`` for root, in ``/tmp`` for others. A daemon takes the
    first.
    """
    folders = []
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.path.isabs(session) and _is_ours(session):
        folders.append(os.path.join(session, "kvd"))
    if os.geteuid() == 0:
        folders.append("/run/kvd")
    else:
        # Checked before it is used.
        folders.append(f"/tmp/kvd-{os.geteuid()}")  # noqa: S108
    return folders


def control_path(port: int) -> str:
    """
    Where a daemon makes its control socket, if this is its first TCP port.
    """
    return _path(control_folders()[0], port)


def find_control(port: int) -> str:
    """
    The control socket of the daemon whose first TCP port this is: where one
    answers, else where there is one, else where it would be.

    Raises:
        ControlUnusable: Somebody else may have made what is there.
    """
    there = []
    for folder in control_folders():
        path = _path(folder, port)
        if not os.path.lexists(path):
            continue
        if not _is_ours(folder):
            raise ControlUnusable(
                f"the folder {folder} is not this user's alone, so whoever answers at"
                f" {path} may be anybody; remove it, or name a control socket that you"
                " trust with --control"
            )
        there.append(path)
    if len(there) > 1:
        # A killed daemon leaves its file behind.
        there.sort(key=_is_stale)
    return there[0] if there else control_path(port)


def _is_stale(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A daemon with a long queue is one.
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _path(folder: str, port: int) -> str:
    return os.path.join(folder, f"{port}.control")


def make_control_folder() -> None:
    """
    Make the folder, for this user alone.

    Raises:
        AddressUnusable: It cannot be made, or somebody else could change it.
    """
    folder = control_folders()[0]
    try:
        os.makedirs(folder, FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise AddressUnusable(
            f"the folder of the control socket, {folder}, cannot be made:"
            f" {error.strerror}; name another place with --control"
        ) from error
    if not _is_ours(folder):
        raise AddressUnusable(
            f"the folder of the control socket, {folder}, is not this user's alone;"
            " remove it, or name another place with --control"
        )


def _is_ours(folder: str) -> bool:
    """
    Whether this is a folder, no link to one, and only this user can change what is
    in it.
    """
    try:
        found = os.lstat(folder)
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and not found.st_mode & 0o022
    )
