"""
What a process inherits from its parent and kvd must reset.
"""

from __future__ import annotations

import signal
from typing import Final

VARIABLE: Final = "KVD_UPGRADE"
"""
In the environment of a daemon that takes the place of another one: the descriptor of
its channel to the old one (`kvd.daemon.upgrade`).
"""


def reset_signals() -> None:
    """
    Reset signal masks and dispositions to those of a process that a shell starts.

    The parent may have blocked signals, which would keep kvd from ending or reloading;
    or it may have ignored SIGCHLD, so that the kernel would reap workers unseen. SIGHUP
    and SIGINT may be ignored on purpose (nohup(1)), and Python itself ignores SIGPIPE.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
