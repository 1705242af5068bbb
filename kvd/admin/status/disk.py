"""
Looks at the disk of the store, for the status site and the metrics.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from kvd.store.space import Space

FRESH_SECONDS: Final = 1.0
"""
Who asks again within this time hears the same, however many ask.
"""

WAIT_SECONDS: Final = 2.0
"""
How long the disk may take to answer.
"""


class Disk:
    """
    The disk, as it was when it was last looked at.
    """

    _log = Logger()

    def __init__(
        self,
        look: Callable[[], Space] | None,
        in_thread: Callable[[Callable[[], Space]], Deferred[Space]],
        reactor: Any,
    ) -> None:
        """
        Args:
            look: Looks at it, and blocks meanwhile; None: there is none that is known.
            in_thread: Runs a function in a thread.
            reactor: Provides the time.
        """
        self._look = look
        self._in_thread = in_thread
        self._reactor = reactor
        self._asking = False
        self._waiting: list[Deferred[Space | None]] = []
        self._timeout: Any = None
        self._looked = 0.0
        self.newest: Space | None = None
        """None: nothing is known yet."""

    def look(self) -> Deferred[Space | None]:
        """
        Look at it, unless that was done a moment ago.

        Returns:
            Fires within `WAIT_SECONDS`, with a complaint if the disk does not answer;
            with None if no disk is known.
        """
        now = self._reactor.seconds()
        is_fresh = self.newest is not None and now - self._looked < FRESH_SECONDS
        if self._look is None or is_fresh:
            return succeed(self.newest)
        if self._asking and self._timeout is None:
            # It still has not answered. One thread waits for it, and nobody else.
            return succeed(self.newest)
        waiting: Deferred[Space | None] = Deferred()
        self._waiting.append(waiting)
        if not self._asking:
            self._asking = True
            self._timeout = self._reactor.callLater(WAIT_SECONDS, self._late)
            self._in_thread(self._look).addCallbacks(self._found, self._failed)
        return waiting

    def _late(self) -> None:
        self._timeout = None
        self._tell(Space(f"The store has not answered for {WAIT_SECONDS:g} seconds."))

    def _failed(self, failure: Failure) -> None:
        # A bug in kvd.
        self._log.failure("the disk cannot be looked at", failure=failure)
        self._found(Space("The store cannot be looked at."))

    def _found(self, space: Space) -> None:
        self._asking = False
        if self._timeout is not None:
            self._timeout.cancel()
            self._timeout = None
        self._tell(space)

    def _tell(self, space: Space) -> None:
        self.newest = space
        self._looked = self._reactor.seconds()
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.callback(space)

    def close(self) -> None:
        """
        Wait for nothing any more.
        """
        if self._timeout is not None:
            self._timeout.cancel()
            self._late()
