"""
``shared``: one listening socket for all; the first to wake takes the connection.

The baseline: the kernel wakes whoever waits, and who is busy wakes later.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


@implementer(IDispatchPolicy)
class Shared:
    """
    Everybody accepts from the same socket.
    """

    kernel_chooses = True

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (0,)

    def choose(self, view: View) -> int:
        # A model: all who wait are woken and any of them may be first; where
        # all are busy, so may be any of those.
        waiting = [worker for worker in view.ready if not view.requests[worker]]
        return view.random.choice(waiting or view.ready)


policy = Shared()
