"""
Tests for `kvd.http.timeouts`.
"""

import pytest

from kvd.http.timeouts import (
    LINGER_SECONDS,
    LINGER_SILENT_SECONDS,
    READER_BYTES,
    Patience,
    Waits,
    bounds_of,
)
from kvd.settings import Limits

LIMITS = Limits(head_seconds=10, body_seconds=60, reader_seconds=30, idle_seconds=600)

BOUNDS = [
    (Waits.IDLE, 600),
    (Waits.HEAD, 10),
    (Waits.BODY, 60),
    (Waits.READER, 30),
    (Waits.LINGER, LINGER_SILENT_SECONDS),
]


@pytest.mark.parametrize(("waits", "bound"), BOUNDS)
def test_each_wait_has_its_bound(waits: Waits, bound: float) -> None:
    """
    A wait is over when its own bound has passed, and not before.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.wait(waits, now=100)

    assert not patience.is_over(100 + bound - 0.01, moved=0)
    assert patience.is_over(100 + bound, moved=0)


@pytest.mark.parametrize("waits", [Waits.BODY, Waits.READER])
def test_progress_starts_the_wait_anew(waits: Waits) -> None:
    """
    Whoever moves a byte now and then is waited for as long as it takes.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.wait(waits, now=0)

    for moved in range(1, 50):
        assert not patience.is_over(moved * 29.0, moved)


def test_a_reader_has_more_time_where_less_is_heard_of_it() -> None:
    """
    As many times its bound as it may read `READER_BYTES` unheard, and once at least.
    """
    for unheard, times in ((0, 1), (READER_BYTES // 2, 1), (READER_BYTES * 4, 4)):
        patience = Patience(bounds_of(LIMITS), now=0)
        patience.wait(Waits.READER, now=0)

        assert not patience.is_over(30 * times - 0.01, 0, unheard)
        assert patience.is_over(30 * times, 0, unheard)


def test_a_head_has_its_time_in_all() -> None:
    """
    Bytes that trickle in do not prolong the wait for a head.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.wait(Waits.HEAD, now=0)
    for second in range(1, 10):
        assert not patience.is_over(second, moved=second)

    assert patience.is_over(10, moved=10)


def test_bytes_moved_before_a_wait_are_no_progress_in_it() -> None:
    """
    Only what moves during the wait counts.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.is_over(1, moved=5)
    patience.wait(Waits.READER, now=2)
    patience.is_over(3, moved=5)

    assert patience.is_over(32, moved=5)


def test_a_store_takes_its_time() -> None:
    """
    The store has bounds of its own.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.wait(Waits.STORE, now=0)

    assert not patience.is_over(1e9, moved=0)


def test_lingering_ends_even_for_a_client_that_sends_on_and_on() -> None:
    """
    A client that never closes is left behind after the whole bound.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.wait(Waits.LINGER, now=0)
    now, moved = 0.0, 0
    while now < LINGER_SECONDS - 1:
        now, moved = now + 1, moved + 1
        assert not patience.is_over(now, moved)

    assert patience.is_over(LINGER_SECONDS, moved + 1)


def test_waiting_for_the_same_goes_on() -> None:
    """
    Saying again what is waited for does not start the wait anew.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.wait(Waits.HEAD, now=0)
    patience.wait(Waits.HEAD, now=9)

    assert patience.is_over(10, moved=0)


def test_each_request_is_awaited_anew() -> None:
    """
    The idle time runs from the last reply, not from the first.
    """
    patience = Patience(bounds_of(LIMITS), now=0)
    patience.wait(Waits.IDLE, now=500)

    assert not patience.is_over(1099, moved=0)
    assert patience.is_over(1100, moved=0)
