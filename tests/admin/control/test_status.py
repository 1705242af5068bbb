"""
Tests for `kvd.admin.control.status` and `kvd.dispatch.balance`.
"""

from __future__ import annotations

import os
import socket
from bisect import bisect_right
from collections.abc import Iterator

import pytest

from kvd.admin.control.status import WorkerState, describe
from kvd.dispatch.balance import jain_index
from kvd.ipc.histogram import BOUNDS_SECONDS
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from kvd.net.listening import open_group
from kvd.settings import Settings, TCPAddress


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    """
    A scoreboard for three workers.
    """
    memory = create_scoreboard(3)
    yield Scoreboard(memory)
    os.close(memory)


def test_a_worker_without_a_process_does_not_count(board: Scoreboard) -> None:
    """
    Its row still has the counts of its last process.
    """
    for worker, requests in enumerate((5, 5, 100)):
        row = board.own_row(worker)
        for _ in range(requests):
            row.began("GET")
            row.finished(0.001, "GET", 200)
    workers = [
        WorkerState(0, 10, "ready", 1),
        WorkerState(1, 11, "draining", 0),
        WorkerState(2, 0, "starting", 0),
    ]
    described = describe(Settings(procs=3), [], workers, board, 1.23456)

    assert [5, 5] == [
        row["requests"] for row in described["workers"] if "requests" in row
    ]
    assert 1.0 == described["balance"]["requests"]
    assert (None, "starting") == (
        described["workers"][2]["pid"],
        described["workers"][2]["state"],
    )
    assert 1 == described["workers"][0]["handing_over"]
    assert 1.235 == described["uptime_seconds"]


def test_totals_never_fall() -> None:
    """
    While a worker is replaced, or after it was scaled down.
    """
    memory = create_scoreboard(1, rows=8)
    board = Scoreboard(memory)
    os.close(memory)
    board.workers = 3
    for worker in range(3):
        row = board.own_row(worker)
        row.opened()
        row.received(10)
        row.sent(20)
        row.began("GET")
        row.finished(0.001, "GET", 200)
        board.count_stall(worker)

    def totals(*states: str) -> object:
        workers = [
            WorkerState(number, 0, state, 0) for number, state in enumerate(states)
        ]
        described = describe(Settings(procs=3), [], workers, board, 1.0)["totals"]
        return {
            name: value
            for name, value in described.items()
            if name not in ("busy_seconds", "statuses")
        }

    all_of_them = {
        "starts": 3,
        "stalls": 3,
        "accepted": 3,
        "requests": 3,
        "bytes_in": 30,
        "bytes_out": 60,
    }
    statuses = describe(Settings(procs=3), [], [], board, 1.0)["totals"]["statuses"]
    assert {"2xx": 3} == {status: count for status, count in statuses.items() if count}
    assert {"2xx", "3xx", "4xx", "5xx", "499", "501", "507"} == set(statuses)
    assert all_of_them == totals("ready", "ready", "ready")
    assert all_of_them == totals("ready", "starting", "ended")
    board.workers = 1
    assert all_of_them == totals("ready")
    board.workers = 2
    assert all_of_them == totals("ready", "starting")


def test_histograms_have_their_bounds(board: Scoreboard) -> None:
    """
    Of requests, and of turns of the reactor, which twistd's own reactor does not count.
    """
    row = board.own_row(0)
    row.finished(0.3, "GET", 200)
    row.woke()
    row.waits()
    workers = [WorkerState(0, 10, "ready", 0)]
    (described,) = describe(Settings(procs=1), [], workers, board, 1.0)["workers"]
    alone = describe(Settings(procs=0), [], workers, board, 1.0)

    assert 1 == described["latency"][bisect_right(BOUNDS_SECONDS, 0.3)]
    assert 1 == sum(described["latency"]) == sum(described["loop_delay"])
    assert "loop_delay" not in alone["workers"][0]
    assert len(described["latency"]) == len(alone["bucket_seconds"]) + 1


@pytest.mark.parametrize(
    ("members", "own"),
    [
        ([{0}, {1}, {2}], [0, 1, 2]),
        ([{0}, {0}, {2}], [None, None, 2]),
        ([{0, 1, 2}] * 3, [None, None, None]),
        ([{0}, {1}], [0, 1, None]),
        ([], [None, None, None]),
    ],
)
def test_queues_are_reported_by_socket(
    board: Scoreboard, members: list[set[int]], own: list[int | None]
) -> None:
    """
    And by worker, if no other worker accepts from the socket.
    """
    group = open_group(TCPAddress("127.0.0.1", 0), 3)
    workers = [WorkerState(number, 10, "starting", 0) for number in range(3)]
    address = group.members[0].getsockname()
    with socket.create_connection(address), socket.create_connection(address):
        described = describe(
            Settings(procs=3), [group], workers, board, 1.0, members=members
        )
        group.close()

    (queue,) = described["accept_queues"]
    assert str(group.address) == queue["address"]
    assert (3, 2) == (len(queue["waiting"]), sum(queue["waiting"]))
    expected = [None if of is None else queue["waiting"][of] for of in own]
    assert expected == [row.get("accept_queue") for row in described["workers"]]


def test_a_draining_daemon_says_so(board: Scoreboard) -> None:
    """
    Its sockets, which are closed, have no queues.
    """
    group = open_group(TCPAddress("127.0.0.1", 0), 1)
    group.close()
    described = describe(Settings(), [group], [], board, 1.0, draining=True)

    assert described["draining"]
    assert [] == described["accept_queues"]


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
