"""
Tests for `kvd.dispatch.gate`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from twisted.logger import capturedLogs

from kvd.dispatch.gate import (
    MOST_ANSWERS,
    SILENT_SECONDS,
    TURN_SECONDS,
    Answers,
    AnswersInPython,
    Ask,
    Gate,
    load_before_forks,
    make_answers,
    policy_of_gates,
)
from kvd.dispatch.policies.gated import Gated
from kvd.errors import BrokenPlugin
from kvd.ipc.row import Row
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from kvd.plugins import Policy


class Hall:
    """
    Two workers and the gate of the first.
    """

    def __init__(
        self, board: Scoreboard, make: Callable[[Scoreboard, Ask], Answers]
    ) -> None:
        self.board = board
        self.later_ns = 0
        """How far the clock is ahead."""
        self.rows: list[Row] = [board.own_row(worker) for worker in range(2)]
        for worker in range(2):
            board.mark(worker, True)
        self.policy = Gated()
        self.gate = Gate(self.policy, 0, board, make)


@pytest.fixture(params=[make_answers, AnswersInPython])
def hall(request: pytest.FixtureRequest) -> Iterator[Hall]:
    """
    A new one, compiled and not.
    """
    memory = create_scoreboard(2)
    board = Scoreboard(memory)
    # It stands still: else a turn of a test's worker may be a long one.
    now = time.monotonic_ns()
    with mock.patch("time.monotonic_ns", return_value=now) as clock:
        made = Hall(board, request.param)
        clock.side_effect = lambda: now + made.later_ns
        yield made
    os.close(memory)


def test_policies_of_others_are_left_to_the_workers() -> None:
    """
    A fork server loads none of them: what they import may be a reactor.
    """
    theirs = Policy("theirs", "Somebody's.", "nobody.has.this.policy")
    with (
        mock.patch("kvd.plugins.getPlugins", return_value=[theirs]),
        mock.patch("kvd.plugins._found", {}),
    ):
        load_before_forks("theirs")
        load_before_forks("theirs:key=value")
        load_before_forks("unknown")
        with pytest.raises(BrokenPlugin):
            policy_of_gates("theirs")


def test_a_policy_is_asked_once_for_a_view(hall: Hall) -> None:
    """
    It would give the same answer. Of many views, only the last are remembered.
    """
    with mock.patch.object(hall.policy, "accepts", wraps=hall.policy.accepts) as asked:
        for _ in range(3):
            assert hall.gate.is_open(1)
        assert hall.gate.is_open(2)
        assert 2 == asked.call_count
        for waiting in range(MOST_ANSWERS + 1):
            assert hall.gate.is_open(waiting)
        assert MOST_ANSWERS + 1 == asked.call_count
        assert hall.gate.is_open(1)
        assert MOST_ANSWERS + 2 == asked.call_count


def test_a_policy_that_throws_dice_is_asked_each_time(hall: Hall) -> None:
    """
    Whichever way it throws them.
    """
    for throw in (
        lambda worker, view: view.random.random() < 2,
        lambda worker, view: view.random.choice([True]),
        lambda worker, view: view.random.getrandbits(1) < 2,
    ):
        with mock.patch.object(hall.policy, "accepts", side_effect=throw) as asked:
            for _ in range(3):
                assert hall.gate.is_open(1)
            assert 3 == asked.call_count


def test_it_is_open_while_nobody_is_less_busy(hall: Hall) -> None:
    """
    And closed as soon as somebody is.
    """
    assert hall.gate.is_open(1)
    hall.rows[1].opened()
    hall.rows[0].opened()
    assert hall.gate.is_open(1)
    hall.rows[0].opened()
    assert not hall.gate.is_open(1)
    hall.rows[0].closed()
    assert hall.gate.is_open(1)


def test_a_worker_that_gives_no_sign_of_life_does_not_count(hall: Hall) -> None:
    """
    It may be stopped, with nothing to do for ever. This worker itself always counts.
    """
    hall.rows[0].opened()
    hall.later_ns = int(SILENT_SECONDS * 1e9) + 10**9
    assert hall.gate.is_open(1)
    hall.rows[1].woke()
    assert not hall.gate.is_open(1)


def test_a_worker_that_is_busy_with_a_long_turn_does_not_count(hall: Hall) -> None:
    """
    It has fewer requests, and takes no connection until the turn is over.
    """
    hall.rows[0].opened()
    hall.rows[1].woke()
    assert not hall.gate.is_open(1)
    hall.later_ns = int(TURN_SECONDS * 1e9) + 10**6
    assert hall.gate.is_open(1)
    hall.rows[1].waits()
    assert not hall.gate.is_open(1)


def test_a_long_queue_opens_it(hall: Hall) -> None:
    """
    There is more than another needs to have as much to do.
    """
    for _ in range(5):
        hall.rows[0].opened()
    assert not hall.gate.is_open(5)
    assert hall.gate.is_open(6)


def test_one_of_many_connections_makes_no_difference(hall: Hall) -> None:
    """
    Else whoever has the fewest that stay would serve all that are short.
    """
    for _ in range(50):
        for row in hall.rows:
            row.opened()
    for more in range(1, 5):
        hall.rows[0].opened()
        assert hall.gate.is_open(1) == (more < 4)


def test_a_worker_that_takes_no_connections_does_not_count(hall: Hall) -> None:
    """
    It has died, is about to end or not yet there: then nobody has less to do. This
    worker itself always counts.
    """
    hall.rows[0].opened()
    hall.board.mark(1, False)
    assert hall.gate.is_open(1)

    hall.board.mark(0, False)
    hall.board.mark(1, True)
    assert not hall.gate.is_open(1)


def test_a_policy_sees_what_each_worker_does(hall: Hall) -> None:
    """
    And never nobody.
    """
    for worker in range(2):
        hall.board.mark(worker, False)
    hall.rows[0].opened()
    hall.rows[1].opened()
    hall.rows[1].began("GET")
    with mock.patch.object(hall.policy, "accepts") as accepts:
        hall.gate.is_open(7)
    ((worker, seen), _) = accepts.call_args

    assert 0 == worker
    assert 7 == seen.waiting
    assert ([0], (1, 1), (0, 1)) == (seen.ready, seen.connections, seen.requests)


def test_a_policy_that_fails_keeps_nobody_out(hall: Hall) -> None:
    """
    It is said once.
    """
    hall.rows[0].opened()
    with (
        mock.patch.object(hall.policy, "accepts", side_effect=ZeroDivisionError),
        capturedLogs() as events,
    ):
        assert hall.gate.is_open(1)
        assert hall.gate.is_open(1)

    assert 1 == len(events)
