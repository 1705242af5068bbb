"""
What all connections of one process share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from kvd.dispatch.scoreboard import Row, lone_row
from kvd.http.access_log import Entry
from kvd.http.dialects.choice import Dialects
from kvd.http.host_guard import HostGuard
from kvd.http.recorder import Recorder
from kvd.http.run_queue import RunQueue
from kvd.http.timeouts import bounds_of
from kvd.http.wire.heads import Heads
from kvd.interfaces import IStore
from kvd.net.splice import Pipe
from kvd.settings import Limits

if TYPE_CHECKING:
    from kvd.http.connection import HttpConnection
    from kvd.http.fast_path import Report, Shortcuts


Warm = Callable[[int, int, int], Deferred[None] | None]


class IRequestLog(Protocol):
    """
    Where finished requests are told.
    """

    def note(self, entry: Entry) -> None:
        """
        Take one entry.
        """


class Site:
    """
    The parts that a connection works with, and the connections there are.
    """

    _log = Logger()

    def __init__(
        self,
        store: IStore,
        dialects: Dialects,
        limits: Limits,
        clock: IReactorTime,
        log: IRequestLog | None = None,
        eased: Callable[[], None] = lambda: None,
        row: Row | None = None,
        pipe: Pipe | None = None,
        warm: Warm = lambda descriptor, offset, count: None,
        recorder: Recorder | None = None,
        guard: HostGuard | None = None,
    ) -> None:
        """
        Args:
            store: Keeps the values.
            dialects: Understand requests and spell replies.
            limits: What one client may ask.
            clock: Tells the time.
            log: Hears of each request; None: nobody wants to know.
            eased: Called when a connection ended or the store answered.
            row: Where this process counts; None: only for itself.
            pipe: Through which bodies are moved to files; None: they are read
                and written.
            warm: See `kvd.net.readahead.Warmer.warm`.
            recorder: Hears of each connection that ended; None: nobody wants to
                know.
            guard: Says which hosts may be asked for; None: all.
        """
        self.store = store
        self.dialects = dialects
        self.limits = limits
        self.clock = clock
        self.log = log
        self._eased = eased
        self.row = row or lone_row()
        self.pipe = pipe
        self.warm = warm
        self.recorder = recorder
        self.guard = guard or HostGuard()
        self.heads = Heads(limits)
        self.shortcuts: Shortcuts | None = None
        """Which requests take where they can; None while draining too."""
        self.bounds = bounds_of(limits)
        self.run_queue = RunQueue(clock.callLater, self.row)
        self.draining = False
        self.connections: set[HttpConnection] = set()
        self.answers_due = 0
        """Answers that the store owes, also to connections that are gone."""

    def opened(self, connection: HttpConnection) -> None:
        """
        A connection has begun.
        """
        self.connections.add(connection)
        self.row.opened()

    def closed(self, connection: HttpConnection) -> None:
        """
        A connection has ended.
        """
        self.connections.discard(connection)
        self.row.closed()
        self._eased()

    @property
    def wants_reports(self) -> bool:
        """
        Whether anybody hears of each request or connection.
        """
        return self.log is not None or self.recorder is not None

    def tell(self, report: Report, peer_name: str) -> None:
        """
        Log a request that a shortcut has served.
        """
        if self.log is not None:
            self.log.note(
                Entry(
                    ended=time.time(),
                    peer=peer_name,
                    method=report.method,
                    key=report.target,
                    status=report.status,
                    body_bytes=report.body_bytes,
                    seconds=report.seconds,
                )
            )

    def stop_moving(self) -> None:
        """
        The store's files can be written, but nothing can be moved to them.
        """
        if self.pipe is not None:
            self.pipe = None
            self._log.info(
                "the kernel moves no bytes to the files of this store (splice); bodies"
                " are read and written instead"
            )

    def settled(self) -> None:
        """
        An answer that was due has come.
        """
        self.answers_due -= 1
        self._eased()
