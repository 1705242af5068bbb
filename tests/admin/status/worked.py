"""
Scoreboards with work on them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kvd.admin.status.ledger import NOTHING
from kvd.ipc.counts import MethodSums, Sums
from kvd.ipc.histogram import BUCKETS
from kvd.ipc.row import STATUSES, Row
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard


def served(requests: int, bucket: int = 10, status: str = "2xx") -> Sums:
    """
    The sums of a worker that has served this many equal requests.
    """
    latency = [0] * BUCKETS
    latency[bucket] = requests
    statuses = [requests * (name == status) for name in STATUSES]
    total = MethodSums(tuple(statuses), 0.0, tuple(latency))
    return replace(NOTHING, accepted=requests, requests=requests, total=total)


@contextmanager
def scoreboard(workers: int) -> Iterator[Scoreboard]:
    """
    Make an empty scoreboard.
    """
    memory = create_scoreboard(workers)
    try:
        yield Scoreboard(memory)
    finally:
        os.close(memory)


def serve(row: Row, requests: int, seconds: float = 0.001) -> None:
    """
    Count requests of one connection, each with this duration.
    """
    row.opened()
    for _ in range(requests):
        row.began("GET")
        row.finished(seconds, "GET", 200)
    row.closed()
