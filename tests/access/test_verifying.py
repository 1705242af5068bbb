"""
Tests for `kvd.access.verifying`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from threading import Thread

import pytest

from kvd.access import verifying
from kvd.access.verifying import Answering, Verifier
from kvd.errors import OutOfResources


class Answered:
    """
    A thread that answers, and what it has verified.
    """

    def __init__(self, requests: socket.socket) -> None:
        self.verified: list[tuple[str, str]] = []
        self._thread = Thread(target=Answering(requests, self.has_password).run)
        self._thread.start()

    def has_password(self, password_hash: str, password: str) -> bool:
        """
        Whether both are the same.
        """
        self.verified.append((password_hash, password))
        return password_hash == password

    def wait(self) -> None:
        """
        Until it has ended.
        """
        self._thread.join(60)
        assert not self._thread.is_alive()


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    """
    Of the socket for requests: that of those who ask, and the other.
    """
    asking, requests = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with asking, requests:
        yield asking, requests


def test_each_gets_its_own_answer(ends: tuple[socket.socket, socket.socket]) -> None:
    """
    However many ask at once; and the process ends when nobody is left who could ask. No
    descriptor stays open.
    """
    asking, requests = ends
    before = len(os.listdir("/proc/self/fd"))
    answered = Answered(requests)
    wrong: list[str] = []

    def ask(name: str) -> None:
        verifier = Verifier(asking)
        for number in range(20):
            given = f"{name} {number % 5} \u00e9\0"
            if not verifier.has_password(name, name):
                wrong.append(name)
            if verifier.has_password(name, given):
                wrong.append(given)

    threads = [Thread(target=ask, args=[name]) for name in ("a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    asking.shutdown(socket.SHUT_RDWR)
    answered.wait()

    assert [] == wrong
    assert 3 * 20 == len([one for one in answered.verified if one[0] != one[1]])
    assert before == len(os.listdir("/proc/self/fd"))


def test_what_was_right_is_remembered(
    ends: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    With its hash: where that has changed, it is verified anew. So many at most are
    remembered.
    """
    monkeypatch.setattr(verifying, "MOST_REMEMBERED", 2)
    asking, requests = ends
    answered = Answered(requests)
    verifier = Verifier(asking)
    for name in "aabab":
        assert verifier.has_password(name, name)
    assert not verifier.has_password("b", "a")
    assert [("a", "a"), ("b", "b"), ("b", "a")] == answered.verified
    for name in "ca":
        assert verifier.has_password(name, name)
    asking.shutdown(socket.SHUT_RDWR)
    answered.wait()

    assert [("c", "c"), ("a", "a")] == answered.verified[3:]


def test_an_end_without_an_answer_is_an_error(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """
    As where the process ends that has received the request. One that waits gets its
    answer when there is a process.
    """
    asking, requests = ends

    def receive_and_end() -> None:
        _, descriptors, _, _ = socket.recv_fds(requests, 4096, 1)
        os.close(*descriptors)

    ending = Thread(target=receive_and_end)
    ending.start()
    with pytest.raises(OutOfResources):
        Verifier(asking).has_password("a", "a")
    ending.join(60)

    found: list[bool] = []
    waiting = Thread(
        target=lambda: found.append(Verifier(asking).has_password("a", "a"))
    )
    waiting.start()
    answered = Answered(requests)
    waiting.join(60)
    asking.shutdown(socket.SHUT_RDWR)
    answered.wait()
    assert [True] == found


def test_one_that_asks_may_end(ends: tuple[socket.socket, socket.socket]) -> None:
    """
    Then nobody gets the answer; others get theirs.
    """
    asking, requests = ends
    answers, answer = os.pipe()
    os.close(answers)
    socket.send_fds(asking, [b"a\0a"], [answer])
    os.close(answer)
    answered = Answered(requests)
    assert Verifier(asking).has_password("b", "b")
    asking.shutdown(socket.SHUT_RDWR)
    answered.wait()

    assert [("a", "a"), ("b", "b")] == answered.verified
