"""
The tests of `kvd.s3.endpoints`.
"""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock

from kvd.s3.endpoints import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, Endpoints
from tests.chance import new_seed


def endpoints(clock: Clock) -> Endpoints:
    """
    Three of them.
    """
    return Endpoints(["one", "two", "three"], clock, Random(new_seed()))


def test_idle_endpoints_take_turns() -> None:
    """
    Requests that come one after the other go to all endpoints.
    """
    choice = endpoints(Clock())

    assert {"one", "two", "three"} == {choice.choose().url for _ in range(3)}


def test_the_least_busy_is_chosen() -> None:
    """
    An endpoint with fewer requests than the others gets the next one.
    """
    choice = endpoints(Clock())
    for each in choice.all:
        each.active = 2
    choice.all[1].active = 1

    assert {"two"} == {choice.choose().url for _ in range(5)}


def test_one_that_failed_is_left_alone_for_a_time() -> None:
    """
    The more often it failed, the longer, up to a bound; one answer makes up for it.
    """
    clock = Clock()
    choice = endpoints(clock)
    bad = choice.all[0]
    choice.failed(bad)
    assert "one" not in {choice.choose().url for _ in range(9)}
    clock.advance(FIRST_PAUSE_SECONDS)
    assert "one" in {choice.choose().url for _ in range(9)}

    for _ in range(2000):
        choice.failed(bad)
    pause = bad.down_until - clock.seconds()
    assert LONGEST_PAUSE_SECONDS / 2 <= pause <= LONGEST_PAUSE_SECONDS
    choice.worked(bad)
    assert "one" in {choice.choose().url for _ in range(9)}


def test_if_all_failed_the_first_to_return_is_tried() -> None:
    """
    There is always an endpoint to try.
    """
    choice = endpoints(Clock())
    for each, times in zip(choice.all, (9, 1, 9), strict=True):
        for _ in range(times):
            choice.failed(each)

    assert {"two"} == {choice.choose().url for _ in range(5)}
