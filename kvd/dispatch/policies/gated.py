"""
``gated``: all workers accept from one listening socket, and a worker that is busier
than another does not accept.

Each worker reads the scoreboard before it accepts. If another worker has fewer requests
in progress, or as many requests and clearly fewer connections, it leaves the connection
to that worker. So the load is even without a hand-over. The cost is that workers
sometimes wake up and accept nothing.

A worker also accepts if more connections wait than the less busy workers need to become
as busy as it is. It would get one of them in the end, and clients in a long queue do
not wait for workers that already have enough to accept.
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
Numbers of connections that differ by less than one in this many count as equal: a
worker with 50 idle connections is no busier than one with 49. Otherwise the latter
would serve all short connections.
"""


@implementer(IGatedPolicy)
class Gated:
    """
    The least busy workers accept.
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
        # Each connection that another worker accepts adds one to its connections, and
        # usually one to its requests.
        lacking = sum(
            max(requests - load[0], connections - load[1])
            for load in loads
            if load < mine
        )
        return lacking < view.waiting

    def choose(self, view: View) -> int:
        # A model: of the workers that may accept, any can wake up first.
        loads = list(weigh(view))
        least = min(loads)
        open_gates = [
            worker
            for worker, load in zip(view.ready, loads, strict=True)
            if load == least
        ]
        return view.random.choice(open_gates)


policy = Gated()
