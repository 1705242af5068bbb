"""
Tests for `kvd.lab.bench.sampling`.
"""

from __future__ import annotations

import os
from typing import Any

from kvd.lab.bench.sampling import Sampler


def status(*workers: tuple[int | None, int, int]) -> dict[str, Any]:
    """
    A daemon's status: the process id of each worker, how many requests it has
    ended, and how many are in progress.
    """
    return {
        "pid": os.getpid(),
        "workers": [
            {"worker": worker, "pid": pid}
            | ({"requests": done, "in_progress": now} if pid else {})
            for worker, (pid, done, now) in enumerate(workers)
        ],
    }


class Played:
    """
    Gives one status after the other, and the last one again and again.
    """

    def __init__(self, *statuses: dict[str, Any]) -> None:
        self._statuses = list(statuses)

    def __call__(self) -> dict[str, Any]:
        if len(self._statuses) > 1:
            return self._statuses.pop(0)
        return self._statuses[0]


def test_counts_what_ended_since_the_beginning() -> None:
    """
    Not what was before.
    """
    first = status((101, 5, 0), (102, 7, 0))
    last = status((101, 15, 0), (102, 7, 0))
    sampler = Sampler(Played(first, last))

    assert [10, 0] == sampler.finish().requests


def test_waits_until_the_workers_have_counted() -> None:
    """
    A client has its reply a moment before the worker's row says so.
    """
    sampler = Sampler(
        Played(status((101, 0, 0)), status((101, 3, 1)), status((101, 4, 0)))
    )

    assert [4] == sampler.finish().requests


def test_keeps_what_was_in_progress() -> None:
    """
    Each sample, in order; a place without a process does nothing.
    """
    sampler = Sampler(
        Played(
            status((101, 0, 0), (102, 0, 0)),
            status((101, 0, 2), (102, 0, 1)),
            status((101, 0, 1), (None, 0, 0)),
            status((101, 2, 0), (103, 0, 0)),
        )
    )
    sampler.sample()
    sampler.sample()

    work = sampler.finish()

    assert [(2, 1), (1, 0), (0, 0)] == [s.in_progress for s in work.samples]


def test_a_replaced_worker_counts_from_zero() -> None:
    """
    What the one before it counted is lost, and the table says so.
    """
    sampler = Sampler(Played(status((101, 50, 0)), status((102, 3, 0))))

    assert [3] == sampler.finish().requests


def test_cpu_time_of_the_supervisor_is_separate() -> None:
    """
    This process plays it; the workers are none.
    """
    sampler = Sampler(Played(status((None, 0, 0))))
    before = sum(os.times()[:2])
    while sum(os.times()[:2]) < before + 0.03:
        pass

    work = sampler.finish()

    assert work.supervisor_cpu_seconds > 0
    assert 0 == work.worker_cpu_seconds
