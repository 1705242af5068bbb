"""
Tests for `kvd.net.reuseport`, with the kernel's own judgement.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import pytest

from kvd.net.reuseport import (
    attach_program,
    by_chance,
    by_cpu,
    by_weight,
    detach_program,
)

CONNECTIONS = 400


@pytest.fixture
def group() -> Iterator[list[socket.socket]]:
    """
    Four sockets of one address.
    """
    with ExitStack() as stack:
        members: list[socket.socket] = []
        for _ in range(4):
            member = stack.enter_context(socket.socket())
            member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            member.bind(("127.0.0.1", members[0].getsockname()[1] if members else 0))
            member.listen(CONNECTIONS)
            member.setblocking(False)
            members.append(member)
        yield members


def shares(members: Sequence[socket.socket], connections: int) -> list[int]:
    """
    Connect, and count which member gets how many.
    """
    with ExitStack() as stack:
        for _ in range(connections):
            stack.enter_context(socket.create_connection(members[0].getsockname()))
        return [accept_all(member) for member in members]


def accept_all(member: socket.socket) -> int:
    """
    How many connections waited.
    """
    count = 0
    while True:
        try:
            member.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


def test_without_a_program_everybody_gets_some(group: list[socket.socket]) -> None:
    """
    The kernel's hash.
    """
    assert all(shares(group, CONNECTIONS))


def test_one_member_gets_all(group: list[socket.socket]) -> None:
    """
    Whichever it is; and the next program follows at once.
    """
    for chosen in (2, 0, 3):
        attach_program(group[1], by_chance([chosen]))

        assert [0, 0, 0, 0][:chosen] + [20] + [0] * (3 - chosen) == shares(group, 20)


@pytest.mark.parametrize("members", [[0, 1], [0, 1, 2, 3], [1, 3], [3, 0, 1]])
def test_chance_is_fair_among_those_that_are_meant(
    group: list[socket.socket], members: list[int]
) -> None:
    """
    And others get nothing. Five times the standard deviation is allowed, which
    chance exceeds once in a million.
    """
    attach_program(group[0], by_chance(members))

    got = shares(group, CONNECTIONS)

    expected = CONNECTIONS / len(members)
    allowed = 5 * (expected * (1 - 1 / len(members))) ** 0.5
    for member in range(4):
        if member in members:
            assert abs(got[member] - expected) < allowed
        else:
            assert 0 == got[member]


def test_weights_are_shares(group: list[socket.socket]) -> None:
    """
    0 is never, also between others and at either end.
    """
    for weights in ([1, 0, 3, 0], [0, 1, 1, 2]):
        attach_program(group[0], by_weight(weights))

        got = shares(group, CONNECTIONS)

        assert CONNECTIONS == sum(got)
        for weight, share in zip(weights, got, strict=True):
            allowed = 5 * (CONNECTIONS * weight * (4 - weight) / 16) ** 0.5
            assert abs(share - CONNECTIONS * weight / 4) <= allowed


def test_a_processor_has_its_member(group: list[socket.socket]) -> None:
    """
    Who connects from one processor over the loopback gets one member.
    """
    allowed = os.sched_getaffinity(0)
    attach_program(group[0], by_cpu([3, 1, 2, 0]))
    try:
        for cpu in allowed:
            os.sched_setaffinity(0, {cpu})
            got = shares(group, 20)
            assert 20 == got[[3, 1, 2, 0][cpu % 4]]
    finally:
        os.sched_setaffinity(0, allowed)


def test_the_hash_comes_back(group: list[socket.socket]) -> None:
    """
    Also where there was no program to stop.
    """
    detach_program(group[0])
    attach_program(group[0], by_chance([1]))
    detach_program(group[2])

    assert all(shares(group, CONNECTIONS))


def test_what_cannot_be_said_is_refused() -> None:
    """
    Before the kernel hears of it.
    """
    with pytest.raises(ValueError, match="somebody has to get"):
        by_chance([])
    for weights in ([], [0, 0], [1, -1], [3, -1]):
        with pytest.raises(ValueError, match="no weights"):
            by_weight(weights)
    with pytest.raises(ValueError, match="6002 instructions; the kernel takes 4096"):
        by_weight([1] * 3001)
    assert by_weight([1] * 2048)
    assert by_chance(range(4096))


def test_a_socket_that_is_no_group_is_refused() -> None:
    """
    The kernel says so.
    """
    with socket.socket(socket.AF_UNIX) as other, pytest.raises(OSError, match=r"\[Err"):
        attach_program(other, by_chance([0]))
