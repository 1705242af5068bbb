"""
What a process gets from whoever starts it, and kvd does not want.
"""

from __future__ import annotations

import signal


def forget_inherited_signals() -> None:
    """
    Let signals come as they do to a process that a shell starts.

    Whoever starts kvd may have blocked some, and would so keep it from ending or from
    reading its settings again; or have ignored SIGCHLD, and the kernel would then reap
    workers unseen. SIGHUP and SIGINT may be ignored on purpose (nohup(1)), and SIGPIPE
    always is, by Python.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
