"""
Checks, before kvd serves, that it can write the files that it will append to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, TimeoutError
from twisted.python.failure import Failure

from kvd.errors import BadSetting, NoThread
from kvd.http.access_log import check_access_log
from kvd.http.recorder import check_record
from kvd.log.writer import Writer
from kvd.settings import Settings, User
from kvd.system.privileges import acting_as

CHECK_SECONDS: Final = 30.0
"""
How long the check may take while kvd serves: nothing waits for it, and a machine that
is very busy may take seconds until it runs the thread.
"""


def check_written_files(settings: Settings, user: User | None = None) -> None:
    """
    Check that the access log and the record can be written, if the settings name them.

    Args:
        settings: All settings.
        user: The user who will write them; None: the user of this process.

    Raises:
        OperatorError: One of them cannot be written.
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


def begin_log(twistd: Mapping[str, Any] | None, user: User | None) -> None:
    """
    Create the log file of twistd for the user that this process will switch to. twistd
    opens it before that, so it would be root's, and no daemon that takes the place of
    this one could write it. One that exists stays as it is.

    Args:
        twistd: The options of twistd itself; None: something else runs the service.
        user: None: this process stays as it is.
    """
    if twistd is None or user is None or twistd.get("syslog"):
        return
    path = twistd.get("logfile") or ("-" if twistd.get("nodaemon") else "twistd.log")
    if path != "-":
        _begin_for(user, path)


def check_off_reactor(settings: Settings, reactor: Any) -> Deferred[None]:
    """
    `check_written_files` in a thread: a stalled disk, or the lock of another process,
    may block it for ever.

    Args:
        settings: All settings.
        reactor: Where the Deferred fires.

    Returns:
        Fires when they can be written; fails with OperatorError, also after
        `CHECK_SECONDS`.
    """
    thread = Writer("check")
    checked = thread.defer(lambda: check_written_files(settings), reactor)
    thread.end()

    def failed(failure: Failure) -> None:
        failure.trap(TimeoutError, NoThread)
        if isinstance(failure.value, NoThread):
            raise BadSetting(
                "whether the access log and the record can be written cannot be"
                f" checked: {failure.value.strerror}"
            ) from failure.value
        raise BadSetting(
            "the access log or the record cannot be opened within"
            f" {CHECK_SECONDS:g} seconds: its disk is stalled, or another process has"
            " it locked (flock); fuser shows which"
        ) from failure.value

    return checked.addTimeout(CHECK_SECONDS, reactor).addErrback(failed)


def _begin_for(user: User, path: str) -> None:
    """
    Create a file for a user who may create none in that folder. If that fails, or the
    file exists, the check finds out.
    """
    # Exclusively, because another user may have put a link there.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with suppress(OSError):
        descriptor = os.open(path, flags, 0o640)
        try:
            os.fchown(descriptor, user.uid, user.gid)
        finally:
            os.close(descriptor)
