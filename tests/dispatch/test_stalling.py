"""
Tests for `kvd.dispatch.stalling`, on a true scoreboard.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator
from math import inf
from unittest import mock

import pytest
from twisted.logger import capturedLogs

from kvd.dispatch.stalling import (
    AWAITED_LOOKS,
    LOOK_SECONDS,
    SOON_LOOK_SECONDS,
    SUSPECT_SECONDS,
    Stalls,
)
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard


class Watched:
    """
    Two workers, and a clock that moves on request.
    """

    def __init__(self, board: Scoreboard) -> None:
        self.now = time.monotonic_ns()
        with self.time():
            self.rows = [board.own_row(worker) for worker in range(2)]
        self.now += 10**7
        self.board = board
        self.stalls = Stalls(board)
        self.waits_for: set[int] = set()
        self.asked: list[int] = []

    def time(self) -> mock._patch[mock.MagicMock]:
        """
        As the clock says.
        """
        return mock.patch("time.monotonic_ns", side_effect=lambda: self.now)

    def look(
        self,
        seconds: float = 0.2,
        due: float | None = None,
        passes: float | None = None,
    ) -> bool:
        """
        After so long; when it was due, unless another time is given. The clock moves
        for less if some of that has passed already.
        """
        self.now += int((passes or seconds) * 1e9)

        def awaited(workers: Collection[int]) -> set[int]:
            return self.waits_for & set(workers)

        with self.time():
            return self.stalls.look(
                seconds, due or seconds, [0, 1], awaited, self.asked.extend
            )

    def wakes(self, worker: int) -> None:
        """
        A sign.
        """
        with self.time():
            self.rows[worker].woke()


@pytest.fixture
def watched() -> Iterator[Watched]:
    """
    New ones.
    """
    memory = create_scoreboard(2)
    yield Watched(Scoreboard(memory))
    os.close(memory)


def test_silence_is_counted_from_look_to_look(watched: Watched) -> None:
    """
    So the time in which nobody looked does not count: the whole machine may have been
    stopped. It begins with the last sign of life; another one ends it, and so does the
    end of the process.
    """
    watched.look()
    watched.look(0.3)
    assert pytest.approx({0: 0.51, 1: 0.51}) == watched.stalls.silent_looks
    watched.now += 10**12
    watched.wakes(0)
    watched.look()
    assert pytest.approx({1: 0.71}) == {
        worker: seconds
        for worker, seconds in watched.stalls.silent_looks.items()
        if worker == 1
    }
    assert watched.stalls.silent_looks.get(0, 0.0) <= 0.2
    watched.stalls.forget(1)
    assert 1 not in watched.stalls.silent_looks


def test_one_late_look_proves_no_silence(watched: Watched) -> None:
    """
    This process was stopped, and so the workers may have been. What is late counts for
    a second at most.
    """
    watched.look(0.5)
    watched.look(3600, due=0.2)

    assert set() == watched.stalls.stalled
    assert pytest.approx({0: 1.51, 1: 1.51}) == watched.stalls.silent_looks


def test_what_was_before_the_first_look_counts_for_a_second_at_most(
    watched: Watched,
) -> None:
    """
    Likewise.
    """
    watched.now += 3600 * 10**9
    watched.look()

    assert pytest.approx({0: 1.2, 1: 1.2}) == watched.stalls.silent_looks


def test_between_two_looks_a_worker_hangs_if_it_gave_no_sign_since(
    watched: Watched,
) -> None:
    """
    As soon as it has been silent for so long.
    """
    for _ in range(5):
        watched.look()
    assert pytest.approx(0.09) == watched.stalls.until_hung(1.1)
    watched.now += 5 * 10**7
    watched.wakes(0)
    watched.now += 5 * 10**7
    with watched.time():
        assert {1: pytest.approx(1.11)} == dict(watched.stalls.hung(1.1, 0.1))
        assert [] == watched.stalls.hung(1.2, 0.1)

    assert inf == watched.stalls.until_hung(0.9)
    watched.stalls.forget(0)
    watched.stalls.forget(1)
    assert inf == watched.stalls.until_hung(1.1)


def test_where_every_look_is_late_silence_is_found_all_the_same(
    watched: Watched,
) -> None:
    """
    The machine is very busy, and stays so. What a connection waits for, at the fourth
    look.
    """
    watched.waits_for = {1}
    for _ in range(AWAITED_LOOKS):
        watched.wakes(0)
        watched.look(0.6, due=0.2)
    assert {1} == watched.stalls.stalled
    watched.wakes(0)
    watched.look(0.6, due=0.2)
    assert pytest.approx(5 * 0.6 + 0.01) == watched.stalls.silent_looks[1]

    watched.waits_for = set()
    watched.wakes(1)
    for _ in range(4):
        watched.wakes(1)
        watched.look(0.6, due=0.2)
    assert {0} == watched.stalls.stalled


def test_a_worker_that_gives_no_sign_while_a_connection_waits_makes_no_turn(
    watched: Watched,
) -> None:
    """
    At the fourth look.
    """
    watched.waits_for = {0, 1}
    for _ in range(AWAITED_LOOKS - 1):
        assert not watched.look()
        watched.wakes(0)
    assert watched.look()
    assert {1} == watched.stalls.stalled


def test_all_that_give_no_sign_are_asked_when_a_connection_waits_for_one(
    watched: Watched,
) -> None:
    """
    Several may have been stopped, and one of them cannot stand in for another. One that
    only waits for events is woken by that.
    """
    watched.look()
    assert [] == watched.asked
    watched.waits_for = {1}
    for _ in range(AWAITED_LOOKS):
        watched.look()
    assert [0, 1] == watched.asked
    assert {0, 1} == watched.stalls.stalled

    watched.asked.clear()
    watched.wakes(0)
    watched.look(0.1)
    watched.look()
    assert [0] == watched.asked
    watched.wakes(0)
    watched.look()
    assert {1} == watched.stalls.stalled


def test_what_another_took_waited_all_the_same(watched: Watched) -> None:
    """
    A worker that lives would have given a sign.
    """
    watched.waits_for = {1}
    watched.look()
    watched.waits_for = set()
    watched.wakes(0)
    for _ in range(AWAITED_LOOKS - 1):
        watched.look()
        watched.wakes(0)

    assert {1} == watched.stalls.stalled


def test_a_sign_is_a_turn(watched: Watched) -> None:
    """
    Both when it wakes and when it begins to wait.
    """
    watched.waits_for = {0}
    for sign in (watched.rows[0].woke, watched.rows[0].waits):
        for _ in range(AWAITED_LOOKS):
            watched.look()
            watched.wakes(1)
        assert {0} == watched.stalls.stalled
        with watched.time():
            sign()
        assert watched.look()
        assert set() == watched.stalls.stalled


def test_each_stall_is_counted_and_reported_once(watched: Watched) -> None:
    """
    With its length at its end.
    """
    with capturedLogs() as events:
        for _ in range(10):
            watched.look()
            watched.wakes(0)
        watched.wakes(1)
        watched.look()
    reported = [
        (e["log_level"].name, e["worker"], round(e["seconds"], 1)) for e in events
    ]

    assert [("warn", 1, 1.6), ("info", 1, 2.0)] == reported
    assert [0, 1] == [of.stalls for of in watched.board.sums()]


def test_a_worker_that_takes_what_comes_meanwhile_is_reported(watched: Watched) -> None:
    """
    Others, or nobody.
    """
    with capturedLogs() as events:
        watched.wakes(0)
        watched.now += 10**9
        watched.wakes(0)
        watched.look(1)
        watched.look(2)

    assert [(1, "others take"), (0, "nobody takes")] == [
        (event["worker"], event["others"]) for event in events
    ]


def test_a_worker_that_is_gone_is_forgotten(watched: Watched) -> None:
    """
    Nothing is logged of what comes in its place.
    """
    watched.look(3)
    with capturedLogs() as events:
        for worker in (0, 1):
            watched.stalls.forget(worker)
            watched.wakes(worker)
        assert not watched.look()

    assert [] == events


def test_it_looks_more_often_while_a_connection_waits(watched: Watched) -> None:
    """
    Until it is known who is stalled.
    """
    assert LOOK_SECONDS == watched.stalls.due_seconds
    watched.waits_for = {1}
    for _ in range(AWAITED_LOOKS - 1):
        watched.wakes(0)
        watched.look()
        assert SOON_LOOK_SECONDS == watched.stalls.due_seconds
    watched.wakes(0)
    watched.look(SUSPECT_SECONDS / 2)
    assert {1} == watched.stalls.stalled
    assert LOOK_SECONDS == watched.stalls.due_seconds


def test_a_worker_that_has_given_a_sign_just_now_is_not_suspected(
    watched: Watched,
) -> None:
    """
    However many connections wait: it is busy. One that gave it a little earlier is, as
    it may have stopped then.
    """
    watched.waits_for = {0, 1}
    for _ in range(2 * AWAITED_LOOKS):
        for worker in (0, 1):
            watched.wakes(worker)
        watched.look(passes=SUSPECT_SECONDS - 0.01)
    assert [] == watched.asked
    assert LOOK_SECONDS == watched.stalls.due_seconds

    watched.wakes(0)
    watched.now += 2 * 10**7
    watched.wakes(1)
    watched.look(passes=SUSPECT_SECONDS - 0.01)
    assert [0] == watched.asked
