"""
A thread for calls that may block: writing to a pipe that nobody reads, to a stalled
disk, to a service manager that hangs.

The reactor's own thread pool will not do: the process waits for its threads when it
ends, and such a write may never return.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from kvd.errors import NoThread


class Writer:
    """
    Calls functions in a thread of its own, one after the other.

    The thread starts with the first call and does not keep the process alive. It is up
    to the caller to bound how many functions wait.
    """

    def __init__(self, name: str) -> None:
        """
        Args:
            name: The name of the thread, for debugging.
        """
        self._name = name
        self._waiting: SimpleQueue[Callable[[], object] | None] = SimpleQueue()
        # Reentrant: a signal's handler may log while this thread logs.
        self._changed = threading.Condition(threading.RLock())
        self._count = 0
        self._thread: threading.Thread | None = None

    def call(self, function: Callable[[], object]) -> None:
        """
        Call a function, which must not raise, in the thread.

        Raises:
            NoThread: The thread cannot be started, and the function will not be called.
        """
        with self._changed:
            if self._thread is None:
                self._thread = self._started()
            self._count += 1
        self._waiting.put(function)

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThread from error
        return thread

    @property
    def waiting(self) -> int:
        """
        How many functions have not returned yet.
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
            seconds: How long at most.

        Returns:
            Whether everything has been called. Always False in the thread itself, which
            cannot wait for itself.
        """
        if threading.current_thread() is self._thread:
            return False
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, seconds)

    def end(self) -> None:
        """
        End the thread when everything has been called. No call may follow.
        """
        self._waiting.put(None)

    def defer(self, function: Callable[[], None], reactor: Any) -> Deferred[None]:
        """
        Call a function in the thread.

        Args:
            function: May raise.
            reactor: Where the Deferred fires.

        Returns:
            Fires when the function has returned; fails with what it raised, or with
            `NoThread`.
        """
        called: Deferred[None] = Deferred()

        def call() -> None:
            try:
                function()
            except Exception:
                reactor.callFromThread(called.errback, Failure())
            else:
                reactor.callFromThread(called.callback, None)

        try:
            self.call(call)
        except NoThread:
            return fail()
        return called
