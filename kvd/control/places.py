"""
Where control sockets are, unless an operator chooses.
"""

from __future__ import annotations

import os
import stat
from typing import Final

from kvd.errors import AddressUnusable

FOLDER_MODE: Final = 0o700


def control_folder() -> str:
    """
    Where this user's control sockets are: below the folder that systemd gives
    to each user's session, ``/run`` for root, ``/tmp`` where neither is.
    """
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.path.isabs(session) and os.path.isdir(session):
        return os.path.join(session, "kvd")
    if os.geteuid() == 0:
        return "/run/kvd"
    return f"/tmp/kvd-{os.geteuid()}"  # noqa: S108  # checked before it is used


def control_path(port: int) -> str:
    """
    The control socket of the daemon whose first TCP port this is.
    """
    return os.path.join(control_folder(), f"{port}.control")


def make_control_folder() -> None:
    """
    Make the folder, for this user alone.

    Raises:
        AddressUnusable: It cannot be made, or somebody else could change it.
    """
    folder = control_folder()
    try:
        os.makedirs(folder, FOLDER_MODE, exist_ok=True)
        found = os.lstat(folder)
    except OSError as error:
        raise AddressUnusable(
            f"the folder of the control socket, {folder}, cannot be made:"
            f" {error.strerror}; name another place with --control"
        ) from error
    if (
        not stat.S_ISDIR(found.st_mode)
        or found.st_uid != os.geteuid()
        or found.st_mode & 0o022
    ):
        raise AddressUnusable(
            f"the folder of the control socket, {folder}, is not this user's alone;"
            " remove it, or name another place with --control"
        )
