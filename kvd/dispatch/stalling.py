"""
Workers that make no turn: they are stopped, or busy with one event that does not end.

Whatever comes into the socket of such a worker would wait for as long as it does. So
nothing more is to come there, and others look after the socket until it lives again.

A worker gives a sign whenever it begins or ends to wait for events. It waits for a
second at most, and a connection that comes wakes it at once. So there are two ways to
tell: a connection was seen to wait for it, and it has given no sign since; or it gives
none for longer than it ever waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from typing import Final

from twisted.logger import Logger

from kvd.dispatch.gate import SILENT_SECONDS
from kvd.dispatch.scoreboard import Scoreboard

LOOK_SECONDS: Final = 0.2
"""
How often it is looked who makes no turn.
"""

AWAITED_LOOKS: Final = 3
"""
At the third look since a connection waits for it, a worker that has given no sign makes
no turn. So a client waits for less than a second, also on a busy machine.
"""


class Stalls:
    """
    Finds them, counts them, and tells of them.
    """

    _log = Logger()

    def __init__(self, scoreboard: Scoreboard) -> None:
        """
        Args:
            scoreboard: Where workers give signs, and stalls are counted.
        """
        self._scoreboard = scoreboard
        self.stalled: Set[int] = frozenset()
        """Who makes no turn."""
        self._awaited: dict[int, int] = {}
        self._longest: dict[int, float] = {}

    def look(
        self,
        seconds: float,
        workers: Collection[int],
        awaited: Callable[[Collection[int]], Collection[int]],
    ) -> bool:
        """
        Find out.

        Args:
            seconds: Since the last look.
            workers: Who is ready.
            awaited: Of some of these, for whom a connection waits.

        Returns:
            Whether anything has changed.
        """
        silent = self._scoreboard.silent_seconds()
        suspects = [worker for worker in workers if silent[worker] > seconds]
        for_whom = awaited(suspects) if suspects else ()
        # Whoever was awaited once is, until it gives a sign: others may have taken
        # what waited for it.
        self._awaited = {
            worker: self._awaited.get(worker, 0) + 1
            for worker in suspects
            if worker in self._awaited or worker in for_whom
        }
        before = self.stalled
        self.stalled = {
            worker
            for worker in suspects
            if worker in before
            or silent[worker] > SILENT_SECONDS
            or self._awaited.get(worker, 0) >= AWAITED_LOOKS
        }
        others = len(self.stalled) < len(workers)
        for worker in sorted(self.stalled - before):
            self._tell_of(worker, silent[worker], others)
        for worker in sorted(before - self.stalled):
            self._tell_of_the_end(worker)
        for worker in self.stalled:
            self._longest[worker] = silent[worker]
        return before != self.stalled

    def _tell_of(self, worker: int, seconds: float, others: bool) -> None:
        self._scoreboard.count_stall(worker)
        self._log.warn(
            "worker {worker} has made no turn for {seconds:.1f} seconds: it is stopped,"
            " or busy with one thing; {others} its new connections until it lives"
            " again",
            worker=worker,
            seconds=seconds,
            others="others take" if others else "nobody takes",
        )

    def _tell_of_the_end(self, worker: int) -> None:
        self._log.info(
            "worker {worker} lives again after {seconds:.1f} seconds and gets its share"
            " of new connections",
            worker=worker,
            seconds=self._longest.pop(worker),
        )

    def forget(self, worker: int) -> None:
        """
        It is gone, or told to go: what comes next in its place makes turns.
        """
        self.stalled = self.stalled - {worker}
        self._awaited.pop(worker, None)
        self._longest.pop(worker, None)
