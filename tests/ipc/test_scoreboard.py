"""
Tests for `kvd.ipc.scoreboard`.
"""

from __future__ import annotations

import errno
import os
import time
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from math import inf
from unittest import mock

import pytest

from kvd.ipc.histogram import BOUNDS_SECONDS, BUCKETS
from kvd.ipc.row import AWAKE, BEAT, ROW_WORDS, WORD_BYTES, lone_row
from kvd.ipc.scoreboard import Scoreboard, create_scoreboard
from tests.descriptors import Descriptors
from tests.dispatch.kernels import may_load


@pytest.fixture(params=["the kernel's", "plain"])
def memory(request: pytest.FixtureRequest) -> Iterator[int]:
    """
    Of a scoreboard for three workers.
    """
    if request.param == "plain":
        refused = OSError(errno.EPERM, os.strerror(errno.EPERM))
        with mock.patch("kvd.ipc.scoreboard.create_map", side_effect=refused):
            descriptor = create_scoreboard(3)
    elif may_load():
        descriptor = create_scoreboard(3)
    else:
        pytest.skip("memory of the kernel's takes CAP_BPF")
    kind = os.readlink(f"/proc/self/fd/{descriptor}")
    assert ("bpf-map" in kind) == (request.param != "plain")
    yield descriptor
    os.close(descriptor)


class Clock:
    """
    The scoreboard's, which stands until it is moved.
    """

    time_ns = staticmethod(time.time_ns)

    def __init__(self) -> None:
        self.now_ns = 1_000_000_000_000

    def monotonic_ns(self) -> int:
        """
        As `time.monotonic_ns`.
        """
        return self.now_ns

    def advance_ms(self, milliseconds: int) -> None:
        """
        Let time pass.
        """
        self.now_ns += milliseconds * 1_000_000


@pytest.fixture
def clock() -> Iterator[Clock]:
    """
    In place of the true one.
    """
    clock = Clock()
    with (
        mock.patch("kvd.ipc.row.time", clock),
        mock.patch("kvd.ipc.scoreboard.time", clock),
    ):
        yield clock


def test_what_one_maps_the_other_sees(memory: int) -> None:
    """
    Each number in its place, and in no other row.
    """
    ours, theirs = Scoreboard(memory), Scoreboard(memory)
    row = theirs.own_row(1)
    for _ in range(5):
        row.opened()
    row.closed()
    for _ in range(7):
        row.began("GET")
    for _ in range(4):
        row.finished(0.001, "GET", 200)
    row.received(1 << 40)
    row.sent(123)

    counts = ours.counts(1)
    assert (5, 4) == (counts.accepted, counts.open)
    assert (4, 3) == (counts.requests, counts.in_progress)
    assert (1 << 40, 123) == (counts.bytes_in, counts.bytes_out)
    assert (0, 4, 0) == ours.tasks()[0]
    assert (0, 3, 0) == ours.tasks()[1]


@pytest.mark.parametrize(("workers", "rows"), [(1, 0), (7, 9), (8, 8), (9, 17)])
def test_a_worker_that_takes_connections_is_marked(workers: int, rows: int) -> None:
    """
    Beside what the rows hold, of as many workers as there are at the moment.
    """
    memory = create_scoreboard(workers, rows)
    ours, theirs = Scoreboard(memory), Scoreboard(memory)
    os.close(memory)
    last = max(workers, rows) - 1
    ours.mark(0, True)
    ours.mark(last, True)
    assert tuple(sorted({0, last} & set(range(workers)))) == theirs.loads(inf).ready

    theirs.own_row(last).opened()
    ours.workers = last + 1
    assert tuple(sorted({0, last})) == theirs.loads(inf).ready
    ours.mark(0, False)
    assert (0,) * last == theirs.tasks()[0][:last]
    assert {last} - {0} == set(theirs.loads(inf).ready)


def test_loads_are_of_all_workers_that_are_heard_of(memory: int) -> None:
    """
    Who has not given a sign for so long has loads, and does not count. One that neither
    waits nor ends to wait is as silent as one that is stopped.
    """
    board = Scoreboard(memory)
    with mock.patch("time.monotonic_ns", return_value=10**12):
        rows = [board.own_row(worker) for worker in range(3)]
    for worker, row in enumerate(rows):
        board.mark(worker, True)
        for _ in range(worker):
            row.opened()
    rows[1].began("GET")
    with mock.patch("time.monotonic_ns", return_value=10**12 + 10**9):
        rows[0].woke()
        rows[1].waits()

    with mock.patch("time.monotonic_ns", return_value=10**12 + 3 * 10**9):
        assert ((0, 1), (0, 1, 2), (0, 1, 0)) == board.loads(2.5)
        assert ((), (0, 1, 2), (0, 1, 0)) == board.loads(1.5)
        assert (0, 1, 2) == board.loads(3.5).ready


