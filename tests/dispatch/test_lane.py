"""
Tests for `kvd.dispatch.lane`, in both ways.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from fcntl import F_DUPFD_CLOEXEC, fcntl
from random import Random, randrange
from typing import Final

import pytest

from kvd.dispatch.lane import Lane, LaneInPython, MakeLane, make_lane
from kvd.dispatch.primitives import Accepted

FAMILY: Final = 2

each_way = pytest.mark.parametrize(
    "make", [LaneInPython, make_lane], ids=["Python", "compiled"]
)


def test_the_faster_way_is_compiled() -> None:
    """
    Else it would not be tested here.
    """
    assert make_lane is not LaneInPython


class Road:
    """
    A lane, the row that it reads, and what it closes.
    """

    def __init__(self, make: MakeLane) -> None:
        self.row = memoryview(bytearray(16)).cast("Q")
        self.lane: Lane = make(-1, [], -1, self.row[:], 1)
        self.made: list[int] = []

    def connections(self, count: int) -> list[Accepted]:
        """
        Some more connections: descriptors, of whatever it is.
        """
        made = []
        for _ in range(count):
            # Each has a number of its own, also after others are closed; and none has
            # one that is another's in this process.
            descriptor = os.eventfd(0)
            above = self.made[-1] + 1 if self.made else descriptor
            own = fcntl(descriptor, F_DUPFD_CLOEXEC, above)
            os.close(descriptor)
            self.made.append(own)
            made.append((own, FAMILY))
        return made

    def open(self) -> list[int]:
        """
        Which of all these are open, by their places.
        """
        return [place for place, made in enumerate(self.made) if is_open(made)]

    def end(self) -> None:
        """
        Nothing is left open.
        """
        for place in self.open():
            os.close(self.made[place])


def is_open(descriptor: int) -> bool:
    """
    Whether there is such a descriptor.
    """
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.fixture
def road(make: MakeLane) -> Iterator[Road]:
    """
    With nothing on it.
    """
    made = Road(make)
    yield made
    made.end()


@each_way
def test_what_was_taken_is_closed(road: Road) -> None:
    """
    Up to the batch that the row names, and no further.
    """
    road.lane.sent(2, road.connections(2), 10.0)
    road.lane.sent(3, road.connections(1), 11.0)
    road.lane.sent(5, road.connections(3), 12.0)
    assert (6, 10.0) == (road.lane.waiting, road.lane.oldest())
    road.lane.read_done()
    assert 6 == road.lane.waiting

    road.row[0] = 4
    road.lane.read_done()
    assert (3, 12.0) == (road.lane.waiting, road.lane.oldest())
    assert [3, 4, 5] == road.open()

    road.lane.acknowledged(5)
    assert (0, None) == (road.lane.waiting, road.lane.oldest())
    assert [] == road.open()


@each_way
def test_a_refusal_on_its_way_holds_up_the_rest(road: Road) -> None:
    """
    Until it has come, nobody knows which batches before it were taken.
    """
    sent = [road.connections(1) for _ in range(3)]
    for number, connections in enumerate(sent, 2):
        road.lane.sent(number, connections, 10.0)
    road.row[0], road.row[1] = 4, 3
    road.lane.read_done()
    assert [0, 1, 2] == road.open()

    assert sent[1] == road.lane.refuse(3)
    assert [1, 2] == road.open()
    assert 1 == road.lane.waiting
    road.lane.read_done()
    assert [1] == road.open()


@each_way
def test_a_batch_is_not_refused_twice(road: Road) -> None:
    """
    That would be a bug in kvd.
    """
    road.lane.sent(2, road.connections(1), 10.0)
    road.lane.refuse(2)
    with pytest.raises((AssertionError, IndexError)):
        road.lane.refuse(2)


@each_way
def test_revoked_batches_are_the_callers(road: Road) -> None:
    """
    The last ones. The worker finds them later, without a credit.
    """
    sent = [road.connections(count) for count in (1, 2, 1)]
    for number, connections in enumerate(sent, 2):
        road.lane.sent(number, connections, float(number))
    assert [] == road.lane.revoke(0)
    assert sent[1] + sent[2] == road.lane.revoke(2)
    assert (1, 2, 2.0) == (road.lane.waiting, road.lane.revoked, road.lane.oldest())
    road.lane.acknowledged(3)
    assert (0, 1, None) == (road.lane.waiting, road.lane.revoked, road.lane.oldest())
    road.lane.acknowledged(4)
    assert 0 == road.lane.revoked
    assert [1, 2, 3] == road.open()


@each_way
def test_with_the_worker_all_is_closed(road: Road) -> None:
    """
    The row too: the scoreboard may end then.
    """
    road.lane.sent(2, road.connections(2), 10.0)
    road.lane.close()
    assert [] == road.open()
    assert 0 == road.lane.waiting
    road.row.release()


def drive(road: Road, chance: Random) -> list[object]:
    """
    Do this and that, and return what was seen.
    """
    seen: list[object] = []
    lane = road.lane
    number = taken = 1
    for _ in range(80):
        action = chance.choice(["sent", "sent", "read", "revoke", "refuse"])
        if action == "sent":
            number += chance.randint(1, 2)
            lane.sent(number, road.connections(chance.randint(1, 3)), chance.random())
        elif action == "read":
            taken = road.row[0] = chance.randint(taken, number)
            lane.read_done()
        elif action == "revoke" and lane.waiting and not lane.revoked:
            revoked = lane.revoke(1)
            seen.append([road.made.index(descriptor) for descriptor, _ in revoked])
        elif action == "refuse" and lane.waiting and not lane.revoked:
            # The last one: all before it were taken.
            refused = lane.refuse(number) if taken < number else []
            seen.append([road.made.index(descriptor) for descriptor, _ in refused])
            taken = road.row[1] = number
        seen.append((action, lane.waiting, lane.revoked, lane.oldest(), road.open()))
    return seen


def test_both_ways_do_the_same() -> None:
    """
    Whatever happens, in whatever order.
    """
    for _ in range(5):
        seed = randrange(10**9)
        print(f"seed {seed}")
        seen = []
        for make in (LaneInPython, make_lane):
            road = Road(make)
            try:
                seen.append(drive(road, Random(seed)))
            finally:
                road.lane.close()
                road.end()
        assert seen[0] == seen[1]
