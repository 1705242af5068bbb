"""
SIGUSR1: the logs were renamed, and go on in new files.

The access log needs no signal, since it is opened for each write. But whoever rotates
logs sends one, perhaps to every process of the service: so all of them have to take it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

from twisted.logger import Logger

_log = Logger()


def on_rotation(reopen: Callable[[], None], reactor: Any) -> None:
    """
    Handle SIGUSR1 from now on. twistd would rename its log file, which whoever sends
    the signal has done.

    Args:
        reopen: Closes the file of the log and opens it again, in whichever thread
            writes it.
        reactor: The reactor of this process.
    """

    def rotated() -> None:
        reopen()
        _log.info("SIGUSR1: the logs go on in the files that have their names now")

    signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(rotated))