def test_a_worker_that_has_been_awake_for_long_does_not_count_where_that_is_asked(
    memory: int,
) -> None:
    """
    Who waits for events counts, since when it may have done so.
    """
    board = Scoreboard(memory)
    with mock.patch("time.monotonic_ns", return_value=10**12):
        rows = [board.own_row(worker) for worker in range(3)]
        for worker in range(3):
            board.mark(worker, True)
        rows[0].woke()
    with mock.patch("time.monotonic_ns", return_value=10**12 + 10**9):
        rows[1].woke()

    with mock.patch("time.monotonic_ns", return_value=10**12 + 2 * 10**9):
        assert (1, 2) == board.loads(2.5, 1.5).ready
        assert (2,) == board.loads(2.5, 0.5).ready
        assert (1,) == board.loads(1.5, 1.5).ready
        assert () == board.loads(0.5, 1.5).ready


def test_takers_are_the_marked_workers(memory: int) -> None:
    """
    As far as rows are in use.
    """
    board = Scoreboard(memory)
    assert 0 == board.takers()
    board.mark(0, True)
    board.mark(2, True)
    assert 2 == board.takers()

    board.workers = 2
    assert 1 == board.takers()


def test_a_replacement_counts_on(memory: int) -> None:
    """
    What its predecessor had open died with it, and what it had done stays done.
    """
    board = Scoreboard(memory)
    row = board.own_row(2)
    row.opened()
    row.began("GET")
    row.began("GET")
    row.finished(0.001, "GET", 200)
    row.sent(100)
    row.woke()
    before = board.sums()[2]
    row = board.own_row(2)

    assert (0, 0, 0) == board.tasks()[0]
    assert (0, 0, 0) == board.tasks()[1]
    assert 0.0 == board.counts(2).busy_seconds
    assert replace(before, starts=2) == board.sums()[2]

    row.began("GET")
    row.finished(0.001, "GET", 200)
    after = board.sums()[2]
    assert (1, 2, 100) == (after.accepted, after.requests, after.bytes_out)
    assert 2 == after.total.latency[bucket_below(0.001)]


def bucket_below(seconds: float) -> int:
    """
    The bucket of a duration, by looking it up.
    """
    return bisect_right(BOUNDS_SECONDS, seconds)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [
        (0.0, 0),
        (7e-6, 0),
        (8e-6, 1),
        (0.0009, bucket_below(0.0009)),
        (0.7, bucket_below(0.7)),
        (127.0, BUCKETS - 2),
        (129.0, BUCKETS - 1),
        (1e9, BUCKETS - 1),
    ],
)
def test_each_duration_has_its_bucket(memory: int, seconds: float, bucket: int) -> None:
    """
    And the sum is that of all.
    """
    board = Scoreboard(memory)
    row = board.own_row(1)
    row.finished(seconds, "GET", 200)
    row.finished(seconds, "GET", 200)
    (nobody, sums, _) = board.sums()

    assert [2 * (place == bucket) for place in range(BUCKETS)] == list(
        sums.total.latency
    )
    assert 2 * seconds == sums.total.seconds
    assert 0 == sum(nobody.total.latency) == sum(sums.loop_delay)


def test_turns_of_the_reactor_are_timed(memory: int, clock: Clock) -> None:
    """
    Each once, when it has ended; a wait behind a wait is none.
    """
    board = Scoreboard(memory)
    row = board.own_row(0)
    row.waits()
    row.woke()
    row.waits()
    row.waits()
    row.woke()
    clock.advance_ms(20)
    assert 1 == sum(board.sums()[0].loop_delay)

    row.waits()
    sums = board.sums()[0]
    assert 2 == sum(sums.loop_delay)
    assert 1 == sums.loop_delay[bucket_below(0.02)]
    assert 0.02 == sums.busy_seconds


def test_turns_are_counted_by_what_is_compiled_too(memory: int) -> None:
    """
    In the same words. It reads the true clock.
    """
    board = Scoreboard(memory)
    row = board.own_row(0)
    turns = row.turns
    assert turns is not row
    turns.waits()
    assert 0 == sum(board.sums()[0].loop_delay)
    began = time.monotonic_ns()
    turns.woke()
    assert began <= row.turn <= time.monotonic_ns()

    # As if it had woken up so long ago, or a little longer on a slow machine.
    row.words[AWAKE] = began - 10 * 10**9
    turns.waits()
    sums = board.sums()[0]
    assert 1 == sum(sums.loop_delay[bucket_below(10) :]) == sum(sums.loop_delay)
    assert 10 <= sums.busy_seconds
    assert 0 == row.turn
    turns.waits()
    assert 1 == sum(board.sums()[0].loop_delay)
    assert began <= row.words[BEAT]


def test_turns_are_not_counted_outside_of_a_row() -> None:
    """
    A mistake here must not write into somebody else's memory.
    """
    words = memoryview(bytearray(8 * 4)).cast("Q")
    kind = type(lone_row().turns)
    for at in ((0, 1, 4, (3,)), (0, -1, 2, (3,)), (0, 1, 2, (3, 4)), (0, 1, 2, ())):
        with pytest.raises(ValueError, match="no room"):
            kind(words, *at, -3)  # type: ignore[call-arg]  # a protocol, to mypy


