"""
How busy workers are, so that they can be compared.

Requests in progress count first, then connections, for each may ask again. A connection
on its way counts as both, since a request mostly comes with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import add

from kvd.model.view import View


def weigh(view: View) -> Iterable[tuple[int, int]]:
    """
    How much each of ``view.ready`` has to do, in their order; less is less. To be gone
    through once.
    """
    ready, requests, connections = view.ready, view.requests, view.connections
    # Put together by the interpreter's own functions: with 32 workers half the time
    # of a loop.
    if any(view.handing_over):
        requests = list(map(add, requests, view.handing_over))
        connections = list(map(add, connections, view.handing_over))
    if len(ready) < len(requests):
        return [(requests[worker], connections[worker]) for worker in ready]
    return zip(requests, connections, strict=True)


def weigh_one(view: View, worker: int) -> tuple[int, int]:
    """
    How much one has to do.
    """
    coming = view.handing_over[worker]
    return view.requests[worker] + coming, view.connections[worker] + coming
