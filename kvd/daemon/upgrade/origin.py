"""
How this daemon was started, so that new code can be started in the same way.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from twisted.logger import Logger

_log = Logger()


@dataclass(frozen=True)
class Origin:
    """
    The command line, and what twistd made of it.
    """

    command: Sequence[str]
    """The arguments of the Python interpreter."""
    folder: str | None
    """The working folder at the start; None: it had been removed."""
    twistd: MutableMapping[str, Any]
    """The options of twistd itself. It looks for its PID file there when it ends."""
    pid_file: str
    """The path of the PID file, relative to the folder in which twistd runs; empty:
    there is none."""

    @property
    def in_foreground(self) -> bool:
        """
        Whether whoever started this process waits for its end.
        """
        return bool(self.twistd.get("nodaemon"))

    def leave_pid_file(self) -> None:
        """
        Another process has the PID file, and twistd does not remove it.
        """
        self.twistd["pidfile"] = ""

    def write_pid_file(self) -> None:
        """
        Make the PID file this process's. twistd removes it in the end.
        """
        if not self.pid_file:
            return
        self.twistd["pidfile"] = self.pid_file
        beside = f"{self.pid_file}.{os.getpid()}"
        try:
            try:
                with open(beside, "w") as file:
                    file.write(str(os.getpid()))
                os.replace(beside, self.pid_file)
            except OSError:
                with suppress(OSError):
                    os.unlink(beside)
                # As where only the file belongs to this user.
                with open(self.pid_file, "w") as file:
                    file.write(str(os.getpid()))
        except OSError as error:
            _log.warn(
                "the PID file {path} cannot be written: {error}; it has the number of"
                " the process that was upgraded",
                path=self.pid_file,
                error=error.strerror,
            )


def origin_of(twistd: MutableMapping[str, Any] | None, pid_file: str) -> Origin:
    """
    The origin of this process, whose working folder has not changed yet.

    Args:
        twistd: The options of twistd; None: something else runs the service.
        pid_file: The path of twistd's PID file.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:
        folder = None
    options = {"nodaemon": True} if twistd is None else twistd
    return Origin(sys.orig_argv[1:], folder, options, pid_file)
