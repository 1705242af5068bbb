"""
SIGHUP, which has two meanings: the terminal is gone, and reload the settings.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from kvd.system.signals import stop


def ignores_hangup() -> bool:
    """
    Whether this process has been started with SIGHUP ignored, as by nohup(1).
    """
    return signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


def on_hangup(reload: Callable[[], None], ignored: bool, reactor: Any) -> None:
    """
    Handle SIGHUP from now on. It stops the reactor if this process was started at a
    terminal that is gone since.

    Args:
        reload: Called in the reactor otherwise.
        ignored: Whether it goes on without its terminal (`ignores_hangup`).
        reactor: The reactor of this process.
    """
    at_terminal = has_terminal() and not ignored

    def hung_up(number: int, frame: object) -> None:
        if at_terminal and not has_terminal():
            # The signal's first meaning: its terminal was closed.
            reactor.callFromThread(stop, reactor)
        else:
            reactor.callFromThread(reload)

    signal.signal(signal.SIGHUP, hung_up)


def has_terminal() -> bool:
    """
    Whether this process has a controlling terminal. If it had one and has none now,
    SIGHUP means that the terminal was closed.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
