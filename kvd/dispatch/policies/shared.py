"""
``shared``: all workers accept from one listening socket; the first to wake up gets the
connection.

This is the baseline: the kernel wakes up the workers that wait, and a busy worker comes
later.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


@implementer(IDispatchPolicy)
class Shared:
    """
    All workers accept from the same socket.
    """

    kernel_chooses = True

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (0,)

    def choose(self, view: View) -> int:
        # A model: the kernel wakes up all workers that wait, and any of them may be
        # first. If all are busy, any of them may be.
        waiting = [worker for worker in view.ready if not view.requests[worker]]
        return view.random.choice(waiting or view.ready)


policy = Shared()
