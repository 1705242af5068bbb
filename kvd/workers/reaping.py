"""
Reaping processes that have been told to end: their control socket is closed, or they
have been killed.
"""

from __future__ import annotations

import math
import subprocess
from contextlib import suppress
from typing import Any, Final

END_SECONDS: Final = 5.0
"""
How long such a process may take to end.
"""

REAP_SECONDS: Final = 0.05
"""
How often to check whether it has ended.
"""


class Reaper:
    """
    Reaps processes while the reactor runs, and kills those that take long.
    """

    def __init__(self, reactor: Any) -> None:
        """
        Args:
            reactor: Provides the time.
        """
        self._reactor = reactor
        self._ending: dict[subprocess.Popen[bytes], Any] = {}

    def reap(
        self, process: subprocess.Popen[bytes], end_seconds: float = END_SECONDS
    ) -> None:
        """
        Reap a process when it has ended.

        Args:
            process: The process.
            end_seconds: How long it may take.
        """
        self._look(process, self._reactor.seconds() + end_seconds)

    def _look(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        self._ending.pop(process, None)
        if process.poll() is not None:
            return
        if self._reactor.seconds() >= deadline:
            process.kill()
            # Where a disk does not answer, that ends it only when it does.
            deadline = math.inf
        self._ending[process] = self._reactor.callLater(
            REAP_SECONDS, self._look, process, deadline
        )

    def stop(self) -> None:
        """
        Wait until all of them have ended.
        """
        for process, call in self._ending.items():
            call.cancel()
            await_end(process)
        self._ending.clear()


def await_end(process: subprocess.Popen[bytes]) -> None:
    """
    Wait for a process to end; kill it if it takes long. One that cannot be killed,
    since it waits for a disk, is left.
    """
    with suppress(subprocess.TimeoutExpired):
        try:
            # It has nothing left to do, so this takes milliseconds.
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(END_SECONDS)
