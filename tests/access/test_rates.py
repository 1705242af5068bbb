"""
Tests for `kvd.access.rates` and `kvd.access.networks`.
"""

from __future__ import annotations

import os
from collections import Counter
from random import Random

import pytest
from twisted.internet.task import Clock

from kvd.access.counting import SLOTS, CountingMemory
from kvd.access.networks import OpenConnections
from kvd.access.rates import Rates
from kvd.errors import TooManyRequests
from tests.chance import new_seed


def test_nobody_may_ask_more_often_than_that() -> None:
    """
    In any stretch of time, at most a burst of a second and what the time allows; and
    whoever was refused may ask again at the time that was named.
    """
    random = Random(new_seed())
    for _ in range(20):
        rates, rate, now = Rates(CountingMemory()), random.choice([1, 3, 50, 1000]), 0.0
        granted: list[float] = []
        for _ in range(500):
            now += random.expovariate(rate * random.choice([0.5, 1, 4]))
            wait_seconds = rates.wait_seconds("one", rate, now)
            if not wait_seconds:
                granted.append(now)
                first = random.randrange(len(granted))
                stretch = now - granted[first]
                assert len(granted) - first <= rate * (1 + stretch) + 1e-3
            elif random.random() < 0.1:
                now += wait_seconds + 1e-6
                assert not rates.wait_seconds("one", rate, now)
                granted.append(now)


def test_an_even_pace_is_never_refused() -> None:
    """
    Nor a burst of one second after a pause.
    """
    rates = Rates(CountingMemory())
    for rate in (1, 3, 7, 1000):
        for number in range(3 * rate):
            assert not rates.wait_seconds(f"{rate}", rate, 100 + number / rate + 1e-6)
        assert [0.0] * rate == [
            rates.wait_seconds(f"{rate}", rate, 1000.0) for _ in range(rate)
        ]
        assert 0 < rates.wait_seconds(f"{rate}", rate, 1000.0) <= 1 / rate


def test_all_processes_count_together() -> None:
    """
    What a fork has counted, all others know.
    """
    rates = Rates(CountingMemory())
    for _ in range(3):
        child = os.fork()
        if child == 0:
            waits = [rates.wait_seconds("one", 6, 50.0) for _ in range(2)]
            os._exit(any(waits))
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert 0 < rates.wait_seconds("one", 6, 50.0)
    assert 0 == rates.wait_seconds("two", 6, 50.0)


def test_more_names_than_slots_are_bounded() -> None:
    """
    A name whose slot was given away begins anew; no other name is refused for it.
    """
    rates = Rates(CountingMemory())
    refused: Counter[bool] = Counter()
    for number in range(4 * SLOTS):
        refused[bool(rates.wait_seconds(str(number), 1, 5.0))] += 1

    assert {False: 4 * SLOTS} == refused


def test_the_refusal_names_the_client_and_the_time() -> None:
    """
    In whole seconds, at least one.
    """
    rates, clock = Rates(CountingMemory()), Clock()
    rates.check("The user ci", 2, clock)
    rates.check("The user ci", 2, clock)

    with pytest.raises(TooManyRequests, match=r"user ci may send 2 requests") as caught:
        rates.check("The user ci", 2, clock)

    assert 1 == caught.value.seconds


def test_open_connections_are_counted_by_address() -> None:
    """
    What ended makes room, and nothing is left of it.
    """
    counts = CountingMemory().open_counts(0)
    open_ones = OpenConnections(2, counts)
    one, same = ("2001:db8::1", 1, 0, 0), ("2001:db8::2", 2, 0, 0)
    other = ("192.0.2.1", 1)
    open_ones.opened(one)
    open_ones.opened(same)

    assert [False, False, True] == list(map(open_ones.has_room, (one, same, other)))
    open_ones.closed(one)
    assert open_ones.has_room(same)
    open_ones.closed(same)
    assert {} == counts._open
