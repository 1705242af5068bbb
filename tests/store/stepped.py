"""
A thread pool that works when told.
"""

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute

T = TypeVar("T")


class SteppedPool:
    """
    An `OffReactor` whose work is done one piece at a time.
    """

    def __init__(self) -> None:
        self._steps: list[Callable[[], object]] = []

    def __call__(self, work: Callable[[], T], /) -> Deferred[T]:
        answer: Deferred[T] = Deferred()
        self._steps.append(lambda: execute(work).chainDeferred(answer))
        return answer

    def waiting(self) -> int:
        """
        How many pieces of work wait.
        """
        return len(self._steps)

    def step(self) -> None:
        """
        Do the first piece.
        """
        self._steps.pop(0)()

    def finish(self) -> None:
        """
        Do them all, and what they bring.
        """
        while self._steps:
            self.step()
