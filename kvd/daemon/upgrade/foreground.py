"""
A daemon in the foreground keeps its process when it is upgraded, as long as the new
daemon runs (`kvd.daemon.upgrade.stand_in`).
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import sys
from contextlib import suppress
from typing import Final

from kvd.daemon.upgrade import stand_in

_PR_SET_CHILD_SUBREAPER: Final = 36


class Foreground:
    """
    The pipe to a stand-in that does not run yet.
    """

    def __init__(self) -> None:
        self._read, self.write = os.pipe()
        os.set_blocking(self._read, False)

    def close(self) -> None:
        """
        There will be no stand-in.
        """
        os.close(self._read)
        os.close(self.write)

    def keep(self, main: int) -> None:
        """
        Pass signals on to another daemon from now on, and execute the stand-in when
        this process is about to end.

        Args:
            main: The process of the other daemon, a child of this one.
        """
        adopt_orphans()

        def pass_on(number: int, frame: object) -> None:
            nonlocal main
            main = stand_in.newest(self._read, main)
            with suppress(ProcessLookupError):
                os.kill(main, number)

        for number in stand_in.FORWARDED:
            signal.signal(number, pass_on)

        def execute() -> None:
            os.close(self.write)
            os.set_inheritable(self._read, True)
            with suppress(OSError, ValueError, AttributeError):
                sys.stdout.flush()
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.flush()
            last = stand_in.newest(self._read, main)
            # Until the stand-in waits for signals, they are pending.
            signal.pthread_sigmask(signal.SIG_SETMASK, stand_in.FORWARDED)
            arguments = ["-I", "-S", stand_in.__file__, str(last), str(self._read)]
            os.execv(sys.executable, [sys.executable, *arguments])  # noqa: S606

        atexit.register(execute)


def adopt_orphans() -> None:
    """
    Have daemons whose parent ends become children of this process, also after it has
    executed another program.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
