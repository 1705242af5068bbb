"""
The default locations of control sockets.

A user who can change a folder can put a socket there that answers in place of a daemon,
or that receives the commands for a daemon. In ``/tmp`` any user can create a folder of
any name first. So the daemon and the commands use a folder only if no other user can
change it. Root's commands also use one that only the user of a service can change, as
systemd makes it in ``/run`` (``RuntimeDirectory=``): nobody but root can put it there,
so the daemon of that user is the one that is meant.
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
    The folders in which this user's control sockets can be: below the folder of the
    user's session, which a service does not have, and which may belong to another user
    (``su``); then in ``/run`` for root, in ``/tmp`` for others. A daemon uses the first
    one.
    """
    folders = []
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.path.isabs(session) and _is_ours(session):
        folders.append(os.path.join(session, "kvd"))
    if os.geteuid() == 0:
        folders.append("/run/kvd")
    else:
        # Its owner and mode are checked before it is used.
        folders.append(f"/tmp/kvd-{os.geteuid()}")  # noqa: S108
    return folders


def control_path(port: int) -> str:
    """
    The path of the control socket of a new daemon with this first TCP port.
    """
    return _path(control_folders()[0], port)


def find_control(port: int) -> str:
    """
    Find the control socket of the daemon with this first TCP port: the one that
    answers, else one that exists, else the path where it would be.

    Raises:
        ControlUnusable: Another user may have created what is there.
    """
    there = []
    for folder in control_folders():
        path = _path(folder, port)
        if not os.path.lexists(path):
            continue
        if not (_is_ours(folder) or _is_of_a_service(folder)):
            raise ControlUnusable(
                f"another user can change the folder {folder}, so another program may"
                f" answer at {path}; remove it, or name a control socket that you"
                " trust with --control"
            )
        there.append(path)
    if len(there) > 1:
        # A daemon that is killed leaves the file of its socket.
        there.sort(key=_is_stale)
    return there[0] if there else control_path(port)


def _is_stale(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A daemon with a full queue is not stale.
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED


def _path(folder: str, port: int) -> str:
    return os.path.join(folder, f"{port}.control")


def make_control_folder() -> None:
    """
    Create the folder, for this user only.

    Raises:
        AddressUnusable: It cannot be created, or another user can change it.
    """
    folder = control_folders()[0]
    try:
        os.makedirs(folder, FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise AddressUnusable(
            f"the folder of the control socket, {folder}, cannot be made:"
            f" {error.strerror}; name another path with --control"
        ) from error
    if not _is_ours(folder):
        raise AddressUnusable(
            f"another user can change the folder of the control socket, {folder};"
            " remove it, or name another path with --control"
        )


def _is_ours(folder: str) -> bool:
    """
    Whether this is a folder, not a link to one, that only this user can change.
    """
    return _owner(folder) == os.geteuid()


def _is_of_a_service(folder: str) -> bool:
    """
    Whether this user is root, and gave the folder to the only user who can change it.
    """
    beside = os.path.dirname(folder)
    return os.geteuid() == 0 == _owner(beside) and _owner(folder) is not None


def _owner(folder: str) -> int | None:
    """
    The only user who can change this folder; None: there are others, or it is a link or
    no folder.
    """
    try:
        found = os.lstat(folder)
    except OSError:
        return None
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        return None
    return found.st_uid
