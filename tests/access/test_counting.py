"""
Tests for `kvd.access.counting`.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Iterator
from random import Random
from unittest import mock

import pytest

from kvd.access.counting import SLOTS, CountingMemory, clear_row, create_counting
from tests.chance import new_seed
from tests.descriptors import Descriptors

PROCESSES = 5


@pytest.fixture
def descriptor() -> Iterator[int]:
    """
    Of a daemon's memory.
    """
    made = create_counting(1000)
    yield made
    os.close(made)


def test_all_processes_see_what_each_has_open(descriptor: int) -> None:
    """
    Exactly, whoever opens and closes, and whoever dies meanwhile.
    """
    random = Random(new_seed())
    memory = CountingMemory(descriptor)
    processes = [memory.open_counts(row) for row in range(PROCESSES)]
    names = [f"address {number}" for number in range(20)]
    opened: list[Counter[str]] = [Counter() for _ in processes]
    for _ in range(2000):
        number, name = random.randrange(PROCESSES), random.choice(names)
        if random.random() < 0.005:
            clear_row(descriptor, number)
            # Another one takes its place, in a daemon whose settings have changed.
            processes[number] = CountingMemory(descriptor).open_counts(number)
            opened[number].clear()
        elif opened[number][name] and random.random() < 0.5:
            processes[number].remove(name)
            opened[number][name] -= 1
        else:
            processes[number].add(name)
            opened[number][name] += 1
        asked = random.choice(processes)
        name = random.choice(names)
        assert sum(each[name] for each in opened) == asked[name]


def test_a_process_that_is_gone_counts_no_more(descriptor: int) -> None:
    """
    Whether or not another one has its number later; one that never was is no fault.
    """
    first, second = (CountingMemory(descriptor).open_counts(row) for row in (0, 7))
    first.add("a")
    second.add("a")
    clear_row(descriptor, 7)
    assert 1 == first["a"]
    clear_row(descriptor, 500)
    assert 1 == first["a"]


def test_a_fork_counts_in_the_same_memory() -> None:
    """
    Also if the memory is nobody else's.
    """
    memory = CountingMemory()
    counts = memory.open_counts(0)
    counts.add("a")
    child = os.fork()
    if child == 0:
        counts.add("a")
        os._exit(counts["a"])
    assert 2 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert 2 == counts["a"]


def test_more_names_than_slots_are_bounded(descriptor: int) -> None:
    """
    Names without a slot are counted by their own process alone, and none for another.
    """
    memory = CountingMemory(descriptor)
    own, other = memory.open_counts(0), memory.open_counts(1)
    names = [f"address {number}" for number in range(2 * SLOTS)]
    for name in names:
        own.add(name)
    assert {1} == {own[name] for name in names}
    seen = Counter(other[name] for name in names)
    assert set(seen) <= {0, 1}
    assert seen[1] > SLOTS // 2
    for name in names:
        own.remove(name)
    assert {0} == {each[name] for name in names for each in (own, other)}


@pytest.mark.parametrize("call", ["os.ftruncate", "os.pwrite", "mmap.mmap"])
def test_memory_that_cannot_be_used_is_not_left_open(call: str) -> None:
    """
    As where there is none left.
    """
    opened = Descriptors("/memfd:")
    with (
        mock.patch(call, side_effect=OSError(errno.ENOMEM, "no memory")),
        pytest.raises(OSError, match="no memory"),
    ):
        CountingMemory()

    assert 0 == opened.more
