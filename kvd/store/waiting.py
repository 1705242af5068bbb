"""
Waiting: for work in threads, for answers, and for work that is underway.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from kvd.errors import NoThread
from kvd.interfaces import Answer

T = TypeVar("T")


class OffReactor(Protocol):
    """
    Runs work that blocks in another thread than the reactor's.
    """

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        """
        Begin the work; the Deferred fires in the reactor's thread.

        Raises:
            NoThread: There is no thread for it, and none can be started. The work is
                never done by the caller: it may take as long as a disk is busy.
        """


def in_threads_of(reactor: Any) -> OffReactor:
    """
    Return an `OffReactor` that uses the reactor's own thread pool.

    Args:
        reactor: Provides `IReactorThreads`.
    """

    def off_reactor(work: Callable[[], T], /) -> Deferred[T]:
        pool = reactor.getThreadPool()
        try:
            return deferToThreadPool(reactor, pool, work)
        except RuntimeError as error:
            # The pool keeps the thread, and would fail to join it at the end.
            pool.threads[:] = [one for one in pool.threads if one.ident is not None]
            raise NoThread from error

    return off_reactor


async def resolved(answer: Answer[T]) -> T:
    """
    Return the result of an answer, after waiting for it if necessary.
    """
    if isinstance(answer, Deferred):
        return cast(T, await answer)
    return answer


class Underway:
    """
    Work that must be finished even if its caller stops waiting for it.

    When a client disconnects, the Deferred that its request waits for may be cancelled.
    At that time a thread may be syncing the descriptor of the upload, which must not be
    closed meanwhile, nor may the store.
    """

    def __init__(self) -> None:
        self._count = 0
        self._idle: list[Deferred[None]] = []

    def shield(
        self,
        work: Coroutine[Deferred[Any], Any, T],
        undo: Callable[[T], object] | None = None,
    ) -> Deferred[T]:
        """
        Begin work. Cancelling the Deferred does not stop it.

        Args:
            work: The work.
            undo: Called with the result if the Deferred was cancelled.
        """
        answer: Deferred[T] = Deferred()

        def done(result: T) -> None:
            if answer.called and undo is not None:
                undo(result)
            else:
                answer.callback(result)

        Deferred.fromCoroutine(self._counted(work)).addCallbacks(done, answer.errback)
        return answer

    def stoppable(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """
        Begin work. Cancelling the Deferred cancels what the work is waiting for.
        """
        return Deferred.fromCoroutine(self._counted(work))

    async def _counted(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        self.begun()
        try:
            return await work
        finally:
            self.finished()

    def begun(self) -> None:
        """
        Some work begins; `finished` must be called when it ends.
        """
        self._count += 1

    def finished(self) -> None:
        """
        Some work has ended.
        """
        self._count -= 1
        if self._count == 0:
            idle, self._idle = self._idle, []
            for waiting in idle:
                waiting.callback(None)

    def ended(self) -> Answer[None]:
        """
        Wait until no work is underway.
        """
        if self._count == 0:
            return None
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        return waiting
