"""
Hangs of the processes beside the workers: each is asked every second whether it lives,
and one that does not answer for too long is killed and replaced.

Workers are watched in another way (`kvd.dispatch.stalling`), since clients wait for
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

LOOK_SECONDS: Final = 1.0
"""
How often a process is asked.
"""

START_SECONDS: Final = 30.0
"""
How long a process that was just started may take to its first answer, at least. The
time in which it computes does not count: it imports first, and the machine may be busy.
"""

_STALLED_SECONDS: Final = 2.0


def cpu_seconds(pid: int) -> float:
    """
    The processor time that a process has used; 0 if it is gone.
    """
    try:
        # As clock_getcpuclockid(3) makes it.
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        return 0.0


@dataclass(frozen=True, slots=True)
class ProcessState:
    """
    What the supervisor knows of a process beside the workers.
    """

    process: str
    """What it is for."""
    pid: int | None
    """None while there is none."""
    state: str
    """As of a worker: ``waiting``, ``starting``, ``ready`` or ``stalled``."""
    hangs: int
    """How many such processes were killed because they did not answer."""


class Heartbeat:
    """
    Watches a process, and then the one that replaces it.
    """

    def __init__(
        self,
        process: str,
        hang_seconds: float,
        ask: Callable[[], None],
        hung: Callable[[float], None],
        reactor: Any,
        is_working: Callable[[], bool] = lambda: False,
    ) -> None:
        """
        Args:
            process: What it is for.
            hang_seconds: How long it may take to answer.
            ask: Asks it; `answered` is called when it answers.
            hung: Called with how long it has not answered: it is to be killed.
            reactor: Provides the time.
            is_working: Whether a process that has not answered has done something since
                this was called last, so that it does not hang.
        """
        self.hang_seconds = hang_seconds
        """May change."""
        self.hangs = 0
        self._process = process
        self._ask = ask
        self._hung = hung
        self._reactor = reactor
        self._is_working = is_working
        self._timer: Any = None
        self._is_asked = False
        self._has_answered = False
        # From look to look: a late one counts as one in time, since this process may
        # have been stopped itself, and the answer may wait for it. On a machine that is
        # very busy, every look may be late.
        self._silent_seconds = 0.0

    def start(self, pid: int) -> None:
        """
        A process has been started.
        """
        self._pid = pid
        self._cpu_seconds = 0.0
        self._is_asked = self._has_answered = False
        self._silent_seconds = 0.0
        self._look_later()

    def answered(self) -> None:
        """
        It lives.
        """
        self._is_asked, self._has_answered = False, True
        self._silent_seconds = 0.0

    def stop(self) -> None:
        """
        There is no process to be watched.
        """
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look_later(self) -> None:
        self._timer = self._reactor.callLater(
            LOOK_SECONDS, self._look, self._reactor.seconds()
        )

    def _look(self, looked: float) -> None:
        """
        Args:
            looked: The time of the last look.
        """
        seconds = self._reactor.seconds() - looked
        self._look_later()
        if not self._is_asked:
            self._is_asked = True
            self._ask()
        elif self._is_working() or self._still_starts():
            self._silent_seconds = 0.0
        else:
            late = seconds > 2 * LOOK_SECONDS
            self._silent_seconds += LOOK_SECONDS if late else seconds
            if self._silent_seconds >= self._most_seconds:
                self.stop()
                self.hangs += 1
                self._hung(self._silent_seconds)

    def _still_starts(self) -> bool:
        before, self._cpu_seconds = self._cpu_seconds, cpu_seconds(self._pid)
        return not self._has_answered and self._cpu_seconds > before

    @property
    def _most_seconds(self) -> float:
        least = 0.0 if self._has_answered else START_SECONDS
        return max(self.hang_seconds, least)

    @property
    def is_starting(self) -> bool:
        """
        Whether the present process has not answered yet, and has computed lately.
        """
        return not (self._has_answered or self._silent_seconds)

    def state(self, pid: int | None) -> ProcessState:
        """
        What is known of the process, for the status.

        Args:
            pid: None: there is none now.
        """
        state = "ready"
        if pid is None:
            state = "waiting"
        elif not self._has_answered:
            state = "starting"
        elif self._silent_seconds >= _STALLED_SECONDS:
            state = "stalled"
        return ProcessState(self._process, pid, state, self.hangs)
