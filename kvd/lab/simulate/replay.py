"""
A record of a daemon as a load.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, cycle

from zope.interface import implementer

from kvd.http.record import Connection
from kvd.interfaces import IDispatchPolicy
from kvd.lab.simulate.load import Load
from kvd.model.view import View


def with_requests(record: Sequence[Connection]) -> list[Connection]:
    """
    The connections with requests, in the order of their arrival. The others cost their
    worker almost nothing.
    """
    served = [one for one in record if one.requests]
    return sorted(served, key=lambda one: one.arrived_ns)


def load_of(record: Sequence[Connection]) -> Load:
    """
    Connections that arrive as they were recorded, each with its requests. A record has
    only the sums of a connection: its requests are taken to be equal and equally far
    apart.

    Args:
        record: As `with_requests` gives it; not empty.
    """
    start = record[0].arrived_ns
    return Load(
        [(one.arrived_ns - start) / 1e9 for one in record],
        [0, *accumulate(one.requests for one in record)],
        [
            one.service_ns / one.requests / 1e9
            for one in record
            for _ in range(one.requests)
        ],
        0,
        [max(0, one.open_ns - one.service_ns) / one.requests / 1e9 for one in record],
    )


def workers_in(record: Sequence[Connection]) -> int:
    """
    The least number of workers that there were.
    """
    return max(one.worker for one in record) + 1


@implementer(IDispatchPolicy)
class AsRecorded:
    """
    Repeats the recorded choices. It is not a plugin, since it counts how often it was
    asked.
    """

    kernel_chooses = False

    def __init__(self, record: Sequence[Connection]) -> None:
        """
        Args:
            record: Of the load.
        """
        # Asked once for each connection, and again from the first in the next run.
        self._workers = cycle([one.worker for one in record])

    def group_size(self, workers: int) -> int:
        return 1

    def members_of(self, worker: int, workers: int) -> Sequence[int]:
        return ()

    def choose(self, view: View) -> int:
        return next(self._workers)
