"""
``gated``: one listening socket for all, and whoever is busier than another stays away
from it.

Each worker looks at the scoreboard before it accepts. If another has fewer requests
in progress, or as many and fewer connections, that one is to take the connection. So
the load is even although nobody hands anything over; it costs the workers some vain
looks instead.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from zope.interface import implementer

from kvd.dispatch.view import View
from kvd.dispatch.weighing import weigh
from kvd.interfaces import IGatedPolicy


@implementer(IGatedPolicy)
class Gated:
    """
    The least busy accept.
    """

    kernel_chooses = True

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (0,)

    def accepts(self, worker: int, view: View) -> bool:
        loads = weigh(view)
        return loads[bisect_left(view.ready, worker)] == min(loads)

    def choose(self, view: View) -> int:
        # A model: any of those who may can be the first to wake.
        loads = weigh(view)
        least = min(loads)
        open_gates = [
            worker
            for worker, load in zip(view.ready, loads, strict=True)
            if load == least
        ]
        return view.random.choice(open_gates)


policy = Gated()
