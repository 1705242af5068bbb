"""
Tests for `kvd.dispatch.primitives`: what is compiled does what Python does.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from random import Random
from typing import Any

import pytest

from kvd.dispatch.primitives import (
    Accept,
    accept,
    accept_in_python,
    make_view,
    make_view_in_python,
)
from kvd.ipc.scoreboard import (
    ReadReady,
    ReadTasks,
    Scoreboard,
    create_scoreboard,
    read_ready,
    read_ready_in_python,
    read_tasks,
    read_tasks_in_python,
)
from kvd.model.view import View

each_way = pytest.mark.parametrize
accepts = each_way("accepts", [accept_in_python, accept], ids=["Python", "compiled"])
reads = each_way(
    "reads", [read_tasks_in_python, read_tasks], ids=["Python", "compiled"]
)
finds = each_way(
    "finds", [read_ready_in_python, read_ready], ids=["Python", "compiled"]
)
makes = each_way("makes", [make_view_in_python, make_view], ids=["Python", "compiled"])


def test_the_faster_way_is_compiled() -> None:
    """
    Else it would not be tested here.
    """
    assert accept is not accept_in_python
    assert read_tasks is not read_tasks_in_python
    assert read_ready is not read_ready_in_python
    assert make_view is not make_view_in_python


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """
    A listening socket that does not block.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def connect(listener: socket.socket, count: int) -> list[socket.socket]:
    """
    Some clients.
    """
    return [socket.create_connection(listener.getsockname()) for _ in range(count)]


@accepts
def test_what_waits_is_accepted_in_order(
    accepts: Accept, listener: socket.socket
) -> None:
    """
    No more than asked for, and no more than there are. No child inherits them, and they
    do not block.
    """
    clients = connect(listener, 5)
    group = 3
    first = accepts(listener.fileno(), group, 3)
    rest = accepts(listener.fileno(), group, 3)

    assert (3, 2) == (len(first), len(rest))
    for client, (descriptor, its_group) in zip(clients, first + rest, strict=True):
        assert group == its_group
        assert not os.get_inheritable(descriptor)
        assert not os.get_blocking(descriptor)
        with client, socket.socket(fileno=descriptor) as accepted:
            assert client.getsockname() == accepted.getpeername()
    # The listener is still whole.
    with pytest.raises(BlockingIOError):
        accepts(listener.fileno(), group, 3)


@accepts
def test_what_cannot_accept_says_so(accepts: Accept) -> None:
    """
    With the error of the system call.
    """
    near, far = socket.socketpair()
    with near, far, pytest.raises(OSError, match="Errno"):
        accepts(near.fileno(), int(socket.AF_UNIX), 3)


@reads
def test_tasks_are_those_of_the_rows(reads: ReadTasks) -> None:
    """
    Of the rows in use, behind the header; a request that has ended before it was seen
    to begin counts as none.
    """
    words = memoryview(bytearray(8 * 20)).cast("Q")
    for at, (opened, begun, done) in enumerate([(9, 9, 9), (1, 7, 3), (2**40, 4, 5)]):
        words[5 * at + 1], words[5 * at + 2], words[5 * at + 4] = opened, begun, done

    assert ((1, 2**40), (4, 0)) == reads(words, 5, 2, 1, 2, 4)
    assert ((), ()) == reads(words, 5, 0, 1, 2, 4)


@finds
def test_workers_are_ready_that_are_marked_and_heard_of(finds: ReadReady) -> None:
    """
    Who waits began to do so, and who is awake woke, after a time.
    """
    words = memoryview(bytearray(8 * 4 * 5)).cast("Q")
    for worker, (woke, beat) in enumerate([(0, 11), (0, 10), (21, 0), (20, 11)]):
        words[4 * (worker + 1) + 2], words[4 * (worker + 1) + 3] = woke, beat
    marks = memoryview(bytearray(b"\1\1\1\1\1"))

    assert (0, 2) == finds(words, marks, 4, 4, 2, 3, 10, 20)
    assert (0,) == finds(words, marks, 4, 2, 2, 3, 10, 20)
    assert (0, 1, 2, 3) == finds(words, marks, 4, 4, 2, 3, -1, -1)
    marks[0] = 0
    assert (2,) == finds(words, marks, 4, 4, 2, 3, 10, 20)
    assert () == finds(words, marks, 4, 0, 2, 3, 10, 20)


def test_no_mark_is_read_that_is_not_there() -> None:
    """
    Nor a row.
    """
    words = memoryview(bytearray(8 * 20)).cast("Q")
    for marks, count in ((2, 3), (9, 4), (9, -1)):
        with pytest.raises(ValueError, match="no such rows"):
            read_ready(words, memoryview(bytes(marks)), 5, count, 1, 2, 0, 0)


def test_no_row_is_read_that_is_not_there() -> None:
    """
    A mistake here must not read somebody else's memory.
    """
    words = memoryview(bytearray(8 * 20)).cast("Q")
    for count, word in ((4, 1), (-1, 1), (2, 5), (2, -1), (2**60, 1)):
        with pytest.raises(ValueError, match="no such rows"):
            read_tasks(words, 5, count, word, 2, 4)


def test_a_scoreboard_reads_its_own_words() -> None:
    """
    As its rows wrote them.
    """
    memory = create_scoreboard(3)
    board = Scoreboard(memory)
    os.close(memory)
    row = board.own_row(1)
    row.opened()
    row.opened()
    row.began("GET")
    row.batch_refused(6)
    row.batch_done(7)
    with board.batches(1) as batches:
        assert [7, 6] == list(batches)
    assert ((0, 2, 0), (0, 1, 0)) == board.tasks()


@makes
def test_a_view_is_a_view(makes: Any) -> None:
    """
    Equal to one that its class made, and as frozen.
    """
    values = ((0, 1), 1, (3, 4), (1, 0), (0, 2), Random(1), 1)
    made = makes(values)

    assert View(*values) == made
    assert values == tuple(getattr(made, field.name) for field in fields(View))
    with pytest.raises(FrozenInstanceError):
        made.turn = 0
