"""
``odd``: every third answer is good; the others are of three kinds of wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


@implementer(IDispatchPolicy)
class Odd:
    """
    Wrong by turns, by the only thing that changes from one view to the next.
    """

    kernel_chooses = False

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        if view.turn == 1:
            raise RuntimeError("it is the turn of worker 1")
        if view.turn == 2:
            return 4711
        return view.ready[0]


@implementer(IDispatchPolicy)
class Stuck(Odd):
    """
    Never decides.
    """

    def choose(self, view: View) -> int:
        while True:
            pass


policy = Odd()
stuck = Stuck()
