"""
The files that a daemon adds to while it serves: whether it can, before it has to.
"""

from __future__ import annotations

import os
from contextlib import suppress

from kvd.access_log import check_access_log
from kvd.privileges import User, acting_as
from kvd.recording import check_record
from kvd.settings import Settings


def check_written_files(settings: Settings, user: User | None = None) -> None:
    """
    See that the access log and the record can be written, if there are to be any.

    Args:
        settings: The whole of them.
        user: Who will write them; None: this process as it is.

    Raises:
        OperatorError: One cannot.
    """
    if user is not None:
        for path in (settings.access_log, settings.record):
            if path is not None and path != "-":
                _begin_for(user, path)
    with acting_as(user):
        if settings.access_log is not None:
            check_access_log(settings.access_log)
        if settings.record is not None:
            check_record(settings.record)


def _begin_for(user: User, path: str) -> None:
    """
    Make a file in a folder in which its user may make none; if it cannot be made, or
    is there, the user will find out.
    """
    # Exclusively: others may write to the folder, and put a link there.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with suppress(OSError):
        descriptor = os.open(path, flags, 0o640)
        try:
            os.fchown(descriptor, user.uid, user.gid)
        finally:
            os.close(descriptor)
