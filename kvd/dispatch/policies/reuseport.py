"""
``reuseport``: a listening socket for each worker; the kernel's hash chooses.

Nobody waits for a lock or wakes in vain, and nobody helps a neighbour whose
queue is long: the hash of addresses and ports knows no load.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.interfaces import IDispatchPolicy
from kvd.model.view import View


@implementer(IDispatchPolicy)
class ReusePort:
    """
    Each worker accepts from its own socket.
    """

    kernel_chooses = True

    def group_size(self, workers: int) -> int:
        return workers

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (worker,)

    def choose(self, view: View) -> int:
        # A model: the hash falls on each socket alike, and the socket of a
        # worker that is not ready is served by the one that its number meets.
        member = view.random.randrange(len(view.connections))
        if member in view.ready:
            return member
        return view.ready[member % len(view.ready)]


policy = ReusePort()