def test_waiting_is_not_being_busy(memory: int, clock: Clock) -> None:
    """
    Time counts from waking to waiting, and a wait that goes on counts as none.
    """
    board = Scoreboard(memory)
    row = board.own_row(0)
    row.waits()
    clock.advance_ms(20)
    assert 0.0 == board.counts(0).busy_seconds

    row.woke()
    clock.advance_ms(20)
    assert 0.02 == board.counts(0).busy_seconds
    clock.advance_ms(3)
    row.waits()
    assert 0.023 == board.counts(0).busy_seconds
    clock.advance_ms(5)
    assert 0.023 == board.counts(0).busy_seconds


def test_silence_is_counted_from_the_last_sign_of_life(
    memory: int, clock: Clock
) -> None:
    """
    Which an event that takes long does not give.
    """
    board = Scoreboard(memory)
    row = board.own_row(0)
    row.woke()
    clock.advance_ms(20)
    assert 0.02 == board.counts(0).silent_seconds
    assert 0.02 == board.silent_seconds()[0]
    row.waits()
    assert 0.0 == board.counts(0).silent_seconds

    clock.advance_ms(20)
    assert 0.02 == board.counts(0).silent_seconds
    row.woke()
    assert 0.0 == board.counts(0).silent_seconds


def test_what_has_ended_between_two_looks_is_not_in_progress(memory: int) -> None:
    """
    The words of a row are not of one moment: the end may be seen, the beginning not.
    """
    board = Scoreboard(memory)
    board.own_row(0).finished(0.001, "GET", 200)

    assert 0 == board.counts(0).in_progress
    assert (0, 0, 0) == board.tasks()[1]


def test_rows_keep_out_of_each_others_cache_lines() -> None:
    """
    Of 64 bytes each, taken in pairs.
    """
    assert 0 == ROW_WORDS * WORD_BYTES % 128


def test_the_memory_is_inherited_by_nobody(memory: int) -> None:
    """
    It is sent to those who need it.
    """
    assert not os.get_inheritable(memory)


def test_stalls_are_counted_apart_from_all_else(memory: int) -> None:
    """
    By the supervisor, whatever the rows and marks beside them say.
    """
    ours, theirs = Scoreboard(memory), Scoreboard(memory)
    for worker in range(3):
        theirs.mark(worker, True)
        theirs.own_row(worker).opened()
        for _ in range(worker):
            ours.count_stall(worker)

    assert [0, 1, 2] == [of.stalls for of in theirs.sums()]
    assert 3 == ours.takers()
    assert (1, 1, 1) == ours.tasks()[0]


def test_places_that_are_no_longer_wanted_keep_their_sums(memory: int) -> None:
    """
    Behind those that are in use, for everybody who maps the memory; a place that was
    never in use has none.
    """
    with mock.patch("kvd.ipc.scoreboard.create_map", side_effect=OSError):
        descriptor = create_scoreboard(2, rows=8)
    board, supervisor = Scoreboard(descriptor), Scoreboard(descriptor)
    os.close(descriptor)
    supervisor.workers = 4
    for worker in range(4):
        board.own_row(worker).finished(0.001, "GET", 200)
    supervisor.workers = 1

    assert [1, 1, 1, 1] == [of.requests for of in board.sums()]
    assert 1 == len(board.tasks()[1])


def test_all_processes_date_by_the_same_clock(memory: int) -> None:
    """
    However often that of the machine is set.
    """
    first = Scoreboard(memory).own_row(0).epoch_ns
    with mock.patch("time.time_ns", return_value=1):
        second = Scoreboard(memory).own_row(1).epoch_ns

    assert first == second
    assert abs(first + time.monotonic_ns() - time.time_ns()) < 3600 * 10**9


@pytest.mark.parametrize("call", ["os.ftruncate", "mmap.mmap"])
def test_memory_that_cannot_be_used_is_not_left_open(call: str) -> None:
    """
    As where there is none left.
    """
    opened = Descriptors("/memfd:")
    refused = OSError(errno.EPERM, os.strerror(errno.EPERM))
    with (
        mock.patch("kvd.ipc.scoreboard.create_map", side_effect=refused),
        mock.patch(call, side_effect=OSError(errno.ENOMEM, "no memory")),
        pytest.raises(OSError, match="no memory"),
    ):
        create_scoreboard(3)

    assert 0 == opened.more


def test_memory_of_the_kernel_that_cannot_be_used_is_not_left_open() -> None:
    """
    Nor is it replaced then.
    """
    opened = Descriptors("/memfd:")
    with (
        mock.patch(
            "kvd.ipc.scoreboard.create_map", return_value=os.memfd_create("map")
        ),
        mock.patch("mmap.mmap", side_effect=OSError(errno.ENOMEM, "no memory")),
        pytest.raises(OSError, match="no memory"),
    ):
        create_scoreboard(3)

    assert 0 == opened.more
