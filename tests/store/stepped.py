"""
A thread pool that works step by step.
"""

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred, execute

T = TypeVar("T")


class SteppedPool:
    """
    An `OffReactor` that does one piece of work per call of `step`.
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
        Do all pieces, and those that follow from them.
        """
        while self._steps:
            self.step()
