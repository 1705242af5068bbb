"""
Tests for `kvd.net.splice`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from kvd.net.splice import (
    LEAST_BYTES,
    MOST_BYTES,
    MOST_SPARE,
    TURN_SECONDS,
    Passage,
    Pipe,
    Stopped,
    fastest_mover,
    move,
)
from tests.descriptors import Descriptors
from tests.patience import PATIENCE_SECONDS
from tests.stepped import tcp_pair

MANY = 400_000

Sockets = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[move, fastest_mover], ids=["Python", "compiled"])
def pipe(request: pytest.FixtureRequest) -> Iterator[Pipe]:
    """
    A pipe like a worker's, with either way to move.
    """
    pipe = Pipe(request.param)
    yield pipe
    pipe.close()


def test_the_faster_way_is_compiled() -> None:
    """
    Else it would not be tested here.
    """
    assert fastest_mover is not move


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """
    One to send at, and one to move from, which hold as much as is asked for.
    """
    far, near = socket.socketpair()
    with far, near:
        far.setblocking(False)
        near.setblocking(False)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * MOST_BYTES)
        yield far, near


@pytest.fixture
def target(tmp_path: Path) -> Iterator[int]:
    """
    A file to move to.
    """
    descriptor = os.open(tmp_path / "target", os.O_RDWR | os.O_CREAT)
    yield descriptor
    os.close(descriptor)


def fill(far: socket.socket) -> bytes:
    """
    Send until nothing more is taken.
    """
    sent = b""
    try:
        while True:
            piece = os.urandom(65536)
            sent += piece[: far.send(piece)]
    except BlockingIOError:
        return sent


def test_what_is_there_is_moved_and_no_more(
    pipe: Pipe, sockets: Sockets, target: int
) -> None:
    """
    Up to the limit; what is behind it stays in the socket.
    """
    far, near = sockets
    far.send(b"0123456789")

    assert 4 == pipe.move(near.fileno(), target, 4)
    assert b"0123" == os.pread(target, 100, 0)
    assert b"456789" == near.recv(100)
    assert 0 == pipe.move(near.fileno(), target, 4)


def test_a_pipe_that_holds_less_is_filled_again(
    pipe: Pipe, sockets: Sockets, target: int
) -> None:
    """
    And for the last time with no more than belongs there.
    """
    far, near = sockets
    far.send(b"0123456789")
    pipe._ends = replace(pipe._ends, size=3)

    assert 8 == pipe.move(near.fileno(), target, 8)
    assert b"01234567" == os.pread(target, 100, 0)
    assert b"89" == near.recv(100)


def test_a_target_that_takes_nothing_is_not_asked_for_ever(
    sockets: Sockets, target: int
) -> None:
    """
    What was for it comes back.
    """
    far, near = sockets
    far.send(b"0123")
    splice = os.splice

    def some(source: int, to: int, count: int, flags: int) -> int:
        return 0 if to == target else splice(source, to, count, flags=flags)

    with closing(Pipe(move)) as pipe, mock.patch("os.splice", some):
        stopped = pipe.move(near.fileno(), target, 4)

    assert Stopped(0, b"0123", False) == stopped


def test_nothing_is_left_of_a_pipe() -> None:
    """
    That is closed.
    """
    opened = Descriptors("pipe:")
    pipe = Pipe()
    assert 2 == opened.more
    pipe.close()

    assert 0 == opened.more


def test_nothing_is_left_of_a_pipe_that_cannot_be_made() -> None:
    """
    Its size is a wish where the user has too many; any other error ends the attempt.
    """
    opened = Descriptors("pipe:")
    with (
        mock.patch("fcntl.fcntl", side_effect=OSError(errno.ENOMEM, "no memory")),
        pytest.raises(OSError, match="no memory"),
    ):
        Pipe()

    assert 0 == opened.more


def test_an_end_is_reported(pipe: Pipe, sockets: Sockets, target: int) -> None:
    """
    With what came before it.
    """
    far, near = sockets
    far.send(b"0123")
    far.shutdown(socket.SHUT_WR)

    assert Stopped(4, b"", True) == pipe.move(near.fileno(), target, 10)


def test_a_socket_that_failed_is_reported(pipe: Pipe, target: int) -> None:
    """
    By its own error.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        far = socket.create_connection(server.getsockname())
        near, _ = server.accept()
    with near:
        near.setblocking(False)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()

        with pytest.raises(ConnectionResetError):
            pipe.move(near.fileno(), target, 10)


class Disk:
    """
    Takes bytes at a pace, by a clock of its own.
    """

    def __init__(self, bytes_per_second: float) -> None:
        self.bytes_per_second = bytes_per_second
        self.now = 100.0

    def mover(self, *numbers: int) -> int:
        """
        All of the limit is there, and taken.
        """
        limit = numbers[-2]
        self.now += limit / self.bytes_per_second
        return limit

    def clock(self) -> float:
        """
        Now.
        """
        return self.now


