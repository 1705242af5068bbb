"""
``gated``: one listening socket for all, and whoever is busier than another stays away
from it.

Each worker looks at the scoreboard before it accepts. If another has fewer requests
in progress, or as many and clearly fewer connections, that one is to take the
connection. So the load is even although nobody hands anything over; it costs the
workers some vain looks instead.

Where more connections wait than it takes for all of the less busy to have as much to do
as this one, one of the rest is taken: it will be its share in the end, and nobody in a
long queue waits for a worker that has enough to take already.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zope.interface import implementer

from kvd.dispatch.policies.weighing import weigh, weigh_one
from kvd.interfaces import IGatedPolicy
from kvd.model.view import View

ALIKE: Final = 16
"""
Connections that differ by less than so small a part are as many: a worker with 50 that
stay is no busier than one with 49, and if it were, the one would serve all that are
short.
"""


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
        mine = requests, connections = weigh_one(view, worker)
        loads = list(weigh(view))
        if (requests, connections - connections // ALIKE) <= min(loads):
            return True
        # Each connection that another takes is one more for it, and mostly a request.
        lacking = sum(
            max(requests - load[0], connections - load[1])
            for load in loads
            if load < mine
        )
        return lacking < view.waiting

    def choose(self, view: View) -> int:
        # A model: any of those who may can be the first to wake.
        loads = list(weigh(view))
        least = min(loads)
        open_gates = [
            worker
            for worker, load in zip(view.ready, loads, strict=True)
            if load == least
        ]
        return view.random.choice(open_gates)


policy = Gated()
