"""
Scoreboards with work on them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from kvd.histogram import BUCKETS
from kvd.scoreboard import Row, Scoreboard, Sums, create_scoreboard

NOTHING = Sums(
    starts=1,
    accepted=0,
    requests=0,
    bytes_in=0,
    bytes_out=0,
    busy_seconds=0.0,
    serving_seconds=0.0,
    latency=[0] * BUCKETS,
    loop_delay=[0] * BUCKETS,
)
"""
Of a worker that has just begun.
"""


def served(requests: int, bucket: int = 10) -> Sums:
    """
    The sums of a worker that has served so many alike.
    """
    latency = [0] * BUCKETS
    latency[bucket] = requests
    return replace(NOTHING, accepted=requests, requests=requests, latency=latency)


@contextmanager
def scoreboard(workers: int) -> Iterator[Scoreboard]:
    """
    An empty one.
    """
    memory = create_scoreboard(workers)
    try:
        yield Scoreboard(memory)
    finally:
        os.close(memory)


def serve(row: Row, requests: int, seconds: float = 0.001) -> None:
    """
    Count requests of one connection, each of which took so long.
    """
    row.opened()
    for _ in range(requests):
        row.began()
        row.finished(seconds)
    row.closed()