@pytest.mark.parametrize("movers", [1, 2, 8, 32])
@pytest.mark.parametrize("speed", [100e6, 1e9, 10e9])
def test_bodies_together_take_little_time(movers: int, speed: float) -> None:
    """
    However fast or slow the disk is, they have their share of a turn; but none is
    smaller than is worth a call, or larger than helps.
    """
    disk = Disk(speed)
    pipe = Pipe(disk.mover, disk.clock)
    pipe.movers = movers
    for _ in range(200):
        began = disk.now
        moved = pipe.move(0, 1, 1 << 40)
    pipe.close()

    fair = TURN_SECONDS / movers
    if moved == LEAST_BYTES:
        assert fair <= LEAST_BYTES / speed
    elif moved == MOST_BYTES:
        assert fair >= MOST_BYTES / speed
    else:
        assert fair == pytest.approx(disk.now - began, rel=0.01)


def test_a_disk_that_stalls_is_given_less_at_once_and_more_by_and_by() -> None:
    """
    It may stall again.
    """
    disk = Disk(10e9)
    pipe = Pipe(disk.mover, disk.clock)
    pipe.movers = 4
    pipe.move(0, 1, 1 << 40)
    assert MOST_BYTES == pipe.share()

    disk.bytes_per_second = 20e6
    pipe.move(0, 1, 1 << 40)
    assert LEAST_BYTES == pipe.share()

    disk.bytes_per_second = 10e9
    pipe.move(0, 1, 1 << 40)
    assert LEAST_BYTES == pipe.share()
    for _ in range(200):
        pipe.move(0, 1, 1 << 40)
    assert MOST_BYTES == pipe.share()
    pipe.close()


@pytest.fixture
def stalling() -> Iterator[Pipe]:
    """
    A pipe to a disk for which each move takes longer than a turn.
    """
    disk = Disk(LEAST_BYTES / TURN_SECONDS / 2)
    pipe = Pipe(disk.mover, disk.clock)
    yield pipe
    pipe.close()


def test_a_stall_ends_the_turn_of_all(stalling: Pipe) -> None:
    """
    Who was passed over comes before who was not, and each once; so nobody starves,
    though they are asked about in the same order each time.
    """
    names = ["a", "b", "c"]
    moved = []
    for turn in range(1, 13):
        for name in names:
            if stalling.may_move(name, turn):
                moved.append(name)
                stalling.move(0, 1, 1 << 40)

    assert 12 == len(moved)
    assert dict.fromkeys(names, 4) == {name: moved.count(name) for name in names}


def test_a_socket_that_is_forgotten_is_not_waited_for(stalling: Pipe) -> None:
    """
    Neither is who does not come again.
    """
    assert stalling.may_move("a", 1)
    stalling.move(0, 1, 1 << 40)
    assert not stalling.may_move("b", 1)
    assert not stalling.may_move("c", 1)
    stalling.forget("b")

    assert not stalling.may_move("a", 2)
    assert stalling.may_move("a", 3)
    stalling.move(0, 1, 1 << 40)


def test_without_turns_everybody_may(stalling: Pipe) -> None:
    """
    As with ``--procs 0``.
    """
    for _ in range(3):
        assert stalling.may_move("a", 0)
        stalling.move(0, 1, 1 << 40)


def test_what_the_target_refuses_comes_back(pipe: Pipe, sockets: Sockets) -> None:
    """
    And is in nobody else's way.
    """
    far, near = sockets
    far.send(b"0123")
    refusing = os.open("/dev/null", os.O_RDONLY)
    try:
        moved = pipe.move(near.fileno(), refusing, 4)
    finally:
        os.close(refusing)
    assert Stopped(0, b"0123", False) == moved

    reader, writer = os.pipe()
    far.send(b"next")
    assert 4 == pipe.move(near.fileno(), writer, 4)
    assert b"next" == os.read(reader, 100)
    os.close(reader)
    os.close(writer)


def test_an_ordinary_user_moves_through_small_pipes(tmp_path: Path) -> None:
    """
    Of large ones such a user gets 64 (pipe(7)); who comes later serves all the same.
    """
    path = tmp_path / "target"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            target = os.open(path, os.O_RDWR | os.O_CREAT)
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            pipes = [Pipe() for _ in range(80)]
            far, near = socket.socketpair()
            far.setblocking(False)
            near.setblocking(False)
            sent = fill(far)
            moved = 0
            while more := pipes[-1].move(near.fileno(), target, MOST_BYTES):
                assert isinstance(more, int)
                moved += more
            assert pipes[-1]._ends.size < pipes[0]._ends.size
            assert (moved, sent) == (len(sent), os.pread(target, len(sent) + 1, 0))
            status = 0
        finally:
            os._exit(status)
    assert 0 == os.waitpid(child, 0)[1]


