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

from zope.interface import implementer

from kvd.dispatch.policies.weighing import weigh
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


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
        ready, loads = view.ready, list(weigh(view))
        least = min(loads)
        try:
            return ready[loads.index(least, bisect_left(ready, view.turn))]
        except ValueError:
            # Nobody from whose turn it is to the last.
            return ready[loads.index(least)]


policy = LeastBusy()
