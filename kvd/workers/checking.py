"""
Checks all connections of a process for timeouts, a bounded part of them in each turn of
the reactor: thousands take tens of milliseconds, for which nobody else would be served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from kvd.http.context import OpenConnection

TURN_SECONDS: Final = 0.001
"""
How long to check in one turn; the connection in progress is completed.
"""


class Checking:
    """
    Checks connections again and again.
    """

    _log = Logger()

    def __init__(
        self,
        connections: Callable[[], Collection[OpenConnection]],
        reactor: Any,
        prepare: Callable[[], None] = lambda: None,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            connections: Returns those that are open; they come and go.
            reactor: Says when.
            prepare: Called before each check.
            seconds: The clock by which a turn is measured.
        """
        self._connections = connections
        self._reactor = reactor
        self._prepare = prepare
        self._seconds = seconds
        self._left: list[OpenConnection] = []
        self._next: Any = None
        self._loop = LoopingCall(self.check)
        self._loop.clock = reactor

    def start(self, interval: float) -> None:
        """
        Begin a check each time that so many seconds have passed.
        """
        self._loop.start(interval, now=False)

    def check(self) -> None:
        """
        Begin a check, unless one is not done yet.
        """
        if self._next is None:
            self._prepare()
            self._left = list(self._connections())
            self._go_on()

    def _go_on(self) -> None:
        self._next = None
        now = self._reactor.seconds()
        end = self._seconds() + TURN_SECONDS
        present = self._connections()
        while self._left:
            connection = self._left.pop()
            # It may have ended meanwhile.
            if connection in present:
                self._check(connection, now)
            if self._seconds() >= end and self._left:
                self._next = self._reactor.callLater(0, self._go_on)
                return

    def _check(self, connection: OpenConnection, now: float) -> None:
        try:
            connection.check_time(now)
        except Exception:
            # A bug in kvd; the other connections must still be checked.
            self._log.failure("the time of a connection cannot be checked")
            connection.abort()

    def stop(self) -> None:
        """
        Check no more.
        """
        self._loop.stop()
        if self._next is not None:
            self._next.cancel()
            self._next = None
