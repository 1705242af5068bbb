"""
``leastbusy``: the supervisor accepts a connection and dispatches it to the least busy
worker.

The least busy worker has the fewest requests in progress and connections on their way.
A connection on its way counts as a request, since it usually brings one. If workers
tie, the one with the fewest connections is chosen, since each connection may send
another request. Workers that still tie take turns, so that none is always the first
choice.

This policy is best if requests take different times: a worker that is busy with a long
request gets no new connection.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.dispatch.policies.weighing import least_of
from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


@implementer(IDispatchPolicy)
class LeastBusy:
    """
    Goes by what each worker is doing now, not by what it did before.
    """

    kernel_chooses = False

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        return least_of(view)


policy = LeastBusy()
