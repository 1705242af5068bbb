"""
``shared``: one listening socket for all; the first to wake takes the connection.

The baseline: the kernel wakes whoever waits, and who is busy wakes later.
"""

from __future__ import annotations

from collections.abc import Sequence

from zope.interface import implementer

from kvd.interfaces import IDispatchPolicy


@implementer(IDispatchPolicy)
class Shared:
    """
    Everybody accepts from the same socket.
    """

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return (0,)


policy = Shared()
