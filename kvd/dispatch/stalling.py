"""
Stalled workers: their reactor makes no turn, because the process is stopped or busy
with one event that does not end.

A connection that arrives at the socket of a stalled worker would wait until the worker
continues. So new connections are kept away from that socket, and other workers accept
from it too.

A worker writes a time stamp whenever it begins or ends to wait for events. It waits for
a second at most, and a new connection wakes it at once. So there are two signs of a
stall: a connection was seen to wait for it, and its time stamp is older; or the time
stamp is older than it ever waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from math import inf
from typing import Final

from twisted.logger import Logger

from kvd.dispatch.gate import SILENT_SECONDS
from kvd.ipc.scoreboard import Scoreboard

LOOK_SECONDS: Final = 0.2
"""
How often to look for stalled workers.
"""

SOON_LOOK_SECONDS: Final = 0.1
"""
How often, while a connection waits for a worker that may be stalled.
"""

UNAWAITED_LOOK_SECONDS: Final = 0.5
"""
How often, while workers accept from no socket, so that no connection waits at one: each
look finds the supervisor's code cold, and took 0.4 ms of it. Less than a worker ever
waits: else two looks in a row might find one that is idle silent.
"""

MOST_SECONDS: Final = 1.0
"""
A look that comes later after the one before counts as if it came after this time: this
process may have been stopped, and the workers with it.
"""

SUSPECT_SECONDS: Final = 0.05
"""
A worker that has written no time stamp for this time may be stalled, if a connection
waits for it. Less than from look to look: one that stopped just after a look, when its
connection came, would be suspected only at the second look after it.
"""

AWAITED_LOOKS: Final = 4
"""
A worker that has written no time stamp counts as stalled at the fourth look since a
connection waits for it: after 0.35 s without a sign at least, and 0.55 s after the
connection came at most, or what the machine is late for each of these looks more. If
it is only busy, that costs little: it keeps its sockets and connections, and others
take what waits for it.
"""


class Stalls:
    """
    Finds stalled workers, counts stalls and logs them.
    """

    _log = Logger()

    def __init__(self, scoreboard: Scoreboard) -> None:
        """
        Args:
            scoreboard: Has the workers' time stamps, and counts stalls.
        """
        self._scoreboard = scoreboard
        self.stalled: Set[int] = frozenset()
        """The stalled workers."""
        self.silent_looks: dict[int, float] = {}
        """For how long each worker has been seen to write no time stamp, in seconds:
        from look to look, so that the time in which nobody looked does not count for
        more than `MOST_SECONDS`. It begins with the time stamp, before the first of
        these looks."""
        self._awaited: dict[int, int] = {}
        self._longest: dict[int, float] = {}

    def look(
        self,
        seconds: float,
        due_seconds: float,
        workers: Collection[int],
        awaited: Callable[[Collection[int]], Collection[int]],
        ask: Callable[[Collection[int]], object],
    ) -> bool:
        """
        Find the workers that are stalled now.

        On a machine that is very busy every look may be late, and stalls are found all
        the same.

        Args:
            seconds: The time since the last look.
            due_seconds: The time after which this look was due.
            workers: The ready ones.
            awaited: Returns those of the given workers for which a connection waits.
            ask: Wakes the given workers, if they live.

        Returns:
            Whether anything has changed.
        """
        silent = self._scoreboard.silent_seconds()
        # If all of the service was stopped, it was for this time. The next look finds
        # those that still are.
        late_seconds = max(0.0, seconds - 2 * due_seconds)
        unsigned = [worker for worker in workers if silent[worker] > seconds]
        counted = min(seconds, MOST_SECONDS)
        self.silent_looks = {
            worker: counted
            + self.silent_looks.get(worker, min(silent[worker] - seconds, MOST_SECONDS))
            for worker in unsigned
        }
        # A worker that was awaited once is awaited until it writes a time stamp: others
        # may have taken what waited for it.
        still = {worker: self._awaited.get(worker, 0) for worker in unsigned}
        # Where a connection waits for one, others may be stopped as well, and would not
        # do in its place. So all that are silent are asked, which wakes those that only
        # wait for events.
        least = min(seconds, SUSPECT_SECONDS)
        suspects = [worker for worker in workers if silent[worker] > least]
        are_awaited = bool(suspects and awaited(suspects))
        if are_awaited:
            ask([worker for worker in suspects if not still.get(worker)])
        self._awaited = {
            worker: still.get(worker, 0) + 1
            for worker in suspects
            if still.get(worker) or are_awaited
        }
        before = self.stalled
        self.stalled = {
            worker
            for worker in unsigned
            if worker in before
            or silent[worker] - late_seconds > SILENT_SECONDS
            or self._awaited.get(worker, 0) >= AWAITED_LOOKS
        }
        others = len(self.stalled) < len(workers)
        for worker in sorted(self.stalled - before):
            self._log_stall(worker, silent[worker], others)
        for worker in sorted(before - self.stalled):
            self._log_end(worker)
        for worker in self.stalled:
            self._longest[worker] = silent[worker]
        return before != self.stalled

    def hung(self, hang_seconds: float, seconds: float) -> list[tuple[int, float]]:
        """
        Find the workers that have written no time stamp for too long.

        Args:
            hang_seconds: How long they may write none.
            seconds: The time since the last look.

        Returns:
            Each of them, and for how long it was seen to write none.
        """
        silent = self._scoreboard.silent_seconds()
        counted = min(seconds, MOST_SECONDS)
        return [
            (worker, before + counted)
            for worker, before in self.silent_looks.items()
            if before + counted >= hang_seconds and silent[worker] >= seconds
        ]

    def until_hung(self, hang_seconds: float) -> float:
        """
        The time from the last look until a further worker has written no time stamp for
        too long, if it goes on like that.

        Args:
            hang_seconds: How long it may write none.
        """
        left = [hang_seconds - silent for silent in self.silent_looks.values()]
        return min((each for each in left if each > 0), default=inf)

    @property
    def due_seconds(self) -> float:
        """
        When to look again, where workers accept.
        """
        suspected = self._awaited.keys() - self.stalled
        return SOON_LOOK_SECONDS if suspected else LOOK_SECONDS

    def _log_stall(self, worker: int, seconds: float, others: bool) -> None:
        self._scoreboard.count_stall(worker)
        self._log.warn(
            "worker {worker} has not responded for {seconds:.1f} seconds: it is"
            " stopped, or busy with one thing; {others} its new connections until it"
            " responds again",
            worker=worker,
            seconds=seconds,
            others="others take" if others else "nobody takes",
            happened="stall",
        )

    def _log_end(self, worker: int) -> None:
        self._log.info(
            "worker {worker} responds again after {seconds:.1f} seconds and gets its"
            " share of new connections",
            worker=worker,
            seconds=self._longest.pop(worker),
            happened="stall",
        )

    def forget(self, worker: int) -> None:
        """
        Forget a worker that is gone or draining: the next process with its number is
        not stalled.
        """
        self.stalled = self.stalled - {worker}
        self.silent_looks.pop(worker, None)
        self._awaited.pop(worker, None)
        self._longest.pop(worker, None)