def test_what_came_before_a_reset_counts(pipe: Pipe, target: int) -> None:
    """
    The socket has ended then; a socket that was reset before has failed.
    """
    near, far = tcp_pair()
    with near:
        near.setblocking(False)
        far.send(b"0123456789")
        select.select([near], [], [])
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        far.close()

        assert Stopped(10, b"", ended=True) == pipe.move(near.fileno(), target, 100)
        assert b"0123456789" == os.pread(target, 100, 0)


@pytest.fixture
def urgent() -> Iterator[socket.socket]:
    """
    A socket to which four bytes have come, then urgent data, and four more.
    """
    near, far = tcp_pair()
    with near, far:
        near.setblocking(False)
        far.send(b"0123")
        far.send(b"!", socket.MSG_OOB)
        far.send(b"4567")
        # All of it has come when the last of it, which is no longer urgent, has.
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 9)
        select.select([near], [], [], PATIENCE_SECONDS)
        yield near


def test_what_is_behind_urgent_data_is_to_be_read(
    pipe: Pipe, urgent: socket.socket, target: int
) -> None:
    """
    The kernel moves none of it. What is read is without the urgent data, and then the
    rest can be moved.
    """
    assert 4 == pipe.move(urgent.fileno(), target, 100)
    assert Stopped(0, b"", False) == pipe.move(urgent.fileno(), target, 100)
    assert b"45" == urgent.recv(2)
    assert 2 == pipe.move(urgent.fileno(), target, 100)
    assert 0 == pipe.move(urgent.fileno(), target, 100)
    assert b"012367" == os.pread(target, 100, 0)


def test_a_passage_is_barred_by_urgent_data(pipe: Pipe, urgent: socket.socket) -> None:
    """
    And not by a source from which nothing comes.
    """
    to, reader = tcp_pair()
    with to, reader:
        passage = Passage(urgent.fileno(), to.fileno())
        seen = []
        for _ in range(3):
            seen.append((pipe.pass_on(passage, 100), passage.barred))
            if passage.barred:
                urgent.recv(100)
    assert [(4, False), (0, True), (0, False)] == seen


def stalled(pipe: Pipe, near: socket.socket, to: socket.socket) -> Passage:
    """
    Many bytes for a socket that takes only a part of them.
    """
    to.setblocking(False)
    to.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    passage = Passage(near.fileno(), to.fileno())
    count = pipe.pass_on(passage, MANY)
    assert MANY == count + passage.held + len(passage.rest)
    assert (False, False) == (passage.ended, passage.failed)
    return passage


def read(pipe: Pipe, passage: Passage, reader: socket.socket) -> bytes:
    """
    All that is held, at the other end, and what came before it. No more is taken from
    the source.
    """
    got, sent = b"", 0
    while passage.held:
        got += reader.recv(1 << 20)
        sent += pipe.pass_on(passage, 0)
    assert sent
    return got


def test_what_a_socket_does_not_take_stays_in_a_pipe(
    pipe: Pipe, sockets: Sockets
) -> None:
    """
    Until it does, while other bytes go through another pipe. Then this one is kept for
    the next.
    """
    far, near = sockets
    sent = fill(far)
    opened = Descriptors("pipe:")
    to, reader = tcp_pair(window=4096)
    other, other_reader = tcp_pair()
    with to, reader, other, other_reader:
        passage = stalled(pipe, near, to)
        assert passage.held
        assert 2 == opened.more
        beside = Passage(near.fileno(), other.fileno())
        assert 1000 == pipe.pass_on(beside, 1000)
        assert 0 == beside.held
        assert sent[MANY : MANY + 1000] == other_reader.recv(10_000)

        got = read(pipe, passage, reader)
        to.close()
        got += b"".join(iter(lambda: reader.recv(1 << 20), b""))
        assert sent[:MANY] == got

    again, reader = tcp_pair(window=4096)
    with again, reader:
        passage = stalled(pipe, near, again)
        assert passage.held
        passage.drop()
        assert 0 == passage.held
    assert 0 == opened.more, "two were opened, and one is gone"


def test_no_more_is_taken_while_something_is_held(pipe: Pipe, sockets: Sockets) -> None:
    """
    And then it comes after that, in the same move.
    """
    far, near = sockets
    sent = fill(far)
    to, reader = tcp_pair(window=4096)
    with to, reader:
        passage = stalled(pipe, near, to)
        got, count, held = b"", 0, 1
        while count < held:
            got += reader.recv(1 << 20)
            held = passage.held
            count = pipe.pass_on(passage, 1000)
            more = count + passage.held - held
            assert (0 if count < held else 1000) == more
        while passage.held:
            got += reader.recv(1 << 20)
            pipe.pass_on(passage, 0)
        to.close()
        got += b"".join(iter(lambda: reader.recv(1 << 20), b""))

        assert sent[: MANY + 1000] == got


