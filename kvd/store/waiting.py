"""
What a store waits for, and who waits for the store.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from kvd.interfaces import Answer

T = TypeVar("T")


class OffReactor(Protocol):
    """
    Does work that blocks, away from the reactor's thread.
    """

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        """
        Begin the work; the Deferred fires on the reactor's thread.
        """


def in_threads_of(reactor: Any) -> OffReactor:
    """
    Work in the reactor's own thread pool.

    Args:
        reactor: Provides `IReactorThreads`.
    """

    def off_reactor(work: Callable[[], T], /) -> Deferred[T]:
        return deferToThreadPool(reactor, reactor.getThreadPool(), work)

    return off_reactor


async def resolved(answer: Answer[T]) -> T:
    """
    An answer, waited for if it has to be.
    """
    if isinstance(answer, Deferred):
        return cast(T, await answer)
    return answer


class Underway:
    """
    What was begun and must come to its end, whoever stops waiting for it.

    A client that goes away may cancel the Deferred it waited for. By then a
    thread may be syncing the descriptor of its upload: closing that, or the
    store, would pull it from under the thread.
    """

    def __init__(self) -> None:
        self._count = 0
        self._idle: list[Deferred[None]] = []

    def shield(self, work: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
        """
        Begin the work. Cancelling the answer does not stop it.
        """
        answer: Deferred[T] = Deferred()
        Deferred.fromCoroutine(self._counted(work)).chainDeferred(answer)
        return answer

    async def _counted(self, work: Coroutine[Deferred[Any], Any, T]) -> T:
        self._count += 1
        try:
            return await work
        finally:
            self._count -= 1
            if self._count == 0:
                idle, self._idle = self._idle, []
                for waiting in idle:
                    waiting.callback(None)

    def ended(self) -> Answer[None]:
        """
        Wait until nothing is underway.
        """
        if self._count == 0:
            return None
        waiting: Deferred[None] = Deferred()
        self._idle.append(waiting)
        return waiting
