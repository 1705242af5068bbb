"""
Tests for `kvd.control.status` and `kvd.balance`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from kvd.balance import jain_index
from kvd.control.status import WorkerState, describe
from kvd.scoreboard import Scoreboard, create_scoreboard
from kvd.settings import Settings


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """
    For three workers.
    """
    memory = create_scoreboard(3)
    yield Scoreboard(memory)
    os.close(memory)


def test_who_is_gone_does_not_count(board: Scoreboard) -> None:
    """
    Its row still holds what it last did.
    """
    for worker, requests in enumerate((5, 5, 100)):
        row = board.own_row(worker)
        for _ in range(requests):
            row.began()
            row.finished(0.001)
    workers = [
        WorkerState(0, 10, "ready", 1),
        WorkerState(1, 11, "draining", 0),
        WorkerState(2, 0, "starting", 0),
    ]
    told = describe(Settings(procs=3), [], workers, board, 1.23456)

    assert [5, 5] == [row["requests"] for row in told["workers"] if "requests" in row]
    assert 1.0 == told["balance"]["requests"]
    assert (None, "starting") == (
        told["workers"][2]["pid"],
        told["workers"][2]["state"],
    )
    assert 1 == told["workers"][0]["handing_over"]
    assert 1.235 == told["uptime_seconds"]


@pytest.mark.parametrize(
    ("shares", "index"),
    [
        ([], 1.0),
        ([0, 0], 1.0),
        ([7], 1.0),
        ([3, 3, 3], 1.0),
        ([9, 0, 0], 1 / 3),
        ([1, 0, 1, 0], 0.5),
        ([1, 2, 3], 36 / 42),
    ],
)
def test_jains_index(shares: list[float], index: float) -> None:
    """
    From one over n to one.
    """
    assert index == pytest.approx(jain_index(shares))
