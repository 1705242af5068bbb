"""
``gated``: one listening socket for all, and whoever is busier than another stays away
from it.

Each worker looks at the scoreboard before it accepts. If another has fewer requests
in progress, or as many and fewer connections, that one is to take the connection. So
the load is even although nobody hands anything over; it costs the workers some vain
looks instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.dispatch.view import View
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
        own = _load(worker, view)
        return all(_load(other, view) >= own for other in view.ready)

    def choose(self, view: View) -> int:
        # A model: any of those who may can be the first to wake.
        least = min(_load(worker, view) for worker in view.ready)
        return view.random.choice(
            [worker for worker in view.ready if _load(worker, view) == least]
        )


def _load(worker: int, view: View) -> tuple[int, int]:
    return view.requests[worker], view.connections[worker]


policy = Gated()
