"""
Policies for the simulation's tests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from zope.interface import implementer

from kvd.interfaces import IDispatchPolicy, IGatedPolicy
from kvd.model.view import View


@implementer(IDispatchPolicy)
class LeastLoaded:
    """
    Fewest requests, then fewest connections; ties rotate.
    """

    kernel_chooses = False

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        workers = len(view.connections)
        return min(
            view.ready,
            key=lambda worker: (
                view.requests[worker],
                view.connections[worker],
                (worker - view.turn) % workers,
            ),
        )


policy = LeastLoaded()


@implementer(IDispatchPolicy)
class Odd(LeastLoaded):
    """
    Chooses as the test says.
    """

    def __init__(
        self, choose: Callable[[View], int], *, kernel_chooses: bool = False
    ) -> None:
        self.kernel_chooses = kernel_chooses
        self._choose = choose

    def choose(self, view: View) -> int:
        return self._choose(view)


@implementer(IGatedPolicy)
class Picky(Odd):
    """
    A gate that is open as the test says, at a socket for all.
    """

    def __init__(self, accepts: Callable[[int, View], bool]) -> None:
        super().__init__(lambda view: view.ready[0], kernel_chooses=True)
        self._accepts = accepts

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (0,)

    def accepts(self, worker: int, view: View) -> bool:
        return self._accepts(worker, view)
