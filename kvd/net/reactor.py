"""
The reactor of a worker.

Twisted's, except that it tells the monotonic clock (`kvd.system.clock`), and that an
event does not set the context of Twisted's old logging system first: a lookup and five
calls for each, of which kvd makes no use, since its loggers name themselves. Measured
with ``make figures FIGURES=get`` (4 KiB GETs over 32 connections), that was 8 of 61
microseconds of CPU for each.
"""

from __future__ import annotations

import time

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.main import installReactor

from kvd.dispatch.scoreboard import Row, lone_row


class WorkerReactor(EPollReactor):
    """
    An epoll reactor that hands events on directly, and counts its waiting.
    """

    seconds = staticmethod(time.monotonic)

    def __init__(self, row: Row | None = None) -> None:
        """
        Args:
            row: Where it counts; None: only for itself.
        """
        self._row = row or lone_row()
        super().__init__()

    def doPoll(self, timeout: float | None) -> None:
        """
        See `EPollReactor.doPoll`. Errors of a selectable are logged, and end
        it, in ``_doReadOrWrite``.
        """
        self._row.waits()
        events = self._poller.poll(
            -1 if timeout is None else timeout, len(self._selectables)
        )
        self._row.woke()
        for descriptor, event in events:
            # One event may end another's selectable.
            selectable = self._selectables.get(descriptor)
            if selectable is not None:
                self._doReadOrWrite(selectable, descriptor, event)

    doIteration = doPoll


def install(row: Row) -> WorkerReactor:
    """
    Make and install the reactor of this process.
    """
    reactor = WorkerReactor(row)
    installReactor(reactor)
    return reactor
