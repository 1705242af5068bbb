"""
``reuseport``: each worker has a listening socket (``SO_REUSEPORT``), and the kernel
chooses one by a hash of addresses and ports.

No worker waits for a lock or wakes up for a connection that another one accepts. But
the hash ignores load, and a worker does not help another one whose queue is long.
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
        # A model: the hash chooses each socket equally often, and another worker serves
        # the socket of a worker that is not ready.
        member = view.random.randrange(len(view.connections))
        if member in view.ready:
            return member
        return view.ready[member % len(view.ready)]


policy = ReusePort()
