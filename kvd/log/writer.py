"""
A thread for what may block: writing to a pipe that nobody reads, to a disk that is
stalled, to a service manager that hangs.

The reactor's own pool of threads will not do. The process waits for those threads when
it ends, and such a write may never return.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


class Writer:
    """
    Calls functions in a thread of its own, one after the other.

    The thread begins with the first of them, and keeps no process alive. How many
    functions wait is the caller's to bound.
    """

    def __init__(self, name: str) -> None:
        """
        Args:
            name: Of the thread, for whoever debugs.
        """
        self._name = name
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # Reentrant: a signal's handler may log while this thread logs.
        self._changed = threading.Condition(threading.RLock())
        self._count = 0
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """
        Call a function later. It may not raise.
        """
        with self._changed:
            self._count += 1
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name=self._name, daemon=True
                )
                self._thread.start()
        self._waiting.put(function)

    @property
    def waiting(self) -> int:
        """
        How many functions have not been called, or not come back.
        """
        return self._count

    def _run(self) -> None:
        while True:
            function = self._waiting.get()
            if function is None:
                return
            try:
                function()
            finally:
                del function
                with self._changed:
                    self._count -= 1
                    self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """
        Block until everything has been called.

        Args:
            seconds: For so long at most.

        Returns:
            Whether it has. Its own thread, which cannot wait for itself, is told no.
        """
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, seconds)

    def end(self) -> None:
        """
        Let the thread end when everything has been called. Nothing may follow.
        """
        self._waiting.put(None)

    def defer(self, function: Callable[[], None], reactor: Any) -> Deferred[None]:
        """
        Call a function later, and tell what became of it.

        Args:
            function: May raise.
            reactor: In which the Deferred fires.
        """
        called: Deferred[None] = Deferred()

        def call() -> None:
            try:
                function()
            except Exception:
                reactor.callFromThread(called.errback, Failure())
            else:
                reactor.callFromThread(called.callback, None)

        self.call(call)
        return called
