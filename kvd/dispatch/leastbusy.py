"""
``leastbusy``: the supervisor accepts; the worker with the least to do gets it.

Least is: the fewest requests in progress and connections on their way. A connection
on its way counts like a request, since one mostly comes with it. Among those who are
alike, the fewest connections count, for each may ask again; among those, too, they
take turns, so that no worker is everybody's first choice.

Best where requests cost unlike: who is busy with a long one gets nothing new.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from operator import add
from typing import Final

from zope.interface import implementer

from kvd.dispatch.view import View
from kvd.interfaces import IDispatchPolicy

_REQUEST: Final = 1 << 32
"""
More than any number of connections: one request more outweighs them all.
"""


@implementer(IDispatchPolicy)
class LeastBusy:
    """
    Looks at what each worker does now; forgets what it did.
    """

    kernel_chooses = False

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        ready, coming = view.ready, view.handing_over
        # Mapped by the interpreter's own functions: with 32 workers a quarter of the
        # time of a loop, or of min() with a key.
        tasks = map(_REQUEST.__mul__, map(add, view.requests, coming))
        loads = list(map(add, tasks, map(add, view.connections, coming)))
        if len(ready) < len(loads):
            loads = [loads[worker] for worker in ready]
        least = min(loads)
        at = bisect_left(ready, view.turn)
        if least not in loads[at:]:
            at = 0
        return ready[loads.index(least, at)]


policy = LeastBusy()
