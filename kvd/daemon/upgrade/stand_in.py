"""
Stands in for a daemon in the foreground after it was upgraded.

The program that started ``twistd -n kvd`` (a shell, a container, runit) waits for it
and signals it. So when its last request has finished, the old daemon executes this
small program in its process. It passes signals on to the daemon that serves now, and
ends as that daemon ends. Further upgrades use the same stand-in: each new daemon writes
its process number into a pipe, and daemons whose parent has ended become children of
the stand-in (``PR_SET_CHILD_SUBREAPER``, prctl(2)).

The file that is executed is that of the newest version, so its two arguments and the
lines in the pipe stay what they are.

It imports little, so it takes few megabytes, and nothing that an upgrade replaces.
"""

from __future__ import annotations

import os
import signal
import sys

FORWARDED = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
"""
The signals that are passed on.
"""


def report_pid(pipe: int) -> None:
    """
    This process is the daemon from now on.

    Args:
        pipe: To the stand-in.
    """
    try:
        os.write(pipe, f"{os.getpid()}\n".encode("ascii"))
    except BrokenPipeError:
        # The stand-in was killed, and nobody waits for the daemon.
        pass


def newest(pipe: int, main: int) -> int:
    """
    The daemon that serves now.

    Args:
        pipe: Where each new daemon writes its process number, in a line; non-blocking.
        main: The last one that is known.
    """
    try:
        while lines := os.read(pipe, 4096).split():
            main = int(lines[-1])
    except BlockingIOError:
        pass
    return main


def run(main: int, pipe: int) -> None:
    """
    Stand in for a daemon until it ends, and end in the same way.
    """
    waited = {*FORWARDED, signal.SIGCHLD}
    # Before anything else: a signal that comes earlier is pending.
    signal.pthread_sigmask(signal.SIG_SETMASK, waited)
    while True:
        main = newest(pipe, main)
        status = _reap(main)
        if status is not None:
            _end(status)
        got = signal.sigwaitinfo(waited)
        if got.si_signo == signal.SIGCHLD:
            continue
        # The kernel's own, such as that of Ctrl-C, go to the daemon too: but that a
        # terminal was closed, it tells only the process that it belonged to.
        if got.si_code <= 0 or got.si_signo == signal.SIGHUP:
            main = newest(pipe, main)
            try:
                os.kill(main, got.si_signo)
            except ProcessLookupError:
                pass


def _reap(main: int) -> int | None:
    """
    Reap all children that have ended.

    Returns:
        The status of the daemon; None: it runs.
    """
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            # Not even the daemon is there: somebody else has reaped it.
            return found or 0
        if pid == 0:
            return found
        if pid == main:
            found = status


def _end(status: int) -> None:
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        # SIGKILL has no other disposition.
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.kill(os.getpid(), -code)
        # Process 1, as in a container, survives that (pid_namespaces(7)): as a shell
        # reports it.
        code = 128 - code
    os._exit(code)


if __name__ == "__main__":
    run(int(sys.argv[1]), int(sys.argv[2]))
