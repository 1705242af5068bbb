"""
``roundrobin``: the supervisor dispatches connections to the workers in turn.

Every worker gets the same number of connections, give or take one. That is even if all
connections cost the same, and uneven otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View, whose_turn


@implementer(IDispatchPolicy)
class RoundRobin:
    """
    Takes turns. A worker that is not ready loses its turn.
    """

    kernel_chooses = False

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        return whose_turn(view)


policy = RoundRobin()
