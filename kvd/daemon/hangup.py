"""
SIGHUP, which has two meanings: the terminal has gone, and read your settings again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from kvd.system.signals import stop


def on_hangup(read_again: Callable[[], None], reactor: Any) -> None:
    """
    Say what SIGHUP does from now on: it ends the reactor where this process was started
    at a terminal that has gone since.

    Args:
        read_again: Called in the reactor otherwise.
        reactor: This process's.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    at_terminal = has_terminal() and not ignored

    def hung_up(number: int, frame: object) -> None:
        if at_terminal and not has_terminal():
            # The signal's first meaning: who started this has left.
            reactor.callFromThread(stop, reactor)
        else:
            reactor.callFromThread(read_again)

    signal.signal(signal.SIGHUP, hung_up)


def has_terminal() -> bool:
    """
    Whether this process can be typed at. If it could and can no longer, SIGHUP says
    that its terminal has gone.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDWR))
    except OSError:
        return False
    return True
