"""
A thread pool for syncs.

A sync waits for the disk, and computes for some microseconds before and after; at
durability ``disk`` each upload needs at least one. So most of its cost is the way to
the thread and back. Twisted's `deferToThreadPool` asks a coordinator under a lock which
of its threads is idle, wakes that thread, keeps a logging context for it, and wakes the
reactor for each result. Here all threads wait at one queue, and the reactor is woken
only for the first of the results that wait for it. That takes 85 µs of processor time
instead of 111 for one sync at a time, and 72 instead of 97 for 32 (with a sleep of 0.2
ms as sync).

Listings are read in the reactor's own pool of ten threads, so they do not wait for
uploads that wait for the disk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, execute

from kvd.errors import NoThread

T = TypeVar("T")


class Threads:
    """
    An `OffReactor` with its own threads.

    If more work is underway than there are threads, another thread is started, and
    kept; so work waits for a thread only if all permitted threads exist. The first one
    starts with the first work, since a thread takes 0.3 MiB of a worker that syncs
    nothing.
    """

    def __init__(self, reactor: Any, most: int) -> None:
        """
        Args:
            reactor: Provides `IReactorFromThreads`; Deferreds fire in it.
            most: The largest number of threads. Further work waits, first come first
                served.
        """
        self._reactor = reactor
        self._most = most
        self._threads: list[Thread] = []
        self._underway = 0
        # None ends a thread.
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._done: deque[Callable[[], object]] = deque()
        self._woken = False

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        answer: Deferred[T] = Deferred()

        def do() -> None:
            done = execute(work)
            self._done.append(lambda: done.chainDeferred(answer))

        self._underway += 1
        if len(self._threads) < min(self._underway, self._most):
            try:
                self._start()
            except RuntimeError as error:
                # The existing threads do all the work.
                if not self._threads:
                    self._underway -= 1
                    raise NoThread from error
        self._asked.put(do)
        return answer

    def stop(self) -> None:
        """
        Finish all work and end the threads. Deferreds that have not fired by then never
        fire; no work may follow.
        """
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        # A daemon thread: a process whose reactor never runs never stops it.
        thread = Thread(target=self._work, name="kvd-sync", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _work(self) -> None:
        for do in iter(self._asked.get, None):
            do()
            # Set before the reactor is woken, and cleared before it reads the results:
            # a result that is appended while it reads may wake it in vain.
            if not self._woken:
                self._woken = True
                self._reactor.callFromThread(self._answer)

    def _answer(self) -> None:
        self._woken = False
        while self._done:
            self._underway -= 1
            self._done.popleft()()
