"""
Tests for `kvd.http.timeouts`.
"""

import pytest

from kvd.http.states import State
from kvd.http.timeouts import (
    LINGER_SECONDS,
    LINGER_SILENT_SECONDS,
    READER_BYTES,
    Timeouts,
    bounds_of,
)
from kvd.settings import Limits

LIMITS = Limits(head_seconds=10, body_seconds=60, reader_seconds=30, idle_seconds=600)

BOUNDS = [
    (State.IDLE, 600),
    (State.HEAD, 10),
    (State.BODY, 60),
    (State.SENDING, 30),
    (State.CLOSING, 30),
    (State.LINGER, LINGER_SILENT_SECONDS),
]


@pytest.mark.parametrize(("state", "bound"), BOUNDS)
def test_each_wait_has_its_bound(state: State, bound: float) -> None:
    """
    A wait is over when its own bound has passed, and not before.
    """
    timeouts = Timeouts(bounds_of(LIMITS), now=0)
    timeouts.start(now=100)

    assert not timeouts.is_over(state, 100 + bound - 0.01, moved=0)
    assert timeouts.is_over(state, 100 + bound, moved=0)


@pytest.mark.parametrize("state", [State.SENDING, State.CLOSING])
def test_progress_starts_the_wait_anew(state: State) -> None:
    """
    Whoever moves a byte now and then is waited for as long as it takes.
    """
    timeouts = Timeouts(bounds_of(LIMITS), now=0)
    timeouts.start(now=0)

    for moved in range(1, 50):
        assert not timeouts.is_over(state, moved * 29.0, moved)


def test_a_reader_has_more_time_where_less_is_heard_of_it() -> None:
    """
    As many times its bound as it may read `READER_BYTES` unheard, and once at least.
    """
    for unheard, times in ((0, 1), (READER_BYTES // 2, 1), (READER_BYTES * 4, 4)):
        timeouts = Timeouts(bounds_of(LIMITS), now=0)
        timeouts.start(now=0)

        assert not timeouts.is_over(State.SENDING, 30 * times - 0.01, 0, unheard)
        assert timeouts.is_over(State.SENDING, 30 * times, 0, unheard)


def test_a_head_has_its_time_in_all() -> None:
    """
    Bytes that trickle in do not prolong the wait for a head.
    """
    timeouts = Timeouts(bounds_of(LIMITS), now=0)
    timeouts.start(now=0)
    for second in range(1, 10):
        assert not timeouts.is_over(State.HEAD, second, moved=second)

    assert timeouts.is_over(State.HEAD, 10, moved=10)


def test_bytes_moved_before_a_wait_are_no_progress_in_it() -> None:
    """
    Only what moves during the wait counts.
    """
    timeouts = Timeouts(bounds_of(LIMITS), now=0)
    timeouts.is_over(State.HEAD, 1, moved=5)
    timeouts.start(now=2)
    timeouts.is_over(State.SENDING, 3, moved=5)

    assert timeouts.is_over(State.SENDING, 32, moved=5)


def test_a_store_takes_its_time() -> None:
    """
    The store has bounds of its own.
    """
    timeouts = Timeouts(bounds_of(LIMITS), now=0)
    timeouts.start(now=0)

    assert not timeouts.is_over(State.STORE, 1e9, moved=0)


def test_lingering_ends_even_for_a_client_that_sends_on_and_on() -> None:
    """
    A client that never closes is left behind after the whole bound.
    """
    timeouts = Timeouts(bounds_of(LIMITS), now=0)
    timeouts.start(now=0)
    now, moved = 0.0, 0
    while now < LINGER_SECONDS - 1:
        now, moved = now + 1, moved + 1
        assert not timeouts.is_over(State.LINGER, now, moved)

    assert timeouts.is_over(State.LINGER, LINGER_SECONDS, moved + 1)


def test_each_request_is_awaited_anew() -> None:
    """
    The idle time runs from the last reply, not from the first.
    """
    timeouts = Timeouts(bounds_of(LIMITS), now=0)
    timeouts.start(now=500)

    assert not timeouts.is_over(State.IDLE, 1099, moved=0)
    assert timeouts.is_over(State.IDLE, 1100, moved=0)