def test_what_is_held_comes_before_the_end(pipe: Pipe, sockets: Sockets) -> None:
    """
    Of the socket that it was taken from: the end is reported with the last of it.
    """
    far, near = sockets
    sent = fill(far)
    far.close()
    to, reader = tcp_pair(window=4096)
    with to, reader:
        to.setblocking(False)
        to.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        passage = Passage(near.fileno(), to.fileno())
        got, count = b"", 0
        while not (passage.ended and not passage.held):
            count += pipe.pass_on(passage, 1 << 20)
            got += reader.recv(1 << 20)
        to.close()
        got += b"".join(iter(lambda: reader.recv(1 << 20), b""))

    assert (len(sent), sent) == (count, got)


def test_what_a_socket_does_not_take_can_be_read(pipe: Pipe, sockets: Sockets) -> None:
    """
    And the pipe that it was in is kept for the next.
    """
    far, near = sockets
    sent = fill(far)
    opened = Descriptors("pipe:")
    to, reader = tcp_pair(window=4096)
    with to, reader:
        passage = stalled(pipe, near, to)
        assert passage.held
        rest = pipe.take_held(passage)
        to.close()
        got = b"".join(iter(lambda: reader.recv(1 << 20), b""))

        assert sent[:MANY] == got + rest
        assert 0 == passage.held
        assert b"" == pipe.take_held(passage)
    assert 2 == opened.more
    again, reader = tcp_pair(window=4096)
    with again, reader:
        passage = stalled(pipe, near, again)
        assert passage.held
        assert 2 == opened.more
        passage.drop()


def test_bytes_are_given_back_where_there_is_no_further_pipe(
    pipe: Pipe, sockets: Sockets
) -> None:
    """
    The one that there is, is empty then.
    """
    far, near = sockets
    sent = fill(far)
    to, reader = tcp_pair(window=4096)
    with to, reader, mock.patch("os.pipe2", side_effect=OSError(errno.EMFILE, "")):
        passage = stalled(pipe, near, to)
        to.close()
        got = b"".join(iter(lambda: reader.recv(1 << 20), b""))

    assert 0 == passage.held
    assert sent[:MANY] == got + passage.rest
    with pytest.raises(BlockingIOError):
        os.read(pipe._ends.out, 1)


@pytest.mark.parametrize("is_larger", [False, True])
def test_a_pipe_is_held_beyond_the_end_of_the_others(
    sockets: Sockets, is_larger: bool
) -> None:
    """
    And closed as soon as it is empty. A larger one does not take the place of one that
    is closed, and that is not closed again: another file may have its number by then.
    """
    far, near = sockets
    fill(far)
    opened = Descriptors("pipe:")
    pipe = Pipe()
    to, reader = tcp_pair(window=4096)
    with to, reader:
        passage = stalled(pipe, near, to)
        if is_larger:
            pipe._ends = replace(pipe._ends, size=4096)
        pipe.close()
        assert 2 == opened.more
        read(pipe, passage, reader)

    assert 0 == opened.more


def test_the_larger_pipe_is_used_next(sockets: Sockets) -> None:
    """
    A user who has many pipes gets small ones.
    """
    far, near = sockets
    fill(far)
    to, reader = tcp_pair(window=4096)
    with to, reader, closing(Pipe()) as pipe:
        first = pipe._ends
        passage = stalled(pipe, near, to)
        pipe._ends = replace(pipe._ends, size=4096)
        read(pipe, passage, reader)

        assert first is pipe._ends


def test_no_more_than_some_pipes_are_kept(pipe: Pipe, sockets: Sockets) -> None:
    """
    However many sockets took only a part.
    """
    far, near = sockets
    opened = Descriptors("pipe:")
    with ExitStack() as stack:
        passages = []
        for _ in range(MOST_SPARE + 2):
            fill(far)
            to, reader = map(stack.enter_context, tcp_pair(window=4096))
            passages.append((stalled(pipe, near, to), reader))
        for passage, reader in passages:
            read(pipe, passage, reader)

    assert 2 * MOST_SPARE == opened.more


def test_a_socket_that_fails_with_bytes_before_it(pipe: Pipe, sockets: Sockets) -> None:
    """
    By its own error: what is held stays so.
    """
    far, near = sockets
    fill(far)
    to, reader = tcp_pair(window=4096)
    with to:
        passage = stalled(pipe, near, to)
        held = passage.held
        reader.close()
        # With bytes unread, this is a reset.
        select.select([], [to], [])
        assert 0 == pipe.pass_on(passage, MANY)
        assert passage.failed
        assert held == passage.held
        passage.drop()
